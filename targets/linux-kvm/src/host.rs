//! What a machine has of the host it runs on: a folder, a port and a process that goes with this one.

pub(crate) mod port;
pub(crate) mod run_dir;
pub(crate) mod supervise;
