//! `serve`: runs as the first process of a lab's machine.

use super::arguments::alias_method;
use super::output::line;
use super::status::Status;
use crate::AliasMethod;
use crate::inside::serve;
use std::io::Write;
use std::path::PathBuf;

/// Run as the first process of a lab's machine: load kernel modules and run programs that arrive over a serial
/// port
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The port, such as /dev/ttyS1
    #[arg(value_name = "PORT")]
    port: PathBuf,
    /// How aliases are made
    #[arg(long, alias = "realisation", value_name = "NAME", value_parser = alias_method, default_value_t)]
    alias_method: AliasMethod,
    /// Kernel modules in the order of loading, as FILE or FILE:PARAMETER,…
    #[arg(value_name = "MODULE")]
    modules: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, err: &mut dyn Write) -> Status {
    match serve::run(&arguments.port, arguments.alias_method, &arguments.modules) {
        Ok(()) => Status::Clean,
        Err(error) => {
            line(err, error);
            Status::Absent
        }
    }
}
