//! What an oracle sees and what it says: [`Step`], [`Oracle`], [`Tally`], [`Violation`] and its [`Signature`].

mod clause;
mod oracle;
pub(crate) mod show;
mod step;
mod view;
mod violation;

pub use clause::{Clause, Tally};
pub use oracle::Oracle;
pub use step::{End, Step};
pub use view::View;
pub use violation::{Blame, Objection, Signature, Violation};
