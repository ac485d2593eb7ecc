//! The kernel's heap: objects with a redzone behind them, poison in what is freed, and a quarantine before it is used again.
//!
//! An object lies in a slot whose size is a power of two, so it is aligned as `kmalloc()` promises. The end of the slot says what
//! is in it; the bytes between the object and that end are the redzone. Slots of a page or more, and what the page allocator
//! gives, have an order instead of a class. Pages have no redzone: the next page is another's.
//!
//! UNSAFETY: writes what it manages, which is its part of physical memory.

#![expect(unsafe_code, reason = "writes the memory that it manages")]

use super::physical::{self, HEAP_END, PAGE, PHYSICAL};
use crate::single::Single;
use std::collections::VecDeque;

/// What is freed.
const POISON: u8 = 0x6b;
/// What follows an object.
const REDZONE: u8 = 0xbb;
/// Where the heap begins: what is below are null pointers plus offsets, taken for physical addresses.
const START: u64 = 64 << 20;
/// Smallest slot, as a shift.
const CLASS_MIN: u32 = 5;
/// A slot of this shift is a page.
const PAGE_SHIFT: u32 = 12;
/// Shifts of slots; from here on, of what the page allocator gives.
const PAGES_FROM: usize = 32;
const CLASSES: usize = 2 * PAGES_FROM;
/// How many of each class are kept from use after they were freed.
const QUARANTINE: usize = 64;
const LIVE: u32 = 0x4c49_5645;
const FREE: u32 = 0x4652_4545;

/// What is wrong with memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// What was to be freed is no object, or is free already.
    BadFree(String),
    /// Memory was written that was not the writer's.
    Written(String),
}

/// The end of each slot that is smaller than a page, or that `worker_alloc()` made.
#[derive(Clone, Copy)]
#[repr(C)]
struct Trailer {
    size: u32,
    state: u32,
    /// The address that its allocation returned to, which is below 2 GiB.
    caller: u32,
    /// How often [`mark`] was called before it was made, or freed.
    era: u32,
}

const TRAILER: u64 = size_of::<Trailer>() as u64;

/// What a page of the heap is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Unused,
    /// Holds slots of this class.
    Slots(u8),
    /// The first page of an object of the page allocator, live or not.
    Pages {
        order: u8,
        live: bool,
    },
    /// The first page of a slot that is a page or larger.
    Slot {
        class: u8,
    },
}

struct Heap {
    next: u64,
    uses: Vec<Use>,
    free: [Vec<u64>; CLASSES],
    quarantine: [VecDeque<u64>; CLASSES],
    /// What was freed since [`verify`], with its class.
    retired: Vec<(u64, usize)>,
    live: u64,
    era: u32,
    damage: Vec<Damage>,
}

static HEAP: Single<Heap> = Single::new(Heap {
    next: PHYSICAL + START,
    uses: Vec::new(),
    free: [const { Vec::new() }; CLASSES],
    quarantine: [const { VecDeque::new() }; CLASSES],
    retired: Vec::new(),
    live: 0,
    era: 0,
    damage: Vec::new(),
});

/// An object of `size` bytes. `caller` is the address that wants it.
pub(crate) fn alloc(size: u64, zeroed: bool, caller: u64) -> u64 {
    HEAP.borrow().alloc(size, zeroed, caller)
}

/// Free an object of [`alloc`].
pub(crate) fn free(object: u64) {
    HEAP.borrow().free(object);
}

/// `2^order` pages.
pub(crate) fn alloc_pages(order: u32, zeroed: bool) -> u64 {
    HEAP.borrow().alloc_pages(order, zeroed)
}

/// Free what [`alloc_pages`] gave.
pub(crate) fn free_pages(pages: u64, order: u32) {
    HEAP.borrow().free_pages(pages, order);
}

/// How many objects there are.
pub(crate) fn live() -> u64 {
    HEAP.borrow().live
}

