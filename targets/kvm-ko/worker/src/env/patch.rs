//! What the kernel asks of its own code and of its scheduler: patching, giving way, complaints about counts.

use super::functions;
use crate::alarm::{self, AlarmKind};
use crate::context;
use crate::loader::{self, Answer};

pub(crate) fn answers() -> impl IntoIterator<Item = (&'static str, Answer)> {
    functions! {
        "worker_static_call" => static_call as extern "C" fn(u64, u64),
        "worker_jump_label" => jump_label as extern "C" fn(u64),
        "__SCT__cond_resched" => cond_resched as extern "C" fn() -> i32,
        "schedule" => schedule as extern "C" fn(),
        "refcount_warn_saturate" => refcount as extern "C" fn(u64, u32),
    }
}

extern "C" fn static_call(trampoline: u64, function: u64) {
    loader::static_call(trampoline, function);
}

extern "C" fn jump_label(key: u64) {
    loader::jump_label(key);
}

/// After so many offers to give way, of one request, a signal comes: it may go round for ever, as `KVM_PRE_FAULT_MEMORY` does while
/// a page is being invalidated.
const OFFERS_MAX: u32 = 256;

extern "C" fn cond_resched() -> i32 {
    if context::offer() == OFFERS_MAX {
        context::give_up();
    }
    0
}

extern "C" fn schedule() {
    context::give_way();
}

/// In the order of `enum refcount_saturation_type`.
const REFCOUNTS: [&str; 5] = [
    "is taken from 0, without a check",
    "overflows",
    "is taken from 0: use after free",
    "falls below 0: use after free",
    "falls to 0 at a decrement",
];

extern "C" fn refcount(_count: u64, kind: u32) {
    let what = REFCOUNTS.get(kind as usize).copied().unwrap_or("is wrong");
    alarm::raise(AlarmKind::Warn, format!("a reference count {what}"));
}
