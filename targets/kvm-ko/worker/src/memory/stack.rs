//! Where the stack that is in use ends, for those who look for return addresses on it.

use crate::single::Single;

static END: Single<u64> = Single::new(0);

/// The stack that is used from now on ends at `end`. Where the one before did.
pub(crate) fn set_end(end: u64) -> u64 {
    END.set(end)
}

/// Where it ends.
pub(crate) fn end() -> u64 {
    END.get()
}
