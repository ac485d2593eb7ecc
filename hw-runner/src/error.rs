//! Why a machine could not carry out a program.

use std::fmt;
use std::io;
use std::time::Duration;

/// A failure of the environment or of the guest, as opposed to an answer that KVM gives to a program.
#[derive(Debug)]
pub enum MachineError {
    /// `/dev/kvm` cannot be opened.
    Open(io::Error),
    /// This KVM lacks a feature that the runner needs.
    Missing(&'static str),
    /// KVM cannot create a VM now, because another hypervisor uses the processor's virtualization.
    Busy(io::Error),
    /// A stolen bit lies at or above the host's MAXPHYADDR.
    StolenBit {
        /// The stolen bit.
        bit: u8,
        /// The host's MAXPHYADDR.
        maxphyaddr: u8,
    },
    /// A call failed that should always succeed.
    Call {
        /// What the call was for.
        doing: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The guest exited for a reason that no access explains.
    Exit(String),
    /// The guest did not exit within this time.
    Hung(Duration),
}

impl MachineError {
    /// Whether the error says something about KVM: the guest hangs or dies. Every other error is about the
    /// environment.
    pub const fn is_finding(&self) -> bool {
        matches!(self, Self::Hung(_) | Self::Exit(_))
    }

    /// Whether the environment lacks something that was asked for, as opposed to failing.
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Missing(_) | Self::Busy(_) | Self::StolenBit { .. })
    }
}

/// Unwraps what a unit test needs of `/dev/kvm`. Prints why the test is skipped, and returns `None`, if it is absent. The harness
/// of unit tests cannot count that as ignored; the tests in `tests/live` are counted.
///
/// # Panics
/// If `/dev/kvm` is there and fails.
#[cfg(test)]
pub(crate) fn or_skip<T>(opened: Result<T, MachineError>) -> Option<T> {
    match opened {
        Ok(opened) => Some(opened),
        Err(error) if error.is_absence() => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("/dev/kvm is there, but: {error}"),
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(
                f,
                "expected /dev/kvm to open for reading and writing, found: {error}; load a kvm module or ask for access to it \
                 (group kvm), or replay recorded traces, which need no hardware"
            ),
            Self::Missing(what) => {
                write!(
                    f,
                    "expected a KVM with {what}, found one without; use a newer kernel, or replay recorded traces"
                )
            }
            Self::Busy(error) => write!(
                f,
                "expected KVM to make a VM, found it busy: {error}; end the hypervisor that holds the processor's virtualization, \
                 or replay recorded traces"
            ),
            Self::StolenBit { bit, maxphyaddr } => write!(
                f,
                "expected stolen bits below this host's MAXPHYADDR {maxphyaddr}, found {bit}; use a lower bit from 39 on"
            ),
            Self::Call { doing, source } => write!(f, "cannot {doing}: {source}"),
            Self::Exit(exit) => write!(f, "expected the guest to finish its accesses, found {exit}"),
            Self::Hung(limit) => {
                write!(f, "expected the guest to exit within {limit:?}, found it still running; it was stopped")
            }
        }
    }
}

impl std::error::Error for MachineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(source) | Self::Busy(source) | Self::Call { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Turns an error into a [`MachineError`] that says what the call was for.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, MachineError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, MachineError> {
        self.map_err(|source| MachineError::Call { doing, source })
    }
}

impl<T> Doing<T> for Result<T, kvm_ioctls::Error> {
    fn doing(self, doing: &'static str) -> Result<T, MachineError> {
        self.map_err(io::Error::from).doing(doing)
    }
}
