//! `gpafuzz fuzz`: a campaign on each target in turn, and the summary of all.

use super::{CliError, EXIT_CODES, Exit, KernelArgs};
use crate::campaign::Setting;
use crate::campaign::course::{self, Outcome};
use crate::campaign::coverage::TargetCoverage;
use crate::campaign::finding::Finding;
use crate::campaign::input::InputError;
use crate::campaign::known::{self, Known};
use crate::campaign::store::Store;
use crate::campaign::summary::{Summary, Timing};
use crate::engine::Budget;
use crate::files;
use crate::target::{Opened, TargetError, registry};
use crate::terminal::interrupt;
use crate::terminal::{note, print};
use clap::Args;
use gpa_model::limits::VCPUS;
use gpa_model::text;
use gpa_oracles::{Coverage, Lockstep};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Run a campaign on each target, and store every program that an oracle objects to.
///
/// Campaigns with the same --runs and --seed are the same, byte for byte.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct FuzzArgs {
    /// A target (see `gpafuzz targets`); may be given several times [default: kvm-mmu, rfc-v3, kvm]
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Seconds in total, divided equally among the targets [default: 30]
    #[arg(long, value_name = "N", conflicts_with = "runs", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// Programs on each target, without a limit of time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: Option<u64>,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How many threads share the programs of each target; the result is the same with any number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub jobs: u8,
    /// vCPUs of every VM [default: drawn from 1 to 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=VCPUS as i64))]
    pub vcpus: Option<u8>,
    /// Where findings are written
    #[arg(long, value_name = "DIR", default_value = "gpafuzz-out")]
    pub out: PathBuf,
    /// Begin anew, even where a campaign with this seed in this folder could go on
    #[arg(long)]
    pub fresh: bool,
    /// A list of known findings of your own, in the format of known-findings.txt; a line may end in `until=YYYY-MM-DD`
    #[arg(long, value_name = "FILE")]
    pub known: Option<PathBuf>,
    /// Print every finding, known ones too, the counts of each oracle, and how guest accesses ran
    #[arg(long)]
    pub verbose: bool,
    /// Also write the summary as JSON
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Report for each target which ops reached which outcomes, the counts of each clause, and what was never judged
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
            fresh: false,
            known: None,
            verbose: false,
            summary: None,
            coverage: false,
        }
    }
}

/// The length of a campaign without `--seconds`.
const SECONDS: u32 = 30;

/// Carry out the command.
///
/// # Errors
/// A [`CliError`]; what was found before is on disk and has been reported.
pub fn run(args: &FuzzArgs) -> Result<Exit, CliError> {
    let user = args.known.as_deref().map(user_list).transpose()?.unwrap_or_default();
    user.expired.iter().for_each(|line| note(line));
    // The first line that matches counts: a user's come before ours.
    let known = [user.known, known::list()?].concat();
    let targets = open(&asked(args)?)?;
    let store = Store::open(&args.out)?;
    let summary_file = args.summary.as_deref().map(SummaryFile::create).transpose()?;
    let stop = interrupt::listen().map_err(CliError::Signal)?;
    let (seed, jobs, resume) = (args.seed, args.jobs, !args.fresh);
    let setting = Setting { seed, jobs, resume, vcpus: args.vcpus, store: &store, known: &known };
    let (mut summary, unsaved, failed) = campaigns(args, targets, setting, stop)?;
    summary.interrupted = interrupt::status().is_some();
    print(&format!("\n{}", summary.table(args.verbose)));
    for place in never_seen(&known, &summary) {
        print(&format!("{place}: not seen in this campaign\n"));
    }
    for finding in &unsaved {
        print(&format!(
            "\nthis finding could not be written:\n{}\n{}",
            text::print(&finding.minimized),
            finding.report
        ));
    }
    let written = summary_file.map_or(Ok(()), |file| file.write(&summary));
    // What was found is more than what went wrong.
    if summary.new_findings() > 0 {
        for error in failed.iter().chain(written.as_ref().err()) {
            note(&error.to_string());
        }
        return Ok(Exit::Findings);
    }
    written?;
    match (failed, interrupt::status()) {
        (Some(error), _) => Err(error),
        (None, Some(status)) => Ok(Exit::Interrupted(status)),
        (None, None) => Ok(Exit::Clean),
    }
}

