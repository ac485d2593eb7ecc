//! The page tables that the guest runs under.

use super::layout::{
    DIRECTORY, ENTRY_BITS, OWN_GFN, OWN_LEAVES, OWN_PAGES, OWN_ROOT_ENTRY, POINTERS, ROOTS, TABLE_GFN, WINDOW_LEAVES,
    WINDOWS,
};
use super::names;
use crate::host::memory::Pages;
use gpa_model::Gpa;

/// Writes all page tables except the windows.
pub(crate) fn write_tables(tables: &Pages) {
    let table = |page: usize| Gpa::from_page(TABLE_GFN + page as u64);
    let set = |page, index: usize, gpa: Gpa| tables.write_u64(page, index * size_of::<u64>(), gpa.raw() | ENTRY_BITS);
    for root in ROOTS {
        set(root, OWN_ROOT_ENTRY, table(POINTERS));
    }
    set(POINTERS, 0, table(DIRECTORY));
    set(DIRECTORY, 0, table(OWN_LEAVES));
    for window in 0..WINDOWS {
        set(DIRECTORY, 1 + window, table(WINDOW_LEAVES + window));
    }
    names::write_directories(tables);
    for page in 0..OWN_PAGES {
        set(OWN_LEAVES, page, Gpa::from_page(OWN_GFN + page as u64));
    }
}

/// The entry of a root table that leads to the guest's own addresses.
pub(crate) fn own_root_entry() -> u64 {
    Gpa::from_page(TABLE_GFN + POINTERS as u64).raw() | ENTRY_BITS
}
