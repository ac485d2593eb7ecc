//! What a worker needs before it can start: the modules of a kernel, the C part compiled with that kernel's headers, and the worker
//! itself.

use crate::alias_method::AliasMethod;
use crate::compile;
use crate::process::Launch;
use kernels::error::at;
use kernels::{Cache, Choice, Error, Kernel, Progress};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whose processor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// SVM and nested page tables.
    Amd,
    /// VMX and EPT.
    Intel,
}

/// Which of KVM's MMUs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mmu {
    /// The processor walks two sets of tables; KVM keeps its own by the TDP MMU.
    Tdp,
    /// The same, by the older MMU.
    Rmap,
    /// KVM shadows the guest's tables.
    Shadow,
}

/// How a kernel's KVM is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which kernel.
    pub kernel: Choice,
    /// Whose processor.
    pub vendor: Vendor,
    /// Which MMU.
    pub mmu: Mmu,
    /// How aliases come about.
    pub alias_method: AliasMethod,
    /// Static variables of modules: `("kvm", "eager_page_split", 0)`.
    pub parameters: Vec<(&'static str, &'static str, u64)>,
    /// A function of the kernel's that does nothing: a planted fault.
    pub without: Option<String>,
}

/// The name of the worker's program.
const WORKER: &str = "kvm-ko-worker";

/// Prepare what `setup` needs; how to start a worker with it.
///
/// # Errors
/// [`Error::Absent`] if this machine lacks something, with what to do.
pub fn launch(setup: &Setup, progress: Progress<'_>) -> Result<Launch, Error> {
    let (prepared, release) = modules(setup, progress)?;
    let program = worker(progress)?;
    let word = |word: &str| OsString::from(word);
    let vendor = match setup.vendor {
        Vendor::Amd => "amd",
        Vendor::Intel => "intel",
    };
    let mmu = match setup.mmu {
        Mmu::Tdp => "tdp",
        Mmu::Rmap => "rmap",
        Mmu::Shadow => "shadow",
    };
    let mut arguments =
        vec![prepared.into_os_string(), release.into(), word(vendor), word(mmu), word(setup.alias_method.name())];
    arguments.extend(setup.parameters.iter().map(|(module, name, value)| format!("{module}.{name}={value}").into()));
    arguments.extend(setup.without.iter().map(|function| format!("without-{function}").into()));
    Ok(Launch { program, arguments })
}

/// The folder that a worker loads: a kernel's modules, and the part compiled with its headers. With it what the kernel calls itself.
fn modules(setup: &Setup, progress: Progress<'_>) -> Result<(PathBuf, String), Error> {
    let cache = Cache::of_user()?;
    let kernel = Kernel::find(&cache, &setup.kernel, progress)?;
    let stock = kernel.kvm_modules(&cache, progress)?.folder;
    // Another build of the same release has other modules, and a folder of another name.
    let digest = stock.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("kvm-ko-{digest}-{:016x}", compile::digest());
    let folder = cache.folder(&name, progress, |folder, progress| {
        let headers = kernels::headers(&cache, &kernel, progress)?;
        let source = kernels::source(&cache, &kernel, progress)?;
        progress(&format!("kvm-ko: compiling what needs the headers of {} (once)", kernel.release));
        let sources = compile::Sources { build: &headers.build, common: &headers.common, source: &source };
        compile::compile(&sources, folder)?;
        for file in fs::read_dir(&stock).map_err(at(&stock))? {
            let file = file.map_err(at(&stock))?;
            if file.path().extension().is_some_and(|end| end == "ko") {
                let to = folder.join(file.file_name());
                fs::copy(file.path(), &to).map_err(at(&to))?;
            }
        }
        Ok(())
    })?;
    Ok((folder, kernel.release))
}

/// The worker: beside this program, or built from the sources that this program was built from. Cargo says whether it is up to date.
fn worker(progress: Progress<'_>) -> Result<PathBuf, Error> {
    let this =
        std::env::current_exe().map_err(|error| Error::Failed(format!("this program cannot be found: {error}")))?;
    let beside = this.with_file_name(WORKER);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    // Where cargo puts what it builds, this program lies in the folder of a profile.
    let target = this.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let (Some(target), true) = (target, root.join("Cargo.toml").is_file()) else {
        return if beside.is_file() {
            Ok(beside)
        } else {
            let why = format!(
                "expected {WORKER} beside {}, found none; install it there, or run from a checkout",
                this.display()
            );
            Err(Error::Absent(why))
        };
    };
    let built = target.join("release").join(WORKER);
    if !built.is_file() {
        progress("kvm-ko: building the worker (once)");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--quiet", "--package", WORKER, "--bin", WORKER]);
    command.arg("--target-dir").arg(target).current_dir(root);
    kernels::command::output(&mut command, "cargo")?;
    Ok(built)
}
