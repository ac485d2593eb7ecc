//! The command line: what can be asked for, and how the answer becomes an exit status.

use crate::campaign::CampaignError;
use crate::commands;
use crate::finding::StoreError;
use crate::input::InputError;
use crate::known::KnownError;
use crate::target::TargetError;
use crate::targets;
use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};
use gpa_model::OpKind;
use gpa_model::exhaust::ScopeError;
use gpa_model::limits::{OPS, SCOPE_FRAMES, SCOPE_OPS, SCOPE_SLOTS, VCPUS};
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Fuzz, replay and minimise programs that alias guest physical addresses.
///
/// Without a command: `fuzz`, for 30 seconds, on every target.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the exit status means.
const EXIT_CODES: &str = "\
Exit status:
  0  clean: nothing found, or nothing that is not known
  1  findings: an oracle objects
  2  usage or bad input, or output that cannot be written
  3  this machine lacks something that was asked for by name, or the target failed
130  Ctrl-C before there were results, or twice";

#[derive(Debug, Subcommand)]
enum Command {
    Fuzz(FuzzArgs),
    Exhaust(ExhaustArgs),
    Replay(ReplayArgs),
    Minimize(MinimizeArgs),
    /// List the targets, and which laws each can be held to.
    Targets,
    Teeth(TeethArgs),
    Coverage(CoverageArgs),
    Bench(BenchArgs),
    Walk(WalkArgs),
}

/// Another kernel for a lab than the usual one, 6.12 of Debian's.
#[derive(Clone, Debug, Default, Args)]
pub struct KernelArgs {
    /// Another of Debian's kernels for the lab, such as 6.1; the same as TARGET@VERSION
    #[arg(long, value_name = "VERSION", conflicts_with = "kernel_dir")]
    kernel: Option<String>,
    /// A kernel of your own for the lab: the top of its build, a folder with bzImage and the modules of KVM, or one that its
    /// package is unpacked in
    #[arg(long, value_name = "DIR")]
    kernel_dir: Option<PathBuf>,
}

impl KernelArgs {
    /// Whether one was asked for.
    pub const fn is_given(&self) -> bool {
        self.kernel.is_some() || self.kernel_dir.is_some()
    }

    /// The name of target `name` with the kernel that was asked for, if one was.
    ///
    /// # Errors
    /// If it is no target of the lab, or there is no such folder.
    pub fn named(&self, name: &str) -> Result<String, CliError> {
        let kernel = match (&self.kernel, &self.kernel_dir) {
            (None, None) => return Ok(name.to_owned()),
            (Some(version), _) => version.clone(),
            // What is written down about a finding must mean the same elsewhere.
            (None, Some(folder)) => match std::path::absolute(folder) {
                Ok(folder) => folder.display().to_string(),
                Err(error) => return Err(CliError::KernelDir(folder.clone(), error)),
            },
        };
        Ok(targets::with_kernel(name, &kernel)?)
    }
}

/// Run programs on targets and keep what an oracle objects to.
///
/// With the same --runs and --seed two campaigns do the same, byte for byte.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct FuzzArgs {
    /// A target (see `gpafuzz targets`); may be given several times [default: kvm-mmu, rfc-v3, kvm]
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// How long, shared equally by the targets [default: 30]
    #[arg(long, value_name = "N", conflicts_with = "runs", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// How many programs on each target, however long it takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: Option<u64>,
    /// What everything random follows from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// So many campaigns at once on each target, each as long, from a seed of its own, from --seed on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub jobs: u8,
    /// vCPUs of every VM [default: 1 to 4, as it comes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=VCPUS as i64))]
    pub vcpus: Option<u8>,
    /// Where findings are written
    #[arg(long, value_name = "DIR", default_value = "gpafuzz-out")]
    pub out: PathBuf,
    /// Write the summary as JSON, too
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Count which op came to which outcome where, and say it of each target, with every clause and what was never judged
    #[arg(long)]
    pub coverage: bool,
}

