//! `get_user_pages()` and its kin: the host's pages, given to the kernel.
//!
//! UNSAFETY: writes where the kernel wants the pages.

#![expect(unsafe_code, reason = "writes the kernel's arrays of pages")]

use super::functions;
use crate::context::{self, Point};
use crate::loader::Answer;
use crate::memory::{PAGE, host};

/// `FOLL_WRITE`.
const WRITE: u32 = 1;
const EFAULT: i64 = -14;

pub(crate) fn answers() -> impl IntoIterator<Item = (&'static str, Answer)> {
    functions! {
        "get_user_pages_fast_only" => fast_only as extern "C" fn(u64, i32, u32, *mut u64) -> i32,
        "get_user_pages_unlocked" => unlocked as extern "C" fn(u64, u64, *mut u64, u32) -> i64,
        "get_user_pages_remote" => remote as extern "C" fn() -> i64,
    }
}

/// The host's pages begin: the address of the top of its page tables.
pub(crate) fn begin(file: i32, page_size: u64, refcount: u64) -> u64 {
    host::begin(file, page_size, refcount)
}

fn look_up(address: u64, pages: u64, flags: u32, into: *mut u64, fast: bool) -> u64 {
    for index in 0..pages {
        let Some(page) = host::look_up(address + index * PAGE, flags & WRITE != 0, fast) else { return index };
        // SAFETY: the kernel's array has room for as many pages as it asks for.
        unsafe { *into.add(index as usize) = page };
    }
    // With the page in hand: from here on the kernel must notice what happens to it.
    context::point(Point::PageLookup);
    pages
}

extern "C" fn fast_only(address: u64, pages: i32, flags: u32, into: *mut u64) -> i32 {
    look_up(address, u64::try_from(pages).unwrap_or_default(), flags, into, true) as i32
}

extern "C" fn unlocked(address: u64, pages: u64, into: *mut u64, flags: u32) -> i64 {
    match look_up(address, pages, flags, into, false) {
        0 => EFAULT,
        found => found as i64,
    }
}

/// Asked only whether a page is poisoned (`check_user_page_hwpoison()`).
extern "C" fn remote() -> i64 {
    EFAULT
}
