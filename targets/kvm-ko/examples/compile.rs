//! Compiles the worker's part for a kernel: headers of the configuration, headers of all, source, the folder to make.

use kvm_ko::compile::{Sources, compile};
use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [build, common, source, out] = &*arguments else { panic!("expected four folders") };
    let sources = Sources { build: Path::new(build), common: Path::new(common), source: Path::new(source) };
    if let Err(error) = compile(&sources, Path::new(out)) {
        panic!("{error}");
    }
}