impl Default for FuzzArgs {
    fn default() -> Self {
        let (target, out) = (Vec::new(), "gpafuzz-out".into());
        Self {
            target,
            kernel: KernelArgs::default(),
            seconds: None,
            runs: None,
            seed: 1,
            jobs: 1,
            vcpus: None,
            out,
            summary: None,
            coverage: false,
        }
    }
}

/// Run every program up to a number of ops over a small scope: nothing is left to chance.
///
/// Programs that differ only in which vCPU, memslot id, host page block, notifier window or stolen bit is called which are
/// run once. Shorter programs come first, so a finding is as short as it can be in the scope. Without --ops, the standard
/// scopes: edges, everything at once, races, PML, dirty rings, zaps that yield, memslots with which all that is mapped goes,
/// and async page faults, each within seconds.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct ExhaustArgs {
    /// Ops of the longest programs
    #[arg(long, value_name = "N", value_parser = at_most(SCOPE_OPS))]
    pub ops: Option<usize>,
    /// The target
    #[arg(long, value_name = "NAME", default_value = crate::targets::DEFAULT)]
    pub target: String,
    /// Guest frames; from three on, the last one lies beyond the edge of a leaf table
    #[arg(long, value_name = "N", default_value = "2", value_parser = at_most(SCOPE_FRAMES), requires = "ops")]
    pub frames: usize,
    /// Memslots, and blocks of host pages behind them; from two on, the last memslot is private
    #[arg(long, value_name = "N", default_value = "2", value_parser = at_most(SCOPE_SLOTS), requires = "ops")]
    pub slots: usize,
    /// Names of each frame: 1, 2 or 4
    #[arg(long, value_name = "N", default_value_t = 2, requires = "ops")]
    pub aliases: usize,
    /// vCPUs
    #[arg(long, value_name = "N", default_value_t = 1, requires = "ops")]
    pub vcpus: u8,
    /// Kinds of op, with commas between them [default: all]
    ///
    /// With `slot-end`, `fault-begin` and `unmap-begin`, what takes time also comes in halves.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = commands::exhaust::kind, requires = "ops")]
    pub kinds: Vec<OpKind>,
    /// Writes to logged slots are noticed by the processor (PML), not by write-protection
    #[arg(long, requires = "ops")]
    pub pml: bool,
    /// Each vCPU lists dirty pages in a ring of so many entries, a power of two; memslots have no bitmaps
    #[arg(long, value_name = "ENTRIES", requires = "ops")]
    pub dirty_ring: Option<u8>,
    /// Everything that is mapped goes with a memslot
    #[arg(long, requires = "ops")]
    pub slot_zap_all: bool,
    /// The host pages out memory, and the guest is told of pages that have to be read in
    #[arg(long, requires = "ops")]
    pub async_pf: bool,
    /// Pages from one frame to the next; with 256, two frames make a large leaf
    #[arg(long, value_name = "PAGES", requires = "ops")]
    pub stride: Option<u64>,
    /// Stop after so many programs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Run those that differ in names only, too
    #[arg(long)]
    pub unfolded: bool,
    /// Where findings are written
    #[arg(long, value_name = "DIR", default_value = "gpafuzz-out")]
    pub out: PathBuf,
}

/// A number from 1 to `most`.
fn at_most(most: usize) -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(1..=most as u64).map(|n| n as usize)
}

/// Run programs once and report each op: what is allowed, what the target did, and where an oracle objects.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct ReplayArgs {
    /// A program, a recorded trace, or the folder of a finding
    #[arg(required = true)]
    pub file: Vec<PathBuf>,
    /// The target [default: that of the finding, the trace itself, or else kvm-mmu]
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Add what the kernel in the lab has said since it was booted
    #[arg(long)]
    pub kernel_log: bool,
    /// Write what a real KVM answered as traces to this folder, each named after its program
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
}

