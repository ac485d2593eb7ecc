//! `gpafuzz coverage`: which functions of a target's code a campaign reaches, and which it does not.

use super::{CliError, EXIT_CODES, Exit, KernelArgs};
use crate::engine::{Budget, Engine};
use crate::target::registry;
use crate::target::{Target, TargetError};
use crate::terminal::interrupt;
use crate::terminal::progress::Ticker;
use crate::terminal::{note, print};
use clap::Args;
use gpa_oracles::Lockstep;
use linux_kvm::Function;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Run a campaign and print which functions of the target's code it reached.
///
/// For targets of the lab, whose code can be watched.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct CoverageArgs {
    /// The target
    #[arg(long, value_name = "NAME", default_value = "linux-kvm-npt")]
    pub target: String,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Seconds [default: 60]
    #[arg(long, value_name = "N", conflicts_with = "runs", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// Programs, without a limit of time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: Option<u64>,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Keep no program because of the code it reached, to see what that guidance is worth
    #[arg(long)]
    pub unguided: bool,
    /// Run a guided and an unguided campaign from the same seed, and compare what they reached
    #[arg(long, conflicts_with = "unguided")]
    pub compare: bool,
    /// Also write an HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// The length of a campaign without `--seconds`.
const SECONDS: u32 = 60;

/// The functions of one source file, by whether they were reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct File {
    reached: BTreeSet<String>,
    missed: BTreeSet<String>,
}

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] if the target cannot be used, or shows nothing of its code.
pub fn run(args: &CoverageArgs) -> Result<Exit, CliError> {
    let name = args.kernel.named(&args.target)?;
    let mut opened = registry::open(&name)?;
    let target = opened.target.as_mut();
    let functions = target.functions()?;
    if functions.is_empty() {
        return Err(CliError::Opaque(name));
    }
    let stop = interrupt::listen().map_err(CliError::Signal)?;
    let ways: &[bool] = if args.compare { &[true, false] } else { &[!args.unguided] };
    let mut reached = Vec::new();
    for &guided in ways {
        reached.push(campaign(target, args, guided, stop)?);
    }
    let title = format!("{name}, seed {}", args.seed);
    let files: Vec<_> = reached.iter().map(|reached| by_file(&functions, &reached.blocks)).collect();
    print(&match (&reached[..], &files[..]) {
        ([guided, unguided], [with, without]) => comparison(&title, [guided, unguided], [with, without]),
        _ => text(&format!("{title}, {}", reached[0]), &files[0]),
    });
    if let Some(path) = &args.html {
        let page = html(&format!("{title}, {}", reached[0]), &files[0]);
        std::fs::write(path, page).map_err(|error| CliError::Output(path.clone(), error))?;
        note(&format!("written: {}", path.display()));
    }
    Ok(Exit::Clean)
}

/// What a campaign reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reached {
    guided: bool,
    programs: u64,
    blocks: BTreeSet<u32>,
}

impl std::fmt::Display for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.guided { "guided" } else { "unguided" };
        write!(f, "{how}: {} programs, {} blocks", self.programs, self.blocks.len())
    }
}

fn campaign(
    target: &mut dyn Target,
    args: &CoverageArgs,
    guided: bool,
    stop: &AtomicBool,
) -> Result<Reached, TargetError> {
    let length = Duration::from_secs(args.seconds.unwrap_or(SECONDS).into());
    let deadline = if args.runs.is_some() { None } else { Instant::now().checked_add(length) };
    let budget = Budget { runs: args.runs, deadline, stop };
    let mut engine = Engine::with_guidance(target, Lockstep::default(), args.seed, budget, guided)?;
    let mut ticker = Ticker::default();
    while !engine.is_done() {
        engine.round()?;
        let state = (engine.executions(), engine.corpus_len(), engine.blocks().len());
        ticker.tick(|_| format!("{} programs, corpus {}, {} blocks", state.0, state.1, state.2));
    }
    ticker.end();
    Ok(Reached { guided, programs: engine.executions(), blocks: engine.blocks().clone() })
}

/// The functions by file. The parts that a compiler splits a function into count as one.
fn by_file(functions: &[Function], blocks: &BTreeSet<u32>) -> BTreeMap<String, File> {
    let mut files: BTreeMap<String, File> = BTreeMap::new();
    for Function { name, module, file, blocks: range } in functions {
        let file = files.entry(file.clone().unwrap_or_else(|| format!("{module} (file not known)"))).or_default();
        let reached = blocks.range(range.clone()).next().is_some();
        let set = if reached { &mut file.reached } else { &mut file.missed };
        set.insert(name.split('.').next().unwrap_or(name).to_owned());
    }
    for File { reached, missed } in files.values_mut() {
        missed.retain(|name| !reached.contains(name));
    }
    files
}

