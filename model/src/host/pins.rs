//! References to host pages: who looks one up holds it until it is mapped, or not needed after all, and lets go of it once.
//!
//! A page that is let go of too late is never freed; one that is let go of twice is freed while somebody uses it
//! (CVE-2021-22543).

use crate::addr::Pfn;
use std::cell::{Cell, RefCell};

/// The pages that an MMU holds, once for each reference. An MMU that takes none is not judged by them.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    held: RefCell<Vec<Pfn>>,
    taken: Cell<bool>,
    unheld: Cell<Option<Pfn>>,
}

impl Pins {
    /// Hold `pfn` (`get_page()`).
    pub fn take(&self, pfn: Pfn) {
        self.held.borrow_mut().push(pfn);
        self.taken.set(true);
    }

    /// Let go of `pfn` (`kvm_release_pfn_clean()`).
    pub fn release(&self, pfn: Pfn) {
        let mut held = self.held.borrow_mut();
        match held.iter().rposition(|page| *page == pfn) {
            Some(at) => _ = held.swap_remove(at),
            None => self.unheld.set(Some(pfn)),
        }
    }

    /// How many references there are.
    pub fn held(&self) -> usize {
        self.held.borrow().len()
    }

    /// Whether the last op took any.
    pub fn taken(&self) -> bool {
        self.taken.get()
    }

    /// A page that the last op let go of and that nobody held.
    pub fn unheld(&self) -> Option<Pfn> {
        self.unheld.get()
    }

    pub(crate) fn begin_op(&mut self) {
        self.taken.set(false);
        self.unheld.set(None);
    }

    pub(crate) fn clear(&mut self) {
        self.held.get_mut().clear();
        self.begin_op();
    }
}
