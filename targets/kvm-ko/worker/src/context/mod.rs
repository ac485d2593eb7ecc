//! Threads of the kernel, which take turns where the driver wants them to, and calls into the kernel that come back even if it dies.

mod registers;
mod rescue;
mod thread;
mod trap;

pub(crate) use registers::Registers;
pub(crate) use rescue::{call, die};
pub use thread::{Begun, Point, Thread};
pub(crate) use thread::{
    Threads, begin, block_until, current, forget_offers, give_up, give_way, make_tasks, offer, others_in_rcu, point,
    rcu, resume, set_faulted, spin, stops_at,
};
pub(crate) use trap::{install, instruction};
