//! Which target a program that was read is run on.

use super::{CliError, KernelArgs};
use crate::campaign::input::Input;
use crate::target::{Opened, registry};

/// The target called `name`, with the kernel asked for; without a name that of the finding, the trace itself, or else the
/// default one.
///
/// # Errors
/// If it cannot be opened.
pub(super) fn target_for(input: &Input, name: Option<&str>, kernel: &KernelArgs) -> Result<(String, Opened), CliError> {
    if let (None, Some(trace)) = (name, &input.trace) {
        let (name, opened) = registry::of_trace(trace.clone());
        return Ok((name.to_owned(), opened));
    }
    let name = kernel.named(name.or(input.target.as_deref()).unwrap_or(registry::DEFAULT))?;
    let opened = registry::open(&name)?;
    Ok((name, opened))
}
