//! Running a command in this process, and a trace for it.

use clap::Parser;
use hw_runner::cli::{Args, Status, run};
use std::path::Path;

/// Runs `args`, and returns the status and both outputs, without the folder's name.
pub(crate) fn hw_runner(dir: &Path, args: &[&str]) -> (Status, String) {
    let args = Args::try_parse_from(std::iter::once("hw-runner").chain(args.iter().copied())).expect("legal arguments");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = run(&args, &mut out, &mut err);
    let text = String::from_utf8([out, err].concat()).expect("text");
    (status, text.replace(&format!("{}/", dir.display()), ""))
}

/// A clean trace.
pub(crate) const TRACE: &str = "\
gpafuzz-trace 1
module kvm_test
paging shadow
maxphyaddr 48
capabilities readonly-mem
native yes
vm stolen=40 vcpus=1 base=0x1e0 flush=works
slot 0 create gfn=0x1e0 pages=2 hva=0x0 log-dirty
  => done
v0 write 0x1e1@1
  => memory 2
dirty-get 0
  => dirty 0x1e1
";
