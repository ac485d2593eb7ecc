//! The part of a worker that a kernel's own headers must compile: `targets/kvm-ko/kernel`, and some files of that kernel's `lib/`.
//!
//! The compiler is called as Kbuild would call it for a module, without what the worker has no use for: tracing, retpolines, stack
//! protectors.

use kernels::Error;
use kernels::command::output;
use kernels::error::at;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a worker calls the object.
pub const OBJECT: &str = "worker.o";

/// Where a kernel's headers and source are.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The headers of its configuration: `include/generated`, `arch/x86/include/generated`.
    pub build: &'a Path,
    /// Those of all configurations: `include`, `arch/x86/include`.
    pub common: &'a Path,
    /// `arch/x86/kvm`, `virt` and `lib`.
    pub source: &'a Path,
}

/// Our part.
const OURS: [(&str, &str); 12] = [
    ("worker.h", include_str!("../kernel/worker.h")),
    ("boot.c", include_str!("../kernel/boot.c")),
    ("data.c", include_str!("../kernel/data.c")),
    ("files.c", include_str!("../kernel/files.c")),
    ("inspect.c", include_str!("../kernel/inspect.c")),
    ("memory.c", include_str!("../kernel/memory.c")),
    ("notifier.c", include_str!("../kernel/notifier.c")),
    ("requests.c", include_str!("../kernel/requests.c")),
    ("svm.c", include_str!("../kernel/svm.c")),
    ("tasks.c", include_str!("../kernel/tasks.c")),
    ("text.c", include_str!("../kernel/text.c")),
    ("vmx.c", include_str!("../kernel/vmx.c")),
];

/// Data structures of the kernel's own that KVM uses.
const LIBRARY: [&str; 12] = [
    "bitmap.c",
    "bsearch.c",
    "find_bit.c",
    "hweight.c",
    "idr.c",
    "interval_tree.c",
    "kfifo.c",
    "list_debug.c",
    "radix-tree.c",
    "rbtree.c",
    "sort.c",
    "xarray.c",
];

/// Flags of the kernel's makefiles that make a difference to code or layout.
const FLAGS: &[&str] = &[
    "-D__KERNEL__",
    "-DMODULE",
    "-DCC_USING_FENTRY",
    "-DKBUILD_MODNAME=\"worker\"",
    "-D__KBUILD_MODNAME=kmod_worker",
    "-nostdinc",
    "-std=gnu11",
    "-O2",
    "-g1",
    "-m64",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-mno-sse",
    "-mno-mmx",
    "-mno-sse2",
    "-mno-3dnow",
    "-mno-avx",
    "-mno-80387",
    "-mno-fp-ret-in-387",
    "-mpreferred-stack-boundary=3",
    "-mskip-rax-setup",
    "-fcf-protection=branch",
    "-fno-jump-tables",
    "-fms-extensions",
    "-fshort-wchar",
    "-funsigned-char",
    "-fno-common",
    "-fno-PIE",
    "-fno-strict-aliasing",
    "-fno-strict-overflow",
    "-fno-stack-check",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-delete-null-pointer-checks",
    "-w",
];

/// What makes one compiled part another: our files. It names a folder of the cache, nothing else.
pub fn digest() -> u64 {
    let mut hasher = DefaultHasher::new();
    (OURS, LIBRARY, FLAGS).hash(&mut hasher);
    hasher.finish()
}

/// Compile into the folder `out`: the object is `out/worker.o`.
///
/// # Errors
/// If there is no compiler or linker, a file is missing in `sources`, or the compiler objects.
pub fn compile(sources: &Sources<'_>, out: &Path) -> Result<(), Error> {
    let work = out.join("c");
    fs::create_dir_all(&work).map_err(at(&work))?;
    let mut files = Vec::new();
    for (name, text) in OURS {
        let path = work.join(name);
        fs::write(&path, text).map_err(at(&path))?;
        files.extend(name.ends_with(".c").then_some(path));
    }
    files.extend(LIBRARY.map(|name| sources.source.join("lib").join(name)).into_iter().filter(|path| path.exists()));
    let objects: Vec<PathBuf> = files.iter().map(|file| object(file, &work)).collect();
    // Few enough that all may be compiled at once on a small machine, many enough that one after the other takes too long.
    for batch in files.iter().zip(&objects).collect::<Vec<_>>().chunks(4) {
        std::thread::scope(|scope| {
            let running: Vec<_> =
                batch.iter().map(|(file, object)| scope.spawn(|| compile_one(sources, file, object, &work))).collect();
            running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
    }
    output(Command::new("ld").arg("-r").arg("-o").arg(out.join(OBJECT)).args(&objects), "binutils")?;
    fs::remove_dir_all(&work).map_err(at(&work))
}

fn object(file: &Path, work: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    // One of ours may have the name of one of the library's.
    let whose = if file.starts_with(work) { "worker" } else { "lib" };
    work.join(format!("{whose}-{stem}.o"))
}

fn compile_one(sources: &Sources<'_>, file: &Path, object: &Path, work: &Path) -> Result<(), Error> {
    let Sources { build, common, source } = sources;
    let mut gcc = Command::new("gcc");
    gcc.args(FLAGS);
    let name = file.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
    gcc.arg(format!("-DKBUILD_BASENAME=\"{name}\""));
    for (base, folder) in [
        (common, "arch/x86/include"),
        (build, "arch/x86/include/generated"),
        (common, "include"),
        (build, "include"),
        (common, "arch/x86/include/uapi"),
        (build, "arch/x86/include/generated/uapi"),
        (common, "include/uapi"),
        (build, "include/generated/uapi"),
        (source, "arch/x86/kvm"),
        (source, "virt/kvm"),
        (source, "lib"),
    ] {
        gcc.arg("-I").arg(base.join(folder));
    }
    for header in ["compiler-version.h", "kconfig.h", "compiler_types.h"] {
        gcc.arg("-include").arg(common.join("include/linux").join(header));
    }
    gcc.arg("-I").arg(work).arg("-c").arg("-o").arg(object).arg(file);
    output(&mut gcc, "gcc").map(drop)
}
