//! The per-CPU area of the one processor. GS base is its start, so a per-CPU address is an offset in it.
//!
//! UNSAFETY: clears the room that it gives.

#![expect(unsafe_code, reason = "clears the room that it gives")]

use super::physical;
use crate::single::Single;

/// Bytes of the area.
pub(crate) const BYTES: u64 = 1 << 20;
/// The first page holds what the compiler expects at fixed places, as the stack canary at 0x28.
const FIXED: u64 = 4096;

struct Area {
    base: u64,
    next: u64,
}

static AREA: Single<Area> = Single::new(Area { base: 0, next: FIXED });

/// Use the `BYTES` from `base` on.
pub(crate) fn place(base: u64) {
    AREA.set(Area { base, next: FIXED });
}

/// Where the area begins.
pub(crate) fn base() -> u64 {
    AREA.borrow().base
}

/// Room for `size` bytes, zeroed: their offset.
///
/// # Panics
/// If there is none.
pub(crate) fn alloc(size: u64, align: u64) -> u64 {
    let mut area = AREA.borrow();
    let at = area.next.next_multiple_of(align.max(8));
    area.next = at + size;
    assert!(area.next <= BYTES, "per-CPU data fits into {BYTES} bytes");
    // SAFETY: in the area.
    unsafe { physical::fill(area.base + at, 0, size) };
    at
}
