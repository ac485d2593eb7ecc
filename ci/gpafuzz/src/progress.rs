//! What a person sees while a campaign runs: one refreshed line a target, or a line every few seconds where the output is
//! no terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// How often the line is refreshed on a terminal.
const REFRESH: Duration = Duration::from_millis(200);
/// How often a line is written elsewhere.
const LINE: Duration = Duration::from_secs(5);

/// How far a campaign has come.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Programs run.
    pub executions: u64,
    /// Ops judged.
    pub ops: u64,
    /// Programs in the corpus.
    pub corpus: usize,
    /// Feature cells reached.
    pub cells: usize,
    /// Findings.
    pub findings: usize,
}

/// What is left to do.
#[derive(Clone, Copy, Debug)]
pub enum Left {
    /// Until this time.
    Until(Instant),
    /// Up to so many executions.
    Runs(u64),
}

/// The line of one target.
#[derive(Debug)]
pub struct Progress<'a> {
    target: &'a str,
    left: Left,
    start: Instant,
    shown: Instant,
    terminal: bool,
}

impl<'a> Progress<'a> {
    /// Begin the line of `target`.
    pub fn new(target: &'a str, left: Left) -> Self {
        let now = Instant::now();
        Self { target, left, start: now, shown: now, terminal: stderr().is_terminal() }
    }

    /// Show `status`, if it is time to. `status` is only asked for then.
    pub fn tick(&mut self, status: impl FnOnce() -> Status) {
        let now = Instant::now();
        if now.duration_since(self.shown) >= if self.terminal { REFRESH } else { LINE } {
            self.shown = now;
            self.show(&status(), now);
        }
    }

    /// Show the last `status` and end the line.
    pub fn finish(&self, status: &Status) {
        self.show(status, Instant::now());
        if self.terminal {
            eprintln!();
        }
    }

    fn show(&self, status: &Status, now: Instant) {
        let line = line(self.target, status, now.duration_since(self.start), self.left, now);
        // Who closed the other end has no use for it; a campaign does not end for that.
        let _ = if self.terminal { write!(stderr(), "\r\x1b[2K{line}") } else { writeln!(stderr(), "{line}") };
        let _ = stderr().flush();
    }
}

fn line(target: &str, status: &Status, elapsed: Duration, left: Left, now: Instant) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = |count: u64| scaled(count as f64 / seconds);
    let left = match left {
        Left::Until(end) => format!("{} s left", end.saturating_duration_since(now).as_secs_f64().round()),
        Left::Runs(runs) => format!("{} runs left", runs.saturating_sub(status.executions)),
    };
    format!(
        "{target}: {} exec/s, {} ops/s, corpus {}, cells {}, findings {}, {left}",
        rate(status.executions),
        rate(status.ops),
        status.corpus,
        status.cells,
        status.findings
    )
}

/// A rate that fits a line: 950, 12.3k, 1.2M.
fn scaled(rate: f64) -> String {
    match rate {
        rate if rate < 1e3 => format!("{rate:.0}"),
        rate if rate < 1e6 => format!("{:.1}k", rate / 1e3),
        rate => format!("{:.2}M", rate / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_fast_how_far_and_how_long() {
        let now = Instant::now();
        let status = Status { executions: 24_600, ops: 2_460_000, corpus: 7, cells: 1234, findings: 1 };
        let show = |left| line("kvm-mmu", &status, Duration::from_secs(2), left, now);
        insta::assert_snapshot!(show(Left::Until(now + Duration::from_secs(8))));
        insta::assert_snapshot!(show(Left::Runs(30_000)));
    }
}
