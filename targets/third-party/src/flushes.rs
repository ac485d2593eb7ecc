//! The flushes that a crate asked for on its own while it changed its tables. The functions by which crates ask belong to no value, so
//! what they asked for waits here, on their thread, until the hypervisor takes it.

use gpa_model::{Flush, FlushBackend, Gpa, Span};
use std::cell::RefCell;

thread_local! {
    /// An address of the entry to flush, of whatever size it is; none for every entry.
    static ASKED: RefCell<Vec<Option<Gpa>>> = const { RefCell::new(Vec::new()) };
}

/// A crate asks for the entry that holds `address`, or for all.
pub(crate) fn ask(address: Option<Gpa>) {
    ASKED.with_borrow_mut(|asked| asked.push(address));
}

/// What was asked for so far does not count.
pub(crate) fn forget() {
    ASKED.with_borrow_mut(Vec::clear);
}

/// Tell `flush` what was asked for. `large` is every large leaf that a TLB may hold; those that are flushed are taken out.
pub(crate) fn tell(flush: &mut FlushBackend, large: &mut Vec<Span>) {
    let range = |span: Span| Flush::Range { gpa: span.start, pages: span.pages, ok: true };
    for asked in ASKED.take() {
        let Some(gpa) = asked else {
            large.clear();
            flush.all();
            continue;
        };
        let page = Span { start: gpa.align_down(1), pages: 1 };
        flush.observed(range(page));
        large.retain(|leaf| {
            let holds = leaf.covers(page);
            if holds {
                flush.observed(range(*leaf));
            }
            !holds
        });
    }
}