fn text(title: &str, files: &BTreeMap<String, File>) -> String {
    let mut out = format!("{title}\n\n{:<36} {:>8} {:>8}\n", "file", "reached", "of");
    for (name, File { reached, missed }) in files {
        let _ = writeln!(out, "{name:<36} {:>8} {:>8}", reached.len(), reached.len() + missed.len());
    }
    for (name, File { reached, missed }) in files.iter().filter(|(_, file)| !file.reached.is_empty()) {
        let list = |names: &BTreeSet<String>| names.iter().map(|name| format!("\n    {name}")).collect::<String>();
        let _ = writeln!(out, "\n{name}\n  reached:{}\n  not reached:{}", list(reached), list(missed));
    }
    out
}

/// Two campaigns side by side: functions reached in each file of which either reached any, and those that only one of them reached.
fn comparison(title: &str, reached: [&Reached; 2], files: [&BTreeMap<String, File>; 2]) -> String {
    let mut out = format!(
        "{title}\n  {}\n  {}\n\n{:<36} {:>8} {:>8} {:>8}\n",
        reached[0], reached[1], "file", "guided", "unguided", "of"
    );
    let (mut only_first, mut only_second) = (String::new(), String::new());
    for (name, first) in files[0] {
        let Some(second) = files[1].get(name) else { continue };
        if first.reached.is_empty() && second.reached.is_empty() {
            continue;
        }
        let all = first.reached.len() + first.missed.len();
        let _ = writeln!(out, "{name:<36} {:>8} {:>8} {all:>8}", first.reached.len(), second.reached.len());
        let alone = |one: &File, other: &File| -> String {
            one.reached.difference(&other.reached).map(|function| format!("\n    {name}: {function}")).collect()
        };
        only_first.push_str(&alone(first, second));
        only_second.push_str(&alone(second, first));
    }
    let blocks = |one: &Reached, other: &Reached| one.blocks.difference(&other.blocks).count();
    let _ = writeln!(out, "\nonly guided: {} blocks{only_first}", blocks(reached[0], reached[1]));
    let _ = writeln!(out, "only unguided: {} blocks{only_second}", blocks(reached[1], reached[0]));
    out
}

fn html(title: &str, files: &BTreeMap<String, File>) -> String {
    let title = escaped(title);
    let mut out = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>\nbody {{ font-family: sans-serif; margin: 2em }}\n\
         .no {{ color: #999 }}\nli {{ font-family: monospace }}\nul {{ columns: 3 }}\n</style>\n<h1>{title}</h1>\n"
    );
    for (name, File { reached, missed }) in files {
        let open = if reached.is_empty() { "" } else { " open" };
        let (count, all) = (reached.len(), reached.len() + missed.len());
        let _ = writeln!(out, "<details{open}><summary>{}: {count} of {all}</summary>\n<ul>", escaped(name));
        let functions = reached.iter().map(|name| (name, "yes")).chain(missed.iter().map(|name| (name, "no")));
        for (name, class) in functions {
            let _ = writeln!(out, "<li class=\"{class}\">{}</li>", escaped(name));
        }
        out.push_str("</ul></details>\n");
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_reached_if_any_part_of_it_is() {
        let function = |name: &str, file: Option<&str>, blocks| Function {
            name: name.into(),
            module: "kvm".into(),
            file: file.map(str::to_owned),
            blocks,
        };
        let functions = [
            function("rmap_add", Some("mmu.c"), 0..10),
            function("rmap_remove.part.0", Some("mmu.c"), 10..20),
            function("rmap_remove", Some("mmu.c"), 20..30),
            function("kvm_init", None, 30..40),
        ];
        let files = by_file(&functions, &BTreeSet::from([12]));
        insta::assert_snapshot!(text("a title", &files));
        let (guided, none) = (Reached { guided: true, programs: 9, blocks: BTreeSet::from([12]) }, Reached::default());
        let nothing = by_file(&functions, &none.blocks);
        insta::assert_snapshot!(comparison("a title", [&guided, &none], [&files, &nothing]));
        assert!(html("a < b", &files).contains("<h1>a &lt; b</h1>"));
        assert!(html("", &files).contains("<details open><summary>mmu.c: 1 of 2</summary>"));
    }
}