/// Make a program smaller that still breaks the same law in the same way.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct MinimizeArgs {
    /// A program, or the folder of a finding
    pub file: PathBuf,
    /// The target [default: that of the finding, or else kvm-mmu]
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Where to write the program [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Hunt every mutant of a target and say which oracle catches it, how soon, and with how small a program.
///
/// A mutant has one decision made wrongly. With the same mutants, seeds and runs the answer is the same, byte for byte; but for
/// mutants of the real kernel, whose interrupts are part of what guides the hunt.
#[derive(Debug, Args)]
#[command(after_help = TEETH_EXIT_CODES)]
pub struct TeethArgs {
    /// Whose mutants: `kvm-mmu`, or `linux-kvm-stolen-fixed`, each of which is built and booted
    #[arg(long, value_name = "NAME", default_value = crate::targets::DEFAULT)]
    pub target: String,
    /// A mutant (see `gpafuzz targets`); may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    pub mutant: Vec<String>,
    /// How many programs each mutant is given at most, from each seed [default: 100000, or 20000 in the lab]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: Option<u64>,
    /// What everything random follows from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Hunt from this many seeds, from --seed on, and say how the executions spread
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// Print JSON instead of a table: `gpafuzz::teeth::Teeth`
    #[arg(long)]
    pub json: bool,
}

/// What the exit status of `teeth` means.
const TEETH_EXIT_CODES: &str = "\
Exit status:
  0  every mutant is killed by the oracle and clause meant for it, from every seed
  1  a mutant survives or only another oracle objects, or Ctrl-C ended the hunt
  2  usage, or no such mutant
  3  this machine lacks what the target needs";

/// Run a campaign and say which functions of the target's code it reached.
///
/// For targets whose code can be watched: those of the lab.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct CoverageArgs {
    /// The target
    #[arg(long, value_name = "NAME", default_value = "linux-kvm-npt")]
    pub target: String,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// How long [default: 60]
    #[arg(long, value_name = "N", conflicts_with = "runs", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// How many programs, however long it takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: Option<u64>,
    /// What everything random follows from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Do not keep a program because of the code it reached, to see what that guidance is worth
    #[arg(long)]
    pub unguided: bool,
    /// Run a guided and an unguided campaign from the same seed, and say what each reached
    #[arg(long, conflicts_with = "unguided")]
    pub compare: bool,
    /// Write an HTML page, too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Measure how fast a target is judged, and what the fuzzing engine costs beside it.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The target
    #[arg(long, value_name = "NAME", default_value = crate::targets::DEFAULT)]
    pub target: String,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// How many programs
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=500_000))]
    pub runs: u64,
    /// What everything random follows from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Only programs of which so many ops are judged, instead of those of a campaign
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=(OPS / 4) as i64))]
    pub ops: Option<u8>,
    /// Judge as many again, from the next seed, on another target at the same time, and so on
    #[arg(long, value_name = "N", default_value_t = 1, requires = "ops", value_parser = clap::value_parser!(u8).range(1..))]
    pub jobs: u8,
}