/// The list in the file that a user names.
fn user_list(path: &Path) -> Result<known::UserList, CliError> {
    let text = files::read_text(path).map_err(InputError::from)?;
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date().to_string();
    Ok(known::parse_user(&path.display().to_string(), &text, &today)?)
}

/// The lines of a user's list that no finding matches.
fn never_seen<'a>(known: &'a [Known], summary: &'a Summary) -> impl Iterator<Item = &'a str> {
    let matches = |known: &Known| {
        let targets = &summary.untimed.targets;
        targets
            .iter()
            .any(|target| target.findings.iter().any(|found| known.matches_text(&target.target, &found.signature)))
    };
    known.iter().filter(move |known| !matches(known)).filter_map(|known| known.place.as_deref())
}

/// The names asked for. A kernel without a target is for the lab that is asked for most.
fn asked(args: &FuzzArgs) -> Result<Vec<String>, CliError> {
    let lab = [registry::LABS[0].name.to_owned()];
    let names = if args.target.is_empty() && args.kernel.is_given() { &lab[..] } else { &args.target };
    names.iter().map(|name| args.kernel.named(name)).collect()
}

/// The targets asked for. Of the default ones, one that this machine cannot have is left out, with a note.
fn open(asked: &[String]) -> Result<Vec<(String, Opened)>, CliError> {
    let all = registry::ALL.map(|entry| entry.name.to_owned());
    let mut names: Vec<String> = Vec::new();
    for name in if asked.is_empty() { &all[..] } else { asked }.iter().flat_map(|name| registry::expand(name)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut opened = Vec::new();
    for name in names {
        match registry::open(&name) {
            Ok(target) => opened.push((name, target)),
            Err(error @ TargetError::Absent { .. }) if asked.is_empty() => note(&error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(opened)
}

/// Run a campaign on each target. An error ends them, but not what is said about those before.
fn campaigns(
    args: &FuzzArgs,
    targets: Vec<(String, Opened)>,
    setting: Setting<'_>,
    stop: &AtomicBool,
) -> Result<(Summary, Vec<Finding>, Option<CliError>), CliError> {
    let (start, count) = (Instant::now(), targets.len().max(1) as u32);
    let share = Duration::from_secs(args.seconds.unwrap_or(SECONDS).into()) / count;
    let (mut summaries, mut timing, mut failed) = (Vec::new(), Timing::default(), None);
    let (mut coverage, mut unsaved) = (Vec::new(), Vec::new());
    for (name, opened) in targets {
        if stop.load(Ordering::Relaxed) || failed.is_some() {
            break;
        }
        let deadline = if args.runs.is_some() { None } else { Instant::now().checked_add(share) };
        let budget = Budget { runs: args.runs, deadline, stop };
        let about = opened.note.clone();
        let said = about.as_ref().map_or_else(String::new, |about| format!(", {about}"));
        note(&format!("fuzzing {name}{said}: seed {}, findings go to {}", args.seed, args.out.display()));
        let watch = args.coverage.then(Coverage::default);
        let judge = || watch.as_ref().map_or_else(Lockstep::default, Coverage::lockstep);
        let outcome = course::run(&name, opened, &|| registry::open(&name), &judge, budget, setting);
        let Outcome { mut summary, timing: target_timing, unsaved: kept, failed: error } = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                failed = Some(error.into());
                break;
            }
        };
        summary.note = about;
        coverage.extend(watch.map(|watch| TargetCoverage::new(&summary.target, &summary.checks, &watch)));
        summaries.push(summary);
        timing.targets.push(target_timing);
        unsaved.extend(kept);
        failed = error.map(CliError::from);
    }
    timing.seconds = start.elapsed().as_secs_f64();
    let mut summary = Summary::new(args.seed, &args.out, summaries, timing)?;
    summary.coverage = args.coverage.then_some(coverage);
    Ok((summary, unsaved, failed))
}

/// Where the summary goes; made before the campaign, so that a bad path is no late surprise.
struct SummaryFile(PathBuf, File);

impl SummaryFile {
    fn create(path: &Path) -> Result<Self, CliError> {
        let file = File::create(path).map_err(|error| CliError::Output(path.into(), error))?;
        Ok(Self(path.into(), file))
    }

    fn write(mut self, summary: &Summary) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(summary)? + "\n";
        self.1.write_all(text.as_bytes()).map_err(|error| CliError::Output(self.0, error))
    }
}
