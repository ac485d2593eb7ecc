//! What kind of processor it is, and when an access is given up.

use crate::single::Single;

/// After so many faults of one access a signal comes, and the access is given up.
pub(crate) const FAULTS_MAX: u32 = 64;

/// What kind of processor it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Bits of a physical address.
    pub(crate) physical_bits: u8,
    /// Levels of nested tables.
    pub(crate) nested_levels: u8,
}

static SETTINGS: Single<Settings> = Single::new(Settings { physical_bits: 48, nested_levels: 4 });

/// From now on it is such a processor.
pub(crate) fn set(settings: Settings) {
    SETTINGS.set(settings);
}

/// What it is.
pub(crate) fn get() -> Settings {
    SETTINGS.get()
}
