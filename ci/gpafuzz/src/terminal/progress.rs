//! Progress of a campaign: one refreshed line a target on a terminal, a line every few seconds elsewhere.

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

/// A line that is written again and again, but not too often.
#[derive(Debug)]
pub struct Ticker {
    start: Instant,
    shown: Instant,
    terminal: bool,
}

impl Default for Ticker {
    fn default() -> Self {
        let now = Instant::now();
        Self { start: now, shown: now, terminal: stderr().is_terminal() }
    }
}

impl Ticker {
    /// Write the line if it is time to. `line` is called only then, with the seconds since the start.
    pub fn tick(&mut self, line: impl FnOnce(f64) -> String) {
        let now = Instant::now();
        if now.duration_since(self.shown) >= if self.terminal { REFRESH } else { LINE } {
            self.shown = now;
            self.write(&line(now.duration_since(self.start).as_secs_f64()));
        }
    }

    /// Write the line now.
    pub fn write(&self, line: &str) {
        // Ignore EPIPE: a closed stderr must not end the campaign.
        let _ = if self.terminal { write!(stderr(), "\r\x1b[2K{line}") } else { writeln!(stderr(), "{line}") };
        let _ = stderr().flush();
    }

    /// End the line.
    pub fn end(&self) {
        if self.terminal {
            let _ = writeln!(stderr());
        }
    }
}

/// The line of one target.
#[derive(Debug)]
pub struct Progress<'a> {
    target: &'a str,
    left: Left,
    ticker: Ticker,
}

impl<'a> Progress<'a> {
    /// Begin the line of `target`.
    pub fn new(target: &'a str, left: Left) -> Self {
        Self { target, left, ticker: Ticker::default() }
    }

    /// Show `status` if it is time to. `status` is called only then.
    pub fn tick(&mut self, status: impl FnOnce() -> Status) {
        let (target, left) = (self.target, self.left);
        self.ticker.tick(|seconds| line(target, &status(), seconds, left, Instant::now()));
    }

    /// Show the last `status` and end the line.
    pub fn finish(&self, status: &Status) {
        let now = Instant::now();
        let seconds = now.duration_since(self.ticker.start).as_secs_f64();
        self.ticker.write(&line(self.target, status, seconds, self.left, now));
        self.ticker.end();
    }
}

fn line(target: &str, status: &Status, seconds: f64, left: Left, now: Instant) -> String {
    let seconds = seconds.max(0.001);
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
pub(crate) fn scaled(rate: f64) -> String {
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
        let show = |left| line("kvm-mmu", &status, 2.0, left, now);
        insta::assert_snapshot!(show(Left::Until(now + Duration::from_secs(8))));
        insta::assert_snapshot!(show(Left::Runs(30_000)));
    }
}
