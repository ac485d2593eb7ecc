//! The memory that page tables are made of: what a crate under test takes for physical memory.
//!
//! Crates reach their tables by raw pointers, which they ask for by physical address. Here an address is looked up each time: that
//! of a page which was freed, or never handed out, is a panic and so a finding, not a wild write. No page is handed out twice to
//! one VM, and none goes back to the process before the VM ends.
//!
//! Some crates ask by functions that belong to no value. They find the arena that was entered last on their thread.

use gpa_model::Gpa;
use std::cell::{RefCell, UnsafeCell};

/// Where the pages of tables begin: above every page that a guest can have, and below what an entry cannot hold.
const FIRST_PAGE: u64 = 1 << 33;

#[repr(align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

/// The page tables of one VM.
#[derive(Default)]
pub(crate) struct Arena {
    /// Each page that was ever handed out, from [`FIRST_PAGE`]; none for one that was freed, or left out for alignment.
    pages: Vec<Option<*mut u8>>,
    memory: Vec<Box<[Page]>>,
}

thread_local! {
    static ENTERED: RefCell<Arena> = RefCell::default();
}

impl Arena {
    /// Run `f`, whose calls of [`alloc`], [`free`] and [`pointer()`] mean this arena.
    pub(crate) fn during<R>(arena: &RefCell<Self>, f: impl FnOnce() -> R) -> R {
        struct Leave<'a>(&'a RefCell<Arena>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                ENTERED.with(|entered| entered.swap(self.0));
            }
        }
        ENTERED.with(|entered| entered.swap(arena));
        let _leave = Leave(arena);
        f()
    }

    fn alloc(&mut self, pages: usize) -> u64 {
        let first = self.pages.len().next_multiple_of(pages.next_power_of_two());
        self.pages.resize(first, None);
        let memory: Box<[Page]> = (0..pages).map(|_| Page(UnsafeCell::new([0; 4096]))).collect();
        self.pages.extend(memory.iter().map(|page| Some(page.0.get().cast())));
        self.memory.push(memory);
        Gpa::from_page(FIRST_PAGE + first as u64).raw()
    }

    fn page(&mut self, address: u64) -> &mut Option<*mut u8> {
        let index = Gpa::new(address).page().checked_sub(FIRST_PAGE).and_then(|index| usize::try_from(index).ok());
        let page = index.and_then(|index| self.pages.get_mut(index));
        page.unwrap_or_else(|| panic!("{address:#x} is taken for a page of tables, but none was ever there"))
    }
}

/// A run of zeroed pages, aligned to its size, as a physical address.
pub(crate) fn alloc(pages: usize) -> u64 {
    ENTERED.with_borrow_mut(|arena| arena.alloc(pages))
}

/// Give a page back.
///
/// # Panics
/// If it is not in use.
pub(crate) fn free(address: u64) {
    let page = ENTERED.with_borrow_mut(|arena| arena.page(address).take());
    assert!(page.is_some(), "the page of tables at {address:#x} is freed twice");
}

/// Give the page back that is read and written at `pointer`.
///
/// # Panics
/// If none in use is there.
pub(crate) fn free_at(pointer: *mut u8) {
    let page = ENTERED.with_borrow(|arena| arena.pages.iter().position(|page| *page == Some(pointer)));
    let page = page.unwrap_or_else(|| panic!("what is freed is no page of tables that is in use"));
    free(Gpa::from_page(FIRST_PAGE + page as u64).raw());
}

/// Where the page at the physical address `address` can be read and written. A run of pages has one after the other.
///
/// # Panics
/// If no page of tables is there any more, or none ever was.
pub(crate) fn pointer(address: u64) -> *mut u8 {
    let page = ENTERED.with_borrow_mut(|arena| *arena.page(address));
    page.unwrap_or_else(|| panic!("the page of tables at {address:#x} is used after it was freed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "is used after it was freed")]
    fn a_page_that_was_freed_cannot_be_reached() {
        let arena = RefCell::default();
        Arena::during(&arena, || {
            let page = alloc(1);
            free(page);
            pointer(page)
        });
    }

    #[test]
    #[should_panic(expected = "none was ever there")]
    fn an_address_that_was_never_handed_out_cannot_be_reached() {
        let arena = RefCell::default();
        Arena::during(&arena, || pointer(alloc(1) + Gpa::from_page(1).raw()));
    }

    #[test]
    fn a_run_of_pages_is_aligned_and_in_one_piece() {
        let arena = RefCell::default();
        Arena::during(&arena, || {
            let (_, run) = (alloc(1), alloc(4));
            assert_eq!(Gpa::new(run).align_down(4), Gpa::new(run));
            let pages = (0..4).map(|page| pointer(Gpa::new(run).add_pages(page).raw()).addr() - pointer(run).addr());
            assert!(pages.eq((0..4).map(|page| Gpa::from_page(page).raw() as usize)));
        });
    }

    #[test]
    fn two_arenas_on_one_thread_do_not_meet() {
        let (first, second) = (RefCell::default(), RefCell::default());
        let page = Arena::during(&first, || alloc(1));
        assert_eq!(Arena::during(&second, || alloc(1)), page);
        Arena::during(&second, || free(page));
        Arena::during(&first, || pointer(page));
    }
}