/// Look for writes into what was freed since this was done last.
pub(crate) fn verify() {
    let mut heap = HEAP.borrow();
    for (at, index) in std::mem::take(&mut heap.retired) {
        let class = (index % PAGES_FROM) as u32;
        let is_free = if index < PAGES_FROM {
            // SAFETY: the end of a slot.
            let trailer: Trailer = unsafe { physical::read(at + (1 << class) - TRAILER) };
            trailer.state == FREE && trailer.era == heap.era
        } else {
            matches!(heap.use_of(at), Use::Pages { live: false, .. })
        };
        // What was taken again was looked at then.
        if is_free {
            heap.check_poison(at, class);
        }
    }
}

/// The objects that are live and were made since the last [`mark`], by the address that wanted them.
pub(crate) fn leaked() -> Vec<u64> {
    HEAP.borrow().leaked()
}

/// What was found to be wrong since this was asked last.
pub(crate) fn take_damage() -> Vec<Damage> {
    std::mem::take(&mut HEAP.borrow().damage)
}

/// From here on [`leaked`] counts.
pub(crate) fn mark() {
    HEAP.borrow().era += 1;
}

impl Heap {
    fn alloc(&mut self, size: u64, zeroed: bool, caller: u64) -> u64 {
        let class = (size + TRAILER).next_power_of_two().trailing_zeros().max(CLASS_MIN);
        let slot = self.slot(class);
        let end = slot + (1 << class);
        let trailer = Trailer { size: size as u32, state: LIVE, caller: caller as u32, era: self.era };
        // SAFETY: the slot is free.
        unsafe {
            if zeroed {
                physical::fill(slot, 0, size);
            }
            physical::fill(slot + size, REDZONE, end - TRAILER - slot - size);
            physical::write(end - TRAILER, trailer);
        }
        self.live += 1;
        slot
    }

    /// A free slot of `class`.
    fn slot(&mut self, class: u32) -> u64 {
        let index = class as usize;
        if let Some(slot) = self.free[index].pop() {
            return slot;
        }
        if self.quarantine[index].len() > QUARANTINE
            && let Some(slot) = self.quarantine[index].pop_front()
        {
            // SAFETY: the end of the slot.
            let trailer: Trailer = unsafe { physical::read(slot + (1 << class) - TRAILER) };
            // What was freed before the last mark was looked at by [`verify`].
            if trailer.era == self.era {
                self.check_poison(slot, class);
            }
            return slot;
        }
        if class >= PAGE_SHIFT {
            let slot = self.fresh(class);
            self.set_use(slot, Use::Slot { class: class as u8 });
            return slot;
        }
        let page = self.fresh(PAGE_SHIFT);
        self.set_use(page, Use::Slots(class as u8));
        self.free[index].extend((1..PAGE >> class).rev().map(|slot| page + (slot << class)));
        page
    }

    /// Memory that was never used, `2^shift` bytes.
    fn fresh(&mut self, shift: u32) -> u64 {
        let at = self.next.next_multiple_of(1 << shift);
        self.next = at + (1 << shift);
        assert!(self.next <= PHYSICAL + HEAP_END, "the kernel's heap fits into its part of memory");
        at
    }

    fn page_index(at: u64) -> usize {
        ((at - PHYSICAL) / PAGE) as usize
    }

    fn leaked(&self) -> Vec<u64> {
        let mut callers = Vec::new();
        for (index, what) in self.uses.iter().enumerate() {
            let page = PHYSICAL + index as u64 * PAGE;
            let (class, slots) = match what {
                Use::Slots(class) => (*class, PAGE >> class),
                Use::Slot { class } => (*class, 1),
                Use::Pages { .. } | Use::Unused => continue,
            };
            let ends = (1..=slots).map(|slot| page + (slot << class) - TRAILER);
            // SAFETY: ends of slots.
            let trailers = ends.map(|end| unsafe { physical::read::<Trailer>(end) });
            callers.extend(trailers.filter(|is| is.state == LIVE && is.era == self.era).map(|is| u64::from(is.caller)));
        }
        callers
    }

    fn set_use(&mut self, at: u64, what: Use) {
        let index = Self::page_index(at);
        if self.uses.len() <= index {
            self.uses.resize(index + 1, Use::Unused);
        }
        self.uses[index] = what;
    }

