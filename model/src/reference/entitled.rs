//! What the guest is entitled to find at a GPA: the specification.

use super::Model;
use crate::addr::{Alias, HostPage, Level, Pfn};
use crate::frame_set::FrameSet;
use crate::host::Host;
use crate::limits::FRAMES;
use crate::program::Rights;
use strum::IntoStaticStr;

/// What the guest is entitled to find at a GPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entitled {
    /// No memory: no memslot, or an alias of a private one. Accesses go to user space, nothing may be mapped.
    Hole,
    /// Memory whose memslot or page is being taken away: nothing may be mapped, the access is retried.
    InFlux,
    /// Memory whose page nobody can have: nothing may be mapped, the access ends in an error.
    NoPage,
    /// Memory of the other kind, private or shared, or private memory without a memslot: nothing may be mapped, and the access
    /// ends in [`Exit::MemoryFault`](crate::Exit::MemoryFault).
    OtherKind,
    /// This page, with at most these rights.
    Memory(Pfn, Rights),
}

/// What kind of memslot stands behind a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum SlotKind {
    /// None.
    Hole,
    /// A user slot that is writable and not logged.
    User,
    /// A user slot with dirty logging.
    Logged,
    /// A read-only user slot.
    #[strum(serialize = "readonly")]
    ReadOnly,
    /// A private slot.
    #[strum(serialize = "private")]
    Internal,
    /// A slot that is being deleted or moved.
    Invalid,
}

impl SlotKind {
    /// The name used in signatures.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Model {
    /// What the guest is entitled to find at `frame` under `alias`.
    ///
    /// An alias of no slot or of a private slot is a hole (`kvm_faultin_pfn()` in the seed); a slot in its INVALID window
    /// and a page under invalidation may not be mapped by anyone.
    pub fn entitled(&self, host: &Host, frame: usize, alias: Alias) -> Entitled {
        if self.vm.shared_private() {
            return self.entitled_by_kind(host, frame, alias.is_none());
        }
        let Some((id, slot)) = self.slot_at(frame) else { return Entitled::Hole };
        if id.is_internal() && !alias.is_none() {
            return Entitled::Hole;
        }
        let hva = slot.hva_of(&self.vm, frame);
        if slot.invalid || host.invalidating(hva) || self.memory_attributes.changing().contains(frame) {
            return Entitled::InFlux;
        }
        if host.is_gone(hva) {
            return Entitled::NoPage;
        }
        let readonly = slot.flags.readonly || self.tracked.contains(frame);
        let rights = if readonly { Rights::RX } else { Rights::RWX };
        Entitled::Memory(host.pfn(hva), rights)
    }

    /// The same where the stolen bit is the shared bit, and an alias means `private` memory or shared memory
    /// (`kvm_mmu_faultin_pfn()`): the attribute is compared before the memslot is looked at.
    fn entitled_by_kind(&self, host: &Host, frame: usize, private: bool) -> Entitled {
        if self.memory_attributes.converting().contains(frame) {
            return Entitled::InFlux;
        }
        if private != self.memory_attributes.private().contains(frame) {
            return Entitled::OtherKind;
        }
        let Some((_, slot)) = self.slot_at(frame) else {
            // `kvm_handle_noslot_fault()`: user space cannot emulate an access to private memory.
            return if private { Entitled::OtherKind } else { Entitled::Hole };
        };
        let hva = slot.hva_of(&self.vm, frame);
        if slot.invalid || !private && host.invalidating(hva) {
            return Entitled::InFlux;
        }
        if private {
            return Entitled::Memory(host.private_pfn(hva), Rights::RWX);
        }
        if host.is_gone(hva) { Entitled::NoPage } else { Entitled::Memory(host.pfn(hva), Rights::RWX) }
    }

    /// What kind of memslot stands behind `frame`.
    pub fn slot_kind(&self, frame: usize) -> SlotKind {
        match self.slot_at(frame) {
            None => SlotKind::Hole,
            Some((_, slot)) if slot.invalid => SlotKind::Invalid,
            Some((id, _)) if id.is_internal() => SlotKind::Internal,
            Some((_, slot)) if slot.flags.readonly => SlotKind::ReadOnly,
            Some((_, slot)) if slot.flags.log_dirty => SlotKind::Logged,
            Some(_) => SlotKind::User,
        }
    }

    /// Whether the host asks if pages were used through `alias`. It does not ask for private pages, which have no hva.
    pub fn is_aged(&self, alias: Alias) -> bool {
        !self.vm.shared_private() || !alias.is_none()
    }

    /// Whether a leaf of `level` may translate `frame`, whatever page it leads to.
    pub fn admits_leaf(&self, frame: usize, level: Level) -> bool {
        level == Level::Page4K || {
            let leaf = self.vm.frames_of_leaf(self.vm.gfn(frame), level);
            !self.memory_attributes.uncacheable().divides(leaf) && !self.memory_attributes.private().divides(leaf)
        }
    }

    /// The page behind `frame`, even if its memslot is going; none if there is no memslot, or the host is taking or has taken the
    /// page away.
    pub fn page(&self, host: &Host, frame: usize) -> Option<Pfn> {
        self.hva(frame).filter(|hva| !host.invalidating(*hva) && !host.is_gone(*hva)).map(|hva| host.pfn(hva))
    }

    /// The frames that `pfn` is behind, whatever their memslots are for.
    pub fn frames_of_page(&self, host: &Host, pfn: Pfn) -> FrameSet {
        let leads = |frame: &usize| self.hva(*frame).is_some_and(|hva| host.pfn(hva) == pfn);
        (0..FRAMES).filter(leads).fold(FrameSet::EMPTY, |set, frame| set.union(FrameSet::one(frame)))
    }

    /// The host page behind `frame`, whatever its memslot is for and whether it is being taken away.
    pub(super) fn hva(&self, frame: usize) -> Option<HostPage> {
        self.slot_at(frame).map(|(_, slot)| slot.hva_of(&self.vm, frame))
    }

    /// Whether nobody can have the page behind `frame`, if there is a memslot.
    pub(super) fn is_gone(&self, host: &Host, frame: usize) -> bool {
        self.hva(frame).is_some_and(|hva| host.is_gone(hva))
    }
}
