//! How much room is free, told where something failed for want of it.

use super::PLACE;
use crate::Error;
use crate::command::output;
use std::path::Path;
use std::process::Command;

/// What a kernel, its source, its headers and some builds of KVM come to, and room to unpack them.
const ENOUGH_MB: u64 = 1000;

/// `error`, and how much room is free in `root` if it is little.
pub(super) fn explain(root: &Path, error: Error) -> Error {
    // The error of a folder that another one needs says so already.
    if error.to_string().contains(PLACE) {
        return error;
    }
    let Some(free) = free_mb(root).filter(|free| *free < ENOUGH_MB) else { return error };
    let root = root.display();
    Error::Absent(format!(
        "{error}\n  expected about {ENOUGH_MB} MB free for kernels in {root}, found {free} MB; make room, or name another place in ${PLACE}"
    ))
}

/// What is free where `folder` is; `None` if that cannot be found out.
fn free_mb(folder: &Path) -> Option<u64> {
    let table = output(Command::new("df").args(["--output=avail", "--block-size=1M"]).arg(folder), "coreutils").ok()?;
    String::from_utf8_lossy(&table).lines().nth(1)?.trim().parse().ok()
}
