//! The runner as the first process of a lab's machine.

mod init;
pub(crate) mod serve;
mod stolen;
