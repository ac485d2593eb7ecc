//! The command line: `probe` this host, `record` programs on it, `verify` recorded traces anywhere.

mod export;
mod files;
mod probe;
mod record;
mod run;
mod stress;
mod verify;

pub(crate) use stress::one as stress;

use crate::AliasMethod;
use crate::export::Language;
use clap::{Parser, Subcommand};
use gpa_model::limits::VCPUS;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// How the command ends. The number is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// Everything was done, and no oracle objects.
    Clean = 0,
    /// An oracle objects.
    Findings = 1,
    /// A file or an argument cannot be used.
    BadInput = 2,
    /// The environment lacks what was asked for: no `/dev/kvm`, or no permission to use it.
    Absent = 3,
}

/// Run programs of GPA aliasing on the real /dev/kvm, and judge what was recorded.
///
/// Exit status: 0 clean, 1 an oracle objects, 2 bad usage or input, 3 no usable /dev/kvm.
#[derive(Debug, Parser)]
#[command(name = "hw-runner", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which KVM this is and whether guest code really runs natively on it, with the counters that prove it
    Probe,
    /// Run programs on /dev/kvm and judge them; say where a trace was recorded otherwise, and how reliably a finding shows
    Run {
        /// Programs or traces, as text
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How often each is run; one that an oracle objects to is run at least 10 times
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        times: u32,
        /// How aliases come about; that of the trace, or slots, if none is given
        #[arg(long, alias = "realisation", value_name = "NAME", value_parser = alias_method)]
        alias_method: Option<AliasMethod>,
    },
    /// Run programs on /dev/kvm, write what is observed as traces, and judge it
    Record {
        /// Programs, as text
        #[arg(required = true, value_name = "FILE")]
        programs: Vec<PathBuf>,
        /// The folder for the traces, each named after its program
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// How often each is run; what is not always observed is marked
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        samples: u32,
        /// How aliases come about
        #[arg(long, alias = "realisation", value_name = "NAME", value_parser = alias_method, default_value_t)]
        alias_method: AliasMethod,
    },
    /// Print a program, or that of a trace, as source code that needs nothing of this project
    Export {
        /// A program or a trace, as text
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// One C file that runs against /dev/kvm and prints PASS or FAIL
        #[arg(long, group = "language")]
        c: bool,
        /// A Rust test
        #[arg(long, group = "language")]
        rust: bool,
        /// A skeleton in the style of the kernel's KVM selftests
        #[arg(long, group = "language")]
        selftest: bool,
        /// How aliases come about; that of the trace, or slots, if none is given
        #[arg(long, alias = "realisation", value_name = "NAME", value_parser = alias_method)]
        alias_method: Option<AliasMethod>,
    },
    /// Let vCPUs spin on all names of pages while the host takes them away, harvests the dirty log and changes memslots
    Stress {
        /// For how long
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
        /// How many vCPUs run at once
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=VCPUS as i64))]
        vcpus: u8,
        /// How aliases come about; as often as there are several, each that exists here if none is given
        #[arg(long = "alias-method", alias = "realisation", value_name = "NAME", value_parser = alias_method)]
        alias_methods: Vec<AliasMethod>,
    },
    /// Judge recorded traces by the reference model; needs no /dev/kvm
    Verify {
        /// Traces, as text
        #[arg(required = true, value_name = "TRACE")]
        traces: Vec<PathBuf>,
    },
    /// Be the first process of a lab: load modules of the kernel and run programs that arrive over a serial port
    Serve {
        /// The port, such as /dev/ttyS1
        #[arg(value_name = "PORT")]
        port: PathBuf,
        /// How aliases come about
        #[arg(long, alias = "realisation", value_name = "NAME", value_parser = alias_method, default_value_t)]
        alias_method: AliasMethod,
        /// Modules in the order of loading, as FILE or FILE:PARAMETER,…
        #[arg(value_name = "MODULE")]
        modules: Vec<String>,
    },
}

/// Do what `args` ask for. Results go to `out`, complaints to `err`.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Status {
    match &args.command {
        Command::Probe => probe::run(out, err),
        Command::Run { files, times, alias_method } => run::run(files, *times, *alias_method, out, err),
        Command::Record { programs, output, samples, alias_method } => {
            record::run(programs, output, *samples, *alias_method, out, err)
        }
        Command::Export { file, rust, selftest, alias_method, .. } => {
            let language = match (rust, selftest) {
                (true, _) => Language::Rust,
                (_, true) => Language::Selftest,
                _ => Language::C,
            };
            export::run(file, *alias_method, language, out, err)
        }
        Command::Stress { seconds, vcpus, alias_methods } => {
            stress::run(Duration::from_secs(*seconds), (*vcpus).into(), alias_methods, out, err)
        }
        Command::Verify { traces } => verify::run(traces, out, err),
        Command::Serve { port, alias_method, modules } => match crate::serve::run(port, *alias_method, modules) {
            Ok(()) => Status::Clean,
            Err(error) => {
                line(err, error);
                Status::Absent
            }
        },
    }
}

fn alias_method(name: &str) -> Result<AliasMethod, String> {
    let known = || AliasMethod::ALL.map(AliasMethod::name).join(", ");
    AliasMethod::named(name).ok_or_else(|| format!("expected one of {}", known()))
}

/// Write a line. A reader that went away wants no more of them, which is no reason to fail.
fn line(to: &mut dyn Write, text: impl std::fmt::Display) {
    let _ = writeln!(to, "{text}");
}
