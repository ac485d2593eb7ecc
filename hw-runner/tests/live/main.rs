//! Tests that need `/dev/kvm`, or other things that a host may lack. A test whose need is not met counts as ignored, and
//! says why.

#[path = "../command/mod.rs"]
mod command;
mod commands;
mod conditions;
mod exported_c;
mod programs;

use hw_runner::MachineError;
use libtest_mimic::{Arguments, Completion, Trial};

/// Why a test did not run.
struct Skipped(String);

/// A test passes, or does not run; it fails by a panic.
type Outcome = Result<(), Skipped>;

/// Ends a test that cannot run.
fn skip<T>(why: impl Into<String>) -> Result<T, Skipped> {
    Err(Skipped(why.into()))
}

/// What a test needs of `/dev/kvm`. Skips the test if it is absent.
///
/// # Panics
/// If `/dev/kvm` is there and fails.
fn if_present<T>(opened: Result<T, MachineError>) -> Result<T, Skipped> {
    match opened {
        Err(error) if error.is_absence() => skip(error.to_string()),
        opened => Ok(opened.unwrap_or_else(|error| panic!("/dev/kvm is there, but: {error}"))),
    }
}

fn trial(name: &str, test: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    Trial::ignorable_test(name, || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(Skipped(why)) => Ok(Completion::ignored_with(why)),
    })
}

/// A trial for each function, under its name.
macro_rules! trials {
    ($($test:ident),* $(,)?) => { vec![$(crate::trial(stringify!($test), $test)),*] };
}
use trials;

fn main() {
    let trials = [commands::trials(), conditions::trials(), exported_c::trials(), programs::trials()];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit();
}
