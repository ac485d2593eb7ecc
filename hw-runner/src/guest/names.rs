//! The guest's names of frames: linear addresses, and the page-table entries that map them to GPAs.
//!
//! One leaf table maps every name of a window. A second directory leads to the same leaf tables and forbids writes. Other
//! directories have a leaf of 2 MiB for each half of a window under each alias. So up to three entries of different kinds lead
//! to one GPA.
//!
//! ```text
//! pointer table  directory: own pages, windows | the same, read-only | leaves of 2 MiB: LARGE_DIRECTORIES directories
//! ```

use super::layout::{ENTRIES, ENTRY_BITS, OWN_LINEAR, POINTERS, TABLE_GFN, WINDOW_LEAVES, WINDOWS};
use crate::host::memory::{HUGE_PAGES, Pages};
use crate::kvm::alias_method::AliasMethod;
use gpa_model::limits::{ALIASES, FRAMES};
use gpa_model::{Access, Gpa, Level, VmConfig};

const READONLY_DIRECTORY: usize = WINDOW_LEAVES + WINDOWS;
const LARGE_DIRECTORY: usize = READONLY_DIRECTORY + 1;
/// A window of frames overlaps at most this many leaves of 2 MiB.
const HALVES: usize = 2;
const LARGE_DIRECTORIES: usize = WINDOWS * ALIASES * HALVES / ENTRIES;
const _: () = assert!(FRAMES <= ENTRIES && LARGE_DIRECTORY + LARGE_DIRECTORIES <= HUGE_PAGES);

/// Entry bits: a leaf in a directory; writable.
const LARGE: u64 = 1 << 7;
const WRITABLE: u64 = 1 << 1;

/// The kind of page-table entry that maps a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A leaf of 4 KiB.
    Small,
    /// The same leaf, through a directory entry that forbids writes.
    Readonly,
    /// A leaf of 2 MiB.
    Large,
}

impl Entry {
    /// The kind for an access through alias number `alias`. An alias method that mixes entries uses all kinds
    /// for each frame.
    pub(crate) fn of(alias_method: AliasMethod, alias: usize, access: Access) -> Self {
        match (alias_method.mixes_entries(), alias % 2, access) {
            (false, ..) => Self::Small,
            (true, 1, _) => Self::Large,
            (true, _, Access::Write) => Self::Small,
            (true, _, Access::Read | Access::Execute) => Self::Readonly,
        }
    }
}

/// The linear address of a frame of `vm` under alias number `alias`, mapped by an entry of kind `entry`.
pub(crate) fn name_by(entry: Entry, vm: &VmConfig, window: usize, alias: usize, frame: usize) -> u64 {
    let page = match entry {
        Entry::Small => return name(window, alias, frame),
        Entry::Readonly => in_directory(1, 1 + window, alias * FRAMES + frame),
        Entry::Large => {
            let (half, offset) = half_of(vm, frame);
            let leaf = large_leaf(window, alias, half);
            in_directory(2 + leaf / ENTRIES, leaf % ENTRIES, offset)
        }
    };
    Gpa::from_page(page).raw()
}

/// The linear address of a frame under an alias, mapped by a leaf of 4 KiB.
pub(crate) fn name(window: usize, alias: usize, frame: usize) -> u64 {
    window_address(window, alias * FRAMES + frame)
}

/// The linear address that entry `index` of a window's leaf table translates.
pub(crate) fn window_address(window: usize, index: usize) -> u64 {
    Gpa::from_page(OWN_LINEAR + ((1 + window) * ENTRIES + index) as u64).raw()
}

/// The linear page number for entry `index` of the table, or page `index` of the leaf, at entry `entry` of
/// directory number `directory`.
const fn in_directory(directory: usize, entry: usize, index: usize) -> u64 {
    OWN_LINEAR + ((directory * ENTRIES + entry) * ENTRIES + index) as u64
}

const fn large_leaf(window: usize, alias: usize, half: usize) -> usize {
    (window * ALIASES + alias) * HALVES + half
}

/// The leaf of 2 MiB that maps a frame, counted from the window's first, and the frame's page in it.
fn half_of(vm: &VmConfig, frame: usize) -> (usize, usize) {
    let pages = Level::Page2M.pages();
    let (gfn, first) = (vm.gfn(frame), vm.base().align_down(pages));
    let offset = gfn.offset_from(first).unwrap_or(0) as usize;
    (offset / ENTRIES, offset % ENTRIES)
}

/// Writes the directories besides the first, as far as all VMs share them.
pub(super) fn write_directories(tables: &Pages) {
    let table = |page: usize| Gpa::from_page(TABLE_GFN + page as u64).raw();
    let set = |page, index: usize, entry: u64| tables.write_u64(page, index * size_of::<u64>(), entry);
    set(POINTERS, 1, table(READONLY_DIRECTORY) | ENTRY_BITS);
    for directory in 0..LARGE_DIRECTORIES {
        set(POINTERS, 2 + directory, table(LARGE_DIRECTORY + directory) | ENTRY_BITS);
    }
    for window in 0..WINDOWS {
        set(READONLY_DIRECTORY, 1 + window, table(WINDOW_LEAVES + window) | ENTRY_BITS & !WRITABLE);
    }
}

/// Maps every name of every frame of `vm` in window number `window`.
pub(crate) fn write_window(tables: &Pages, window: usize, vm: &VmConfig, alias_method: AliasMethod) {
    for index in 0..ENTRIES {
        let (alias, frame) = (index / FRAMES, index % FRAMES);
        let present = alias < vm.stolen().alias_count();
        let entry = if present { vm.gpa(frame, alias_method.alias_in_tables(alias)).raw() | ENTRY_BITS } else { 0 };
        tables.write_u64(WINDOW_LEAVES + window, index * size_of::<u64>(), entry);
    }
    for (alias, half) in (0..ALIASES).flat_map(|alias| (0..HALVES).map(move |half| (alias, half))) {
        let leaf = large_leaf(window, alias, half);
        let entry = if alias < vm.stolen().alias_count() { large_entry(vm, alias_method, alias, half) } else { 0 };
        tables.write_u64(LARGE_DIRECTORY + leaf / ENTRIES, leaf % ENTRIES * size_of::<u64>(), entry);
    }
}

fn large_entry(vm: &VmConfig, alias_method: AliasMethod, alias: usize, half: usize) -> u64 {
    let (stolen, pages) = (vm.stolen(), Level::Page2M.pages());
    let gfn = vm.base().align_down(pages).add(half as u64 * pages);
    stolen.join(gfn, stolen.alias(alias_method.alias_in_tables(alias))).raw() | ENTRY_BITS | LARGE
}

/// Maps the pages from `gfn` in window number `window`, one for each entry.
pub(crate) fn write_window_over(tables: &Pages, window: usize, gfn: u64) {
    for index in 0..ENTRIES {
        let entry = Gpa::from_page(gfn + index as u64).raw() | ENTRY_BITS;
        tables.write_u64(WINDOW_LEAVES + window, index * size_of::<u64>(), entry);
    }
}
