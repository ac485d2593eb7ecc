//! `gpafuzz targets`: what there is to be tested, and which laws each can be held to.

use super::{CliError, Exit};
use crate::target::Target;
use crate::target::registry::{self, MUTANT};
use crate::terminal::print;
use gpa_model::Capabilities;
use gpa_model::OpKind;
use gpa_model::generate::Profile;
use gpa_oracles::{Clause, Lockstep};
use kvm_mmu::mutants;
use std::fmt::Write;

/// Carry out the command.
///
/// # Errors
/// None; the type is that of every command.
pub fn run() -> Result<Exit, CliError> {
    let mut out = String::new();
    for entry in registry::ALL {
        let _ = writeln!(out, "{}: {}", entry.name, entry.about);
        match registry::open(entry.name) {
            Ok(opened) => {
                if let Some(note) = &opened.note {
                    let _ = writeln!(out, "  {note}");
                }
                describe(&mut out, opened.target.as_ref());
            }
            Err(error) => {
                let _ = writeln!(out, "  {error}");
            }
        }
        out.push('\n');
    }
    for worker in registry::WORKERS {
        let _ = writeln!(out, "{}: {}", worker.name, worker.about);
    }
    out.push_str(
        "  each prepared when it is first asked for; NAME@VERSION is another of Debian's kernels, such as 7.3\n\n",
    );
    for lab in registry::LABS {
        let _ = writeln!(out, "{}: {}", lab.name, lab.about);
    }
    out.push_str(
        "  each booted in QEMU or Bochs when it is asked for; NAME@VERSION is another of Debian's kernels, such as 6.1\n\n",
    );
    #[cfg(feature = "third-party")]
    for adapter in third_party::ALL {
        let _ = writeln!(out, "{}: {}", adapter.name, adapter.about);
        describe(&mut out, registry::open(adapter.name)?.target.as_ref());
        out.push('\n');
    }
    let _ = writeln!(out, "{MUTANT}NAME: kvm-mmu with one decision made wrongly; the oracles must notice");
    for mutant in mutants::ALL {
        let _ = writeln!(out, "  {:<30} {}", mutant.name, mutant.breaks);
    }
    print(&out);
    Ok(Exit::Clean)
}

fn describe(out: &mut String, target: &dyn Target) {
    let capabilities = target.capabilities();
    let run = Lockstep::default();
    for (oracle, clause, _) in run.tallies() {
        let answer =
            if clause.can_be_checked(capabilities) { "can be checked".into() } else { lacking(clause, capabilities) };
        let _ = writeln!(out, "  {:<30} {answer}", format!("{oracle}/{}", clause.name));
    }
    if !capabilities.native {
        out.push_str("  no evidence that accesses go through the MMU, so a correct answer counts for nothing\n");
    }
    let missing = left_out(&target.profile());
    if !missing.is_empty() {
        let _ = writeln!(out, "  cannot carry out: {}", missing.join(", "));
    }
}

/// What the target would have to show.
fn lacking(clause: &Clause, capabilities: Capabilities) -> String {
    let needs = [
        (clause.needs_tables && !capabilities.tables, "its tables"),
        (clause.needs_flushes && !capabilities.flushes, "its flushes"),
        (clause.needs_keys && !capabilities.keys, "what it keeps by gfn"),
        (clause.needs_rmap && capabilities.keys && !capabilities.rmap, "an rmap"),
        (clause.needs_shadows && !capabilities.shadows, "shadows of the guest's tables"),
        (clause.needs_roots && capabilities.keys && !capabilities.roots, "its roots"),
        (clause.needs_pins && !capabilities.pins, "the pages that it holds"),
        (clause.needs_order && capabilities.flushes && !capabilities.order, "its tables at each flush"),
    ];
    let missing: Vec<&str> = needs.iter().filter(|(missing, _)| *missing).map(|(_, what)| *what).collect();
    format!("unsupported: the target does not show {}", missing.join(", "))
}

/// What programs for the target are made without.
fn left_out(profile: &Profile) -> Vec<&'static str> {
    let kinds = OpKind::ALL.into_iter().filter(|kind| !profile.kinds.contains(*kind)).map(OpKind::name);
    let rest = [(!profile.windows, "ops in two halves"), (!profile.internal_slots, "private slots")];
    kinds.chain(rest.into_iter().filter(|(missing, _)| *missing).map(|(_, what)| what)).collect()
}
