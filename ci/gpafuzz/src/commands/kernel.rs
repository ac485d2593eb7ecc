//! The options that name a kernel for the lab.

use super::CliError;
use crate::target::registry;
use clap::Args;
use std::path::PathBuf;

/// Another kernel for a lab than the usual one, 6.12 of Debian's.
#[derive(Clone, Debug, Default, Args)]
pub struct KernelArgs {
    /// Another of Debian's kernels for the lab, such as 6.1; the same as TARGET@VERSION
    #[arg(long, value_name = "VERSION", conflicts_with = "kernel_dir")]
    kernel: Option<String>,
    /// A kernel of your own for the lab: the top of its build, a folder with bzImage and the modules of KVM, or one that its
    /// package is unpacked in
    #[arg(long, value_name = "DIR")]
    kernel_dir: Option<PathBuf>,
}

impl KernelArgs {
    /// Whether one was asked for.
    pub const fn is_given(&self) -> bool {
        self.kernel.is_some() || self.kernel_dir.is_some()
    }

    /// The name of target `name` with the kernel that was asked for, if one was.
    ///
    /// # Errors
    /// If it is no target of the lab, or there is no such folder.
    pub fn named(&self, name: &str) -> Result<String, CliError> {
        let kernel = match (&self.kernel, &self.kernel_dir) {
            (None, None) => return Ok(name.to_owned()),
            (Some(version), _) => version.clone(),
            // What is written down about a finding must mean the same elsewhere.
            (None, Some(folder)) => match std::path::absolute(folder) {
                Ok(folder) => folder.display().to_string(),
                Err(error) => return Err(CliError::KernelDir(folder.clone(), error)),
            },
        };
        Ok(registry::with_kernel(name, &kernel)?)
    }
}
