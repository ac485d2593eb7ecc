//! RCU and SRCU: who reads, who waits for readers, and callbacks, which run as late as they may.
//!
//! The count of a `struct srcu_struct`'s readers is kept in its first word, which only the kernel's own SRCU would use.
//!
//! UNSAFETY: writes that word, and calls callbacks.

#![expect(unsafe_code, reason = "writes the kernel's structures, and calls its callbacks")]

use super::functions;
use crate::context::{self, Point, block_until, current};
use crate::loader::Answer;
use crate::memory::heap;
use crate::single::Single;

pub(crate) fn answers() -> impl IntoIterator<Item = (&'static str, Answer)> {
    functions! {
        "__rcu_read_lock" => read_lock as extern "C" fn(),
        "__rcu_read_unlock" => read_unlock as extern "C" fn(),
        "synchronize_rcu" => synchronize as extern "C" fn(),
        "synchronize_rcu_expedited" => synchronize as extern "C" fn(),
        "rcu_barrier" => barrier as extern "C" fn(),
        "call_rcu" => call_later as extern "C" fn(*mut Head, u64),
        "kvfree_call_rcu" => free_later as extern "C" fn(u64, u64),
        "init_srcu_struct" => init as extern "C" fn(*mut Srcu) -> i32,
        "init_srcu_struct_generic" => init as extern "C" fn(*mut Srcu) -> i32,
        "cleanup_srcu_struct" => barrier as extern "C" fn(),
        "__srcu_read_lock" => srcu_read_lock as extern "C" fn(*mut Srcu) -> i32,
        "__srcu_read_unlock" => srcu_read_unlock as extern "C" fn(*mut Srcu, i32),
        "synchronize_srcu" => synchronize_srcu as extern "C" fn(*mut Srcu),
        "synchronize_srcu_expedited" => synchronize_srcu as extern "C" fn(*mut Srcu),
        "srcu_barrier" => barrier as extern "C" fn(),
        "call_srcu" => call_srcu as extern "C" fn(*mut Srcu, *mut Head, u64),
    }
}

/// `struct rcu_head`.
#[repr(C)]
pub(crate) struct Head {
    next: u64,
    function: u64,
}

/// The first word of a `struct srcu_struct`: how many readers it has. Which thread reads is in [`READERS`].
#[repr(C)]
pub(crate) struct Srcu {
    readers: u32,
}

enum Callback {
    Call { function: u64, head: u64 },
    Free(u64),
}

static CALLBACKS: Single<Vec<Callback>> = Single::new(Vec::new());
/// Which thread reads which `struct srcu_struct`, as often as it does.
static READERS: Single<Vec<(usize, u64)>> = Single::new(Vec::new());

extern "C" fn read_lock() {
    context::rcu(1);
}

extern "C" fn read_unlock() {
    context::rcu(-1);
}

extern "C" fn synchronize() {
    context::point(Point::Rcu);
    block_until(|| !context::others_in_rcu());
}

extern "C" fn barrier() {
    run_callbacks();
}

extern "C" fn call_later(head: *mut Head, function: u64) {
    // An offset instead of a function asks for `kfree()` of what the head is in (`__is_kvfree_rcu_offset()`).
    let head = head as u64;
    let callback = if function < 4096 { Callback::Free(head - function) } else { Callback::Call { function, head } };
    CALLBACKS.borrow().push(callback);
}

extern "C" fn free_later(_head: u64, object: u64) {
    CALLBACKS.borrow().push(Callback::Free(object));
}

/// Call all that was left for later, if no reader is left.
pub(crate) fn run_callbacks() {
    if context::others_in_rcu() {
        return;
    }
    loop {
        let callbacks = std::mem::take(&mut *CALLBACKS.borrow());
        if callbacks.is_empty() {
            return;
        }
        for callback in callbacks {
            match callback {
                Callback::Free(object) => heap::free(object),
                Callback::Call { function, head } => {
                    // SAFETY: a callback that the kernel gave.
                    let function: extern "C" fn(u64) = unsafe { std::mem::transmute(function) };
                    function(head);
                }
            }
        }
    }
}

extern "C" fn init(srcu: *mut Srcu) -> i32 {
    // SAFETY: of the kernel.
    unsafe { (*srcu).readers = 0 };
    0
}

extern "C" fn srcu_read_lock(srcu: *mut Srcu) -> i32 {
    // vcpu_enter_guest() takes it right after the exit, before the exit is handled.
    context::point(Point::Fault);
    context::set_faulted(false);
    // SAFETY: of the kernel.
    unsafe { (*srcu).readers += 1 };
    READERS.borrow().push((current(), srcu as u64));
    0
}

extern "C" fn srcu_read_unlock(srcu: *mut Srcu, _index: i32) {
    // SAFETY: of the kernel.
    unsafe { (*srcu).readers = (*srcu).readers.wrapping_sub(1) };
    let mut readers = READERS.borrow();
    if let Some(index) = readers.iter().rposition(|reader| *reader == (current(), srcu as u64)) {
        readers.swap_remove(index);
    }
}

fn others_read(srcu: u64) -> bool {
    let current = current();
    READERS.borrow().iter().any(|(thread, of)| *thread != current && *of == srcu)
}

extern "C" fn synchronize_srcu(srcu: *mut Srcu) {
    context::point(Point::Srcu);
    block_until(|| !others_read(srcu as u64));
}

extern "C" fn call_srcu(_srcu: *mut Srcu, head: *mut Head, function: u64) {
    call_later(head, function);
}
