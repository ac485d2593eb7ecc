//! Why a command could not be carried out, and the exit status that says so.

use crate::campaign::CampaignError;
use crate::campaign::input::InputError;
use crate::campaign::known::KnownError;
use crate::campaign::store::StoreError;
use crate::target::TargetError;
use gpa_model::exhaust::ScopeError;
use std::fmt;
use std::io;
use std::path::PathBuf;

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
    /// Signals cannot be listened for.
    Signal(io::Error),
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
            Self::Signal(error) => write!(f, "cannot listen for signals: {error}"),
        }
    }
}

impl std::error::Error for CliError {}

impl CliError {
    /// The exit status.
    pub const fn status(&self) -> u8 {
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
from!(InputError => Input, TargetError => Target, StoreError => Store, KnownError => Known);
from!(serde_json::Error => Json);

impl From<CampaignError> for CliError {
    fn from(error: CampaignError) -> Self {
        match error {
            CampaignError::Target(error) => Self::Target(error),
            CampaignError::Store(error) => Self::Store(error),
        }
    }
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
