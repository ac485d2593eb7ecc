//! Running the stages: one after the other, all of them, each with its time and its log.

use crate::tree::Tree;
use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// Lines of a failed stage's log that are shown.
const LINES: usize = 40;

/// One check of the gate.
pub(crate) struct Stage {
    /// What `--only` calls it.
    pub(crate) name: &'static str,
    /// What it makes sure of.
    pub(crate) what: &'static str,
    /// The check.
    pub(crate) check: fn(&Gate) -> Verdict,
}

/// How a stage ended: with a remark, or short of passing.
pub(crate) type Verdict = Result<String, Halt>;

/// Why a stage did not pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// Something is wrong: what was expected, what was found, where, what to do.
    Failed(String),
    /// It cannot be checked on this machine, for this reason.
    Skipped(String),
}

impl Halt {
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }
}

/// What stages need to know: where the sources are, where to build, and which stage is running.
pub(crate) struct Gate {
    root: PathBuf,
    target: PathBuf,
    stage: RefCell<&'static str>,
    tests_ran: RefCell<bool>,
}

impl Gate {
    pub(crate) fn new() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned();
        // This binary is <target directory>/<profile>/xtask, whatever chose the target directory.
        let exe = std::env::current_exe().map_err(|e| format!("cannot find this binary: {e}"))?;
        let target = exe.ancestors().nth(2).ok_or("this binary is in no target directory")?.to_owned();
        let gate = Self { root, target, stage: RefCell::new("setup"), tests_ran: RefCell::new(false) };
        let logs = gate.logs();
        fs::create_dir_all(&logs).map_err(|e| format!("cannot create {}: {e}", logs.display()))?;
        Ok(gate)
    }

    /// Run the stages named in `only`, or all if it is empty. With `no_skips` a skipped stage fails the gate, too.
    pub(crate) fn run(&self, stages: &[Stage], only: &[&str], no_skips: bool) -> ExitCode {
        let chosen: Vec<&Stage> = stages.iter().filter(|s| only.is_empty() || only.contains(&s.name)).collect();
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        for stage in chosen {
            *self.stage.borrow_mut() = stage.name;
            let _ = fs::remove_file(self.log());
            print!("{:<12} ", stage.name);
            let _ = std::io::stdout().flush();
            let start = Instant::now();
            let verdict = (stage.check)(self);
            let seconds = start.elapsed().as_secs_f64();
            match verdict {
                Ok(remark) => {
                    passed += 1;
                    println!("{}", format!("ok       {seconds:7.1} s  {remark}").trim_end());
                }
                Err(Halt::Skipped(why)) => {
                    skipped += 1;
                    println!("SKIPPED: {why}  ({seconds:.1} s)");
                }
                Err(Halt::Failed(why)) => {
                    failed += 1;
                    println!("FAILED   {seconds:7.1} s  {}", stage.what);
                    println!("{}", indent(&why));
                }
            }
        }
        println!("{}", tally(passed, failed, skipped));
        let good = failed == 0 && !(no_skips && skipped > 0);
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// The top of the sources.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where logs and scratch files of stages go.
    pub(crate) fn logs(&self) -> PathBuf {
        self.target.join("gate")
    }

    fn log(&self) -> PathBuf {
        self.logs().join(format!("{}.log", self.stage.borrow()))
    }

    /// The files of the repository.
    pub(crate) fn tree(&self) -> Result<Tree, Halt> {
        Tree::read(&self.root).map_err(Halt::Failed)
    }

    /// A fresh, empty directory of this stage.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf, Halt> {
        let dir = self.logs().join(format!("{}-{name}", self.stage.borrow()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(|e| Halt::failed(format!("cannot create {}: {e}", dir.display())))?;
        Ok(dir)
    }

    /// Where the tests record which snapshots they looked at.
    pub(crate) fn snapshot_record(&self) -> PathBuf {
        self.logs().join("snapshots-referenced.txt")
    }

    /// Remember that the whole test suite has run, and so recorded its snapshots.
    pub(crate) fn note_tests_ran(&self) {
        *self.tests_ran.borrow_mut() = true;
    }

    /// Whether it has.
    pub(crate) fn tests_ran(&self) -> bool {
        *self.tests_ran.borrow()
    }

    /// A `cargo` command at the top of the sources.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        self.tool(&cargo.to_string_lossy(), args)
    }

    /// Another command there.
    pub(crate) fn tool(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.root).stdin(Stdio::null());
        // A snapshot that differs is a failure here, whatever the shell asks insta to do; the message says where.
        command.env("INSTA_UPDATE", "no").env_remove("INSTA_FORCE_PASS").env("RUST_BACKTRACE", "0");
        command
    }

    /// A release binary, built as `cargo run --release` builds it: what is judged is what a person runs.
    pub(crate) fn binary(&self, name: &str) -> Result<Command, Halt> {
        self.expect(
            0,
            &mut self.cargo(&["build", "--release", "--package", "gpafuzz", "--package", "hw-runner", "--bins"]),
        )?;
        let path = self.target.join("release").join(name);
        if !path.exists() {
            return Err(Halt::failed(format!(
                "the workspace builds no binary `{name}`: {} is missing",
                path.display()
            )));
        }
        let mut command = Command::new(path);
        command.current_dir(&self.root).stdin(Stdio::null());
        Ok(command)
    }

    /// Run a command, its output into the stage's log, and return its exit status.
    pub(crate) fn status(&self, command: &mut Command) -> Result<i32, Halt> {
        let cannot = |what: &str, e: std::io::Error| Halt::failed(format!("cannot {what}: {e}"));
        let mut log = self.append().map_err(|e| cannot("write the log", e))?;
        let line = show(command);
        writeln!(log, "$ {line}").map_err(|e| cannot("write the log", e))?;
        let clone = log.try_clone().map_err(|e| cannot("write the log", e))?;
        let status = command.stdout(clone).stderr(log).status().map_err(|e| cannot(&format!("start `{line}`"), e))?;
        // A signal has no code; no command of ours expects one.
        Ok(status.code().unwrap_or(-1))
    }

    /// Run a command and require this exit status.
    pub(crate) fn expect(&self, wanted: i32, command: &mut Command) -> Result<(), Halt> {
        let found = self.status(command)?;
        if found == wanted {
            return Ok(());
        }
        let line = show(command);
        let log = fs::read(self.log()).unwrap_or_default();
        Err(Halt::failed(format!(
            "`{line}`: expected exit status {wanted}, found {found}; from its log:\n{}\nthe whole log: {}",
            excerpt(&String::from_utf8_lossy(&log)),
            self.log().display()
        )))
    }

    fn append(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.log())
    }
}

