//! How a command ends, and the exit status that says so.

/// What the exit status means.
pub const EXIT_CODES: &str = "\
Exit status:
  0  clean: no finding, or known ones only
  1  findings: an oracle objects, whatever else happened
  2  usage or bad input, or output that cannot be written
  3  this machine lacks something that was asked for by name, or the target failed
130  ended by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP; the summary says what was done until then";

/// The result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// No finding, or known ones only.
    Clean,
    /// An oracle objects.
    Findings,
    /// A signal ended it, and this status says which.
    Interrupted(u8),
}
