//! What the worst-case TLB holds of guest virtual addresses: each page that a program of the guest reached through shadowed tables.
//!
//! The shadow tables are not looked at, so only accesses say what is in such a TLB. A translation is made of the guest's tables
//! and of the second stage: it is dropped by a flush of everything, and by one of the guest physical page that it leads to.

use crate::observe::Step;
use gpa_model::{Access, Entitled, Exit, Flush, FrameSet, Gpa, Gva, Op, Pfn, Rights, Span, VcpuSet};

/// A translation of a guest virtual address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Virtual {
    pub(super) vcpu: u8,
    pub(super) root: Gpa,
    pub(super) gva: Gva,
    /// The frames that lead to the page: one, if no two memslots share it.
    pub(super) frames: FrameSet,
    pub(super) pfn: Pfn,
    /// It was written through.
    pub(super) writable: bool,
}

/// The translations of guest virtual addresses on all vCPUs.
#[derive(Debug, Default)]
pub(super) struct VirtualTlb(Vec<Virtual>);

impl VirtualTlb {
    pub(super) fn reset(&mut self) {
        self.0.clear();
    }

    /// Drop what the op flushed. Their order is not known: a flush anywhere in the op counts.
    pub(super) fn flush(&mut self, step: &Step<'_>) {
        if self.0.is_empty() {
            return;
        }
        if let Op::GuestFlush { vcpu } = *step.op {
            self.0.retain(|entry| entry.vcpu != vcpu);
        }
        for flush in step.flushes {
            self.0.retain(|entry| !is_dropped(step, entry, flush));
        }
    }

    /// Remember what the op reached.
    pub(super) fn fill(&mut self, step: &Step<'_>) {
        let (Op::GuestAccess { vcpu, root, gva, access }, Exit::Memory(pfn)) = (*step.op, step.exit) else { return };
        let frames = step.model.frames_of_page(step.host, pfn);
        let same = |entry: &&mut Virtual| (entry.vcpu, entry.root, entry.gva, entry.pfn) == (vcpu, root, gva, pfn);
        let writable = access == Access::Write;
        match self.0.iter_mut().find(same) {
            Some(entry) => entry.writable |= writable,
            None => self.0.push(Virtual { vcpu, root, gva, frames, pfn, writable }),
        }
    }

    /// The first translation that the guest may not use any more, and whether any could have been one.
    pub(super) fn unsound(&self, step: &Step<'_>) -> Option<&Virtual> {
        self.0.iter().find(|entry| !is_sound(step, entry))
    }

    /// Whether the op changed anything that a translation is made of.
    pub(super) fn is_at_stake(&self, step: &Step<'_>) -> bool {
        let changed = step.allowed.changed.union(step.allowed.revoked);
        self.0.iter().any(|entry| !entry.frames.intersect(changed).is_empty())
    }
}

fn is_dropped(step: &Step<'_>, entry: &Virtual, flush: &Flush) -> bool {
    let vm = step.model.vm();
    match *flush {
        Flush::All { vcpus } => VcpuSet::one(entry.vcpu).minus(vcpus).is_empty(),
        Flush::Range { gpa, pages, ok } => {
            let flushed = Span { start: gpa, pages };
            let names = |frame| (0..vm.stolen().alias_count()).map(move |alias| vm.gpa(frame, alias));
            ok && entry.frames.iter().flat_map(names).any(|start| flushed.covers(Span { start, pages: 1 }))
        }
    }
}

fn is_sound(step: &Step<'_>, entry: &Virtual) -> bool {
    let revoked = entry.writable
        && step.allowed.revoked_rights.contains(Rights::W)
        && !entry.frames.is_empty()
        && entry.frames.minus(step.allowed.revoked).is_empty();
    let needed = if entry.writable { Rights::W } else { Rights::R };
    let entitled = |frame: usize| match step.model.entitled(step.host, frame, gpa_model::Alias::NONE) {
        Entitled::Memory(pfn, rights) => pfn == entry.pfn && rights.contains(needed),
        Entitled::Hole | Entitled::InFlux | Entitled::NoPage | Entitled::OtherKind => false,
    };
    !revoked && entry.frames.iter().any(entitled)
}
