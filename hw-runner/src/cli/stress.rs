//! `stress`: vCPUs run at once while the host changes pages and memslots.

use super::arguments::alias_method;
use super::output::line;
use super::status::Status;
use crate::{AliasMethod, Machine};
use gpa_model::limits::VCPUS;
use std::io::Write;
use std::time::Duration;

/// Run vCPUs that read and write all names of pages while the host reclaims pages, harvests the dirty log and
/// changes memslots
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How long to stress each alias method
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How many vCPUs run at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=VCPUS as i64))]
    vcpus: u8,
    /// How aliases are made; may be given several times [default: each alias method that works here]
    #[arg(long = "alias-method", alias = "realisation", value_name = "NAME", value_parser = alias_method)]
    alias_methods: Vec<AliasMethod>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write, err: &mut dyn Write) -> Status {
    let Arguments { seconds, vcpus, alias_methods } = arguments;
    let (duration, vcpus) = (Duration::from_secs(*seconds), usize::from(*vcpus));
    let asked = if alias_methods.is_empty() { &AliasMethod::ALL[..] } else { alias_methods };
    let mut status = None;
    for &alias_method in asked {
        let stressed = Machine::open_with(alias_method).and_then(|mut machine| machine.stress_summary(vcpus, duration));
        match stressed {
            Ok(summary) => {
                line(out, summary.text.trim_end());
                status = status.max(Some(if summary.has_findings { Status::Findings } else { Status::Clean }));
            }
            Err(error) => {
                line(err, format_args!("aliases by {alias_method}: {error}"));
                // An alias method that was not asked for by name may be absent.
                if !error.is_absence() || !alias_methods.is_empty() {
                    status = status.max(Some(Status::of(&error)));
                }
            }
        }
    }
    status.unwrap_or(Status::Absent)
}