/// Make the tables of `kvm-mmu` the page tables of a guest on /dev/kvm, so that a real page walker and a real TLB judge them.
///
/// Each program is walked twice: with all invalidations, when no name may lead to an old page, and with one of each op left out,
/// which is the control. If no old page shows then either, the flushes were not judged: vacuous, with exit status 3.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct WalkArgs {
    /// How many programs
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// What everything random follows from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing found, or nothing that is not known.
    Clean,
    /// An oracle objects.
    Findings,
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub enum CliError {
    /// A file that cannot be used.
    Input(InputError),
    /// A target that cannot be used.
    Target(TargetError),
    /// Findings that cannot be written.
    Store(StoreError),
    /// Another file that cannot be written.
    Output(PathBuf, io::Error),
    /// A scope that cannot be explored.
    Scope(ScopeError),
    /// The list of known findings cannot be read.
    Known(KnownError),
    /// The summary cannot be put into JSON.
    Json(serde_json::Error),
    /// There is nothing to minimise: no oracle objects to the program on the target.
    NothingToMinimize(PathBuf, String),
    /// There is no mutant of this name.
    UnknownMutant {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// Nothing can be seen of what a target executes.
    Opaque(String),
    /// The folder of a kernel cannot be named.
    KernelDir(PathBuf, io::Error),
    /// Ctrl-C cannot be listened for.
    Signal(ctrlc::Error),
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => error.fmt(f),
            Self::Target(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Output(path, error) => write!(f, "{}: cannot be written: {error}", path.display()),
            Self::Scope(error) => error.fmt(f),
            Self::Known(error) => error.fmt(f),
            Self::Json(error) => error.fmt(f),
            Self::NothingToMinimize(path, target) => write!(
                f,
                "{}: expected a program to which an oracle objects on {target}, found none; name another with --target",
                path.display()
            ),
            Self::UnknownMutant { name, known } => {
                write!(f, "unknown mutant: expected one of {}, found `{name}`", known.join(", "))
            }
            Self::Opaque(target) => write!(
                f,
                "expected a target whose code can be watched, which those of the lab are (linux-kvm-…) where QEMU takes plugins, found {target}"
            ),
            Self::KernelDir(path, error) => {
                write!(f, "expected the folder of a kernel, found `{}`: {error}", path.display())
            }
            Self::Signal(error) => write!(f, "cannot listen for Ctrl-C: {error}"),
        }
    }
}

impl std::error::Error for CliError {}

impl CliError {
    const fn status(&self) -> u8 {
        match self {
            Self::Target(TargetError::Absent { .. } | TargetError::Failed(_)) | Self::Opaque(_) => 3,
            _ => 2,
        }
    }
}

macro_rules! from {
    ($($error:ty => $variant:ident),*) => { $(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )* };
}
from!(InputError => Input, TargetError => Target, StoreError => Store, KnownError => Known, ctrlc::Error => Signal);
from!(serde_json::Error => Json);

impl From<CampaignError> for CliError {
    fn from(error: CampaignError) -> Self {
        match error {
            CampaignError::Target(error) => Self::Target(error),
            CampaignError::Store(error) => Self::Store(error),
        }
    }
}

/// Do what the command line asks for.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command.unwrap_or_else(|| Command::Fuzz(FuzzArgs::default())) {
        Command::Fuzz(args) => commands::fuzz::run(&args),
        Command::Exhaust(args) => commands::exhaust::run(&args),
        Command::Replay(args) => commands::replay::run(&args),
        Command::Minimize(args) => commands::minimize::run(&args),
        Command::Targets => commands::targets::run(),
        Command::Teeth(args) => commands::teeth::run(&args),
        Command::Coverage(args) => commands::coverage::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Walk(args) => commands::walk::run(&args),
    };
    match done {
        Ok(Exit::Clean) => ExitCode::SUCCESS,
        Ok(Exit::Findings) => ExitCode::from(1),
        Err(error) => {
            note(&format!("gpafuzz: {error}"));
            ExitCode::from(error.status())
        }
    }
}

/// Write results. A reader that has closed its end, such as `head`, has seen enough; that is no error.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Write a line about what is going on, beside the results.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_told_apart_from_what_was_typed_wrong() {
        let absent = TargetError::Absent { name: "kvm", why: "expected /dev/kvm, found nothing".into() };
        let unknown = TargetError::Unknown { name: "kvn".into(), known: vec!["kvm".into()] };
        insta::assert_snapshot!(CliError::from(absent.clone()));
        assert_eq!((CliError::from(absent).status(), CliError::from(unknown).status()), (3, 2));
        assert_eq!(CliError::Opaque("kvm-mmu".into()).status(), 3);
    }
}
