//! Counts what was exercised on real KVM: each kind of op and each way to reclaim pages.

use crate::{AliasMethod, Trace};
use gpa_model::{Access, Exit, Op, OpKind, Reclaim, SlotChange};
use std::fmt;

/// How many things are counted besides the ways to reclaim pages.
const OTHERS: usize = 14;

fn others() -> [&'static str; OTHERS] {
    [
        OpKind::SlotCreate.name(),
        OpKind::SlotDelete.name(),
        OpKind::SlotMove.name(),
        OpKind::SlotFlags.name(),
        "slot-readonly",
        OpKind::DirtyGet.name(),
        OpKind::DirtyClear.name(),
        OpKind::Prefault.name(),
        OpKind::Attributes.name(),
        OpKind::ProtNone.name(),
        HELD_FAULT,
        IOEVENTFD,
        MMIO,
        ALIAS_MMIO,
    ]
}

/// A fault that was held while the host invalidated pages.
const HELD_FAULT: &str = "held-fault";
/// A write that signalled the ioeventfd of its name.
const IOEVENTFD: &str = "ioeventfd";
const MMIO: &str = "mmio";
/// An exit to user space through an alias, because its frame is a hole or read-only.
const ALIAS_MMIO: &str = "alias-mmio";

/// How often one thing was exercised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Its name.
    pub way: &'static str,
    /// Carried out.
    pub done: u64,
    /// Not carried out, because this KVM or this host does not offer it.
    pub unsupported: u64,
}

/// All counts, starting with the ways to reclaim pages.
#[derive(Clone, Debug)]
pub struct Exercised {
    counts: [Count; Reclaim::ALL.len() + OTHERS],
}

impl Default for Exercised {
    fn default() -> Self {
        let way = |at: usize| match Reclaim::ALL.get(at) {
            Some(reclaim) => reclaim.name(),
            None => others()[at - Reclaim::ALL.len()],
        };
        Self { counts: std::array::from_fn(|at| Count { way: way(at), done: 0, unsupported: 0 }) }
    }
}

impl Exercised {
    /// Counts the ops of `trace`.
    pub fn add(&mut self, trace: &Trace) {
        let stolen = trace.program.vm.stolen();
        let rings = trace.fingerprint.alias_method == AliasMethod::Ioeventfds;
        for (op, exit) in trace.program.ops.iter().zip(&trace.observations) {
            let Some(exit) = exit else { continue };
            match *op {
                Op::Unmap { by, .. } => self.count(by.unwrap_or(crate::host::reclaim::DEFAULT).name(), exit),
                Op::FaultBegin { .. } if *exit == Exit::Pending => self.count(HELD_FAULT, exit),
                Op::Access { access: Access::Write, .. } if matches!(exit, Exit::Mmio(_)) && rings => {
                    self.count(IOEVENTFD, exit);
                }
                Op::Access { gpa, .. } | Op::FaultBegin { gpa, .. } => {
                    if matches!(exit, Exit::Mmio(_)) {
                        let base = stolen.join(stolen.split(gpa).0, gpa_model::Alias::NONE) == gpa;
                        self.count(if base { MMIO } else { ALIAS_MMIO }, exit);
                    }
                }
                Op::Slot { change: SlotChange::Create { flags, .. } | SlotChange::Flags(flags), .. }
                    if flags.readonly =>
                {
                    self.count("slot-readonly", exit);
                    self.count(op.kind().name(), exit);
                }
                _ => self.count(op.kind().name(), exit),
            }
        }
    }

    fn count(&mut self, way: &str, exit: &Exit) {
        let Some(count) = self.counts.iter_mut().find(|count| count.way == way) else { return };
        match exit {
            Exit::Unsupported => count.unsupported += 1,
            _ => count.done += 1,
        }
    }

    /// All counts.
    pub fn counts(&self) -> &[Count] {
        &self.counts
    }
}

impl fmt::Display for Exercised {
    /// What was carried out, and what never was, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, never): (Vec<&Count>, Vec<&Count>) = self.counts.iter().partition(|count| count.done > 0);
        let done: Vec<String> = done.iter().map(|Count { way, done, .. }| format!("{way} {done}")).collect();
        write!(f, "{}", done.join(", "))?;
        let never: Vec<String> = never
            .iter()
            .map(|Count { way, unsupported, .. }| match unsupported {
                0 => (*way).to_owned(),
                times => format!("{way} (unsupported {times} times)"),
            })
            .collect();
        if never.is_empty() { Ok(()) } else { write!(f, "; never {}", never.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_counted_by_what_was_done_and_what_could_not_be() {
        let program = gpa_model::text::parse(
            "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
             slot 0 create gfn=0x1e0 pages=1 hva=0 readonly\nunmap hva=0 pages=1\nunmap hva=0 pages=1 by=guard\n\
             v0 write 0x1e0@1\nv0 read 0x1e4\nv0 read 0x1e0\n",
        )
        .expect("a program");
        let mmio = |op: usize| match program.ops[op] {
            Op::Access { gpa, .. } => Some(Exit::Mmio(gpa)),
            _ => None,
        };
        let done = Some(Exit::Done);
        let observations = vec![done, done, Some(Exit::Unsupported), mmio(3), mmio(4), None];
        let mut exercised = Exercised::default();
        exercised.add(&Trace { program, observations, ..Trace::default() });
        let said = exercised.to_string();
        let (done, never) = said.split_once("; never ").expect("two lists");
        assert_eq!(done, "dontneed 1, slot-create 1, slot-readonly 1, mmio 1, alias-mmio 1");
        assert!(
            never.contains("guard (unsupported 1 times)")
                && never.ends_with("prefault, attributes, prot-none, held-fault, ioeventfd"),
            "{never}"
        );
    }
}