    fn use_of(&self, at: u64) -> Use {
        let known = (PHYSICAL..PHYSICAL + HEAP_END).contains(&at).then(|| self.uses.get(Self::page_index(at)));
        known.flatten().copied().unwrap_or(Use::Unused)
    }

    fn free(&mut self, object: u64) {
        let class = match self.use_of(object) {
            Use::Slots(class) if object & ((1 << class) - 1) == 0 => u32::from(class),
            Use::Slot { class } => u32::from(class),
            // `vfree()`, and `kvfree()` of it.
            Use::Pages { order, .. } => return self.free_pages(object, order.into()),
            _ => return self.damage.push(Damage::BadFree(format!("{object:#x} is no object of the heap"))),
        };
        let end = object + (1 << class);
        // SAFETY: the end of a slot.
        let trailer: Trailer = unsafe { physical::read(end - TRAILER) };
        if trailer.state == FREE {
            return self.damage.push(Damage::BadFree(format!("{object:#x} is free already")));
        }
        let size = u64::from(trailer.size).min((1 << class) - TRAILER);
        // SAFETY: inside of the slot.
        let other = unsafe { physical::first_other(object + size, REDZONE, (1 << class) - TRAILER - size) };
        if let Some(at) = other.or((trailer.state != LIVE).then_some(end - 8)) {
            let past = at - object - size;
            let what = format!("an object of {size} bytes was written {past} bytes past its end");
            self.damage.push(Damage::Written(what));
        }
        self.live -= 1;
        self.retire(object, class);
        // SAFETY: the end of the slot.
        unsafe { physical::write(end - TRAILER, Trailer { state: FREE, era: self.era, ..trailer }) };
    }

    fn retire(&mut self, at: u64, class: u32) {
        // SAFETY: a slot that was freed.
        unsafe { physical::fill(at, POISON, 1 << class) };
        self.quarantine[class as usize].push_back(at);
        self.retired.push((at, class as usize));
    }

    /// Whether something was written to the slot since it was freed. The trailer is ours.
    fn check_poison(&mut self, at: u64, class: u32) {
        let pages = matches!(self.use_of(at), Use::Pages { .. });
        let bytes = (1 << class) - if pages { 0 } else { TRAILER };
        // SAFETY: a slot of the heap.
        if let Some(other) = unsafe { physical::first_other(at, POISON, bytes) } {
            let offset = other - at;
            let what = if pages { "a page was" } else { "an object was" };
            self.damage.push(Damage::Written(format!("{what} written at offset {offset} after it was freed")));
            // SAFETY: as above. Said once.
            unsafe { physical::fill(at, POISON, bytes) };
        }
    }

    fn alloc_pages(&mut self, order: u32, zeroed: bool) -> u64 {
        // Pages and slots have quarantines of their own.
        let (class, index) = (PAGE_SHIFT + order, (PAGE_SHIFT + order) as usize + PAGES_FROM);
        let mut at = self.free[index].pop();
        if at.is_none() && self.quarantine[index].len() > QUARANTINE {
            at = self.quarantine[index].pop_front();
            if let Some(at) = at {
                self.check_poison(at, class);
            }
        }
        let at = at.unwrap_or_else(|| self.fresh(class));
        self.set_use(at, Use::Pages { order: order as u8, live: true });
        self.live += 1;
        if zeroed {
            // SAFETY: pages that are free.
            unsafe { physical::fill(at, 0, PAGE << order) };
        }
        at
    }

    fn free_pages(&mut self, at: u64, order: u32) {
        match self.use_of(at) {
            Use::Pages { order: was, live: true } if u32::from(was) == order => {}
            Use::Pages { live: false, .. } => {
                return self.damage.push(Damage::BadFree(format!("the page {at:#x} is free already")));
            }
            _ => return self.damage.push(Damage::BadFree(format!("{at:#x} is no page of order {order}"))),
        }
        self.set_use(at, Use::Pages { order: order as u8, live: false });
        self.live -= 1;
        // SAFETY: pages that were freed.
        unsafe { physical::fill(at, POISON, PAGE << order) };
        let index = (PAGE_SHIFT + order) as usize + PAGES_FROM;
        self.quarantine[index].push_back(at);
        self.retired.push((at, index));
    }
}
