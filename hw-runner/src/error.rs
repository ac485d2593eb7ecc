//! Why a program could not be carried out on real KVM: the environment, never the program.

use std::fmt;
use std::io;
use std::time::Duration;

/// A failure of the machine. What KVM answers to a program is never one.
#[derive(Debug)]
pub enum MachineError {
    /// `/dev/kvm` cannot be opened.
    Open(io::Error),
    /// This KVM lacks something the runner is built on.
    Missing(&'static str),
    /// KVM can make no VM now, because somebody else holds the processor's virtualization.
    Busy(io::Error),
    /// The host translates fewer address bits than the program steals.
    StolenBit {
        /// The stolen bit.
        bit: u8,
        /// The host's MAXPHYADDR.
        maxphyaddr: u8,
    },
    /// A call that always works has failed.
    Call {
        /// What was to be done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The guest stopped in a way that no access explains.
    Exit(String),
    /// The guest ran for so long without an exit.
    Hung(Duration),
}

impl MachineError {
    /// Whether it says something about this KVM rather than about the environment: a guest that hangs or dies.
    pub const fn is_finding(&self) -> bool {
        matches!(self, Self::Hung(_) | Self::Exit(_))
    }

    /// Whether the environment lacks something, as opposed to failing.
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Missing(_) | Self::Busy(_) | Self::StolenBit { .. })
    }
}

/// What a test needs of `/dev/kvm`, or nothing, said aloud, where there is none.
///
/// # Panics
/// If it is there and fails.
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

/// Turns an `io::Error` into a [`MachineError`] that says what was being done.
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