/// The lines of a log that say what went wrong: from the first that announces it, or the last ones.
fn excerpt(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let announces = |line: &&str| line.starts_with("failures:") || line.starts_with("error");
    let start = lines.iter().position(announces).unwrap_or(lines.len().saturating_sub(LINES));
    let end = lines.len().min(start + LINES);
    // A test suite goes on after the first failure; its last lines say which targets failed.
    let last = lines.len().saturating_sub(3).max(end);
    let gap: &[&str] = if last > end { &["…"] } else { &[] };
    [&lines[start..end], gap, &lines[last..]].concat().join("\n")
}

/// The line that closes the gate.
fn tally(passed: usize, failed: usize, skipped: usize) -> String {
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_fails_stops_nothing_and_fails_the_gate() {
        let gate = Gate::new().unwrap();
        let stages = [
            Stage { name: "t-fails", what: "", check: |_| Err(Halt::failed("as it should")) },
            Stage {
                name: "t-runs",
                what: "",
                check: |gate| {
                    gate.note_tests_ran();
                    Ok(String::new())
                },
            },
        ];
        assert_eq!(gate.run(&stages, &[], false), ExitCode::FAILURE);
        assert!(gate.tests_ran(), "the stage after the failed one did not run");
        assert_eq!(gate.run(&stages, &["t-runs"], true), ExitCode::SUCCESS);
    }

    #[test]
    fn a_skipped_stage_fails_the_gate_only_if_asked_to() {
        let stages = [Stage { name: "t-skips", what: "", check: |_| Err(Halt::Skipped("nothing to see".into())) }];
        let run = |no_skips| Gate::new().unwrap().run(&stages, &[], no_skips);
        assert_eq!((run(false), run(true)), (ExitCode::SUCCESS, ExitCode::FAILURE));
    }

    #[test]
    fn the_wrong_exit_status_fails_with_what_the_log_says() {
        let gate = Gate::new().unwrap();
        *gate.stage.borrow_mut() = "t-status";
        let halt = gate.expect(0, &mut gate.cargo(&["no-such-command-at-all"])).unwrap_err();
        let Halt::Failed(why) = halt else { panic!("{halt:?}") };
        assert!(why.contains("expected exit status 0, found 101") && why.contains("no-such-command-at-all"), "{why}");
    }

    #[test]
    fn of_a_long_log_the_first_failure_and_the_end_are_shown() {
        let noise = "fine\n".repeat(100);
        let shown = excerpt(&format!("{noise}failures:\nthe reason\n{noise}error: 1 target failed"));
        assert!(
            shown.starts_with("failures:\nthe reason\nfine")
                && shown.ends_with("…\nfine\nfine\nerror: 1 target failed")
        );
        assert!(shown.lines().count() <= LINES + 4, "{shown}");
        assert_eq!(excerpt(&noise).lines().count(), LINES);
        assert_eq!(excerpt("error: a\nb"), "error: a\nb");
    }

    #[test]
    fn the_closing_line_has_the_agreed_form() {
        assert_eq!(tally(9, 1, 2), "9 passed, 1 failed, 2 skipped");
    }
}
