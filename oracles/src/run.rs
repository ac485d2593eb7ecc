//! The run of a program: in lockstep with the model, with what it covered and a report of it.

pub mod coverage;
pub mod features;
mod lockstep;
mod report;

pub use coverage::Coverage;
pub use features::Features;
pub use lockstep::{Event, Lockstep, OpCounts};
pub use report::{mark_op, report};
