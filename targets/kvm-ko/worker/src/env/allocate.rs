//! Memory for the kernel.

use super::functions;
use crate::alarm::{self, AlarmKind};
use crate::loader::{Answer, CALLER};
use crate::memory::heap::{self, Damage};
use crate::memory::percpu;
use std::sync::atomic::Ordering;

pub(crate) fn answers() -> impl IntoIterator<Item = (&'static str, Answer)> {
    functions! {
        "worker_alloc" => alloc as extern "C" fn(u64, bool) -> u64,
        "worker_free" => free as extern "C" fn(u64),
        "worker_alloc_pages" => alloc_pages as extern "C" fn(u32, bool) -> u64,
        "worker_free_pages" => free_pages as extern "C" fn(u64, u32),
        "worker_alloc_percpu" => alloc_percpu as extern "C" fn(u64, u64) -> u64,
    }
}

/// What is wrong with the heap becomes alarms.
pub(crate) fn report_damage() {
    for damage in heap::take_damage() {
        match damage {
            Damage::BadFree(text) => alarm::raise(AlarmKind::BadFree, text),
            Damage::Written(text) => alarm::raise(AlarmKind::MemoryCorruption, text),
        }
    }
}

extern "C" fn alloc(size: u64, zeroed: bool) -> u64 {
    let object = heap::alloc(size, zeroed, CALLER.load(Ordering::Relaxed));
    report_damage();
    object
}

extern "C" fn free(object: u64) {
    heap::free(object);
    report_damage();
}

extern "C" fn alloc_pages(order: u32, zeroed: bool) -> u64 {
    let pages = heap::alloc_pages(order, zeroed);
    report_damage();
    pages
}

extern "C" fn free_pages(pages: u64, order: u32) {
    heap::free_pages(pages, order);
    report_damage();
}

extern "C" fn alloc_percpu(size: u64, align: u64) -> u64 {
    percpu::alloc(size, align)
}
