//! `serve`: be the first process of a lab.

use super::arguments::alias_method;
use super::status::{Status, line};
use crate::AliasMethod;
use crate::inside::serve;
use std::io::Write;
use std::path::PathBuf;

/// Be the first process of a lab: load modules of the kernel and run programs that arrive over a serial port
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The port, such as /dev/ttyS1
    #[arg(value_name = "PORT")]
    port: PathBuf,
    /// How aliases come about
    #[arg(long, alias = "realisation", value_name = "NAME", value_parser = alias_method, default_value_t)]
    alias_method: AliasMethod,
    /// Modules in the order of loading, as FILE or FILE:PARAMETER,…
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
