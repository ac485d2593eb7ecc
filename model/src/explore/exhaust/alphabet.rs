//! Every op of a scope, with every operand.

use super::Scope;
use crate::addr::{Gfn, Gpa, HostPage, Level};
use crate::limits::{MMU_PAGES_MIN, NOTIFIER_WINDOWS};
use crate::program::{
    Access, BackendMode, Gpte, GpteFlags, Gva, HostPageRange, MemoryType, Op, OpKind, SlotChange, SlotFlags, SlotId,
};

impl Scope {
    /// Every op, in the order in which they are tried.
    pub fn alphabet(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        self.slot_ops(&mut ops);
        self.access_ops(&mut ops);
        self.host_ops(&mut ops);
        self.log_ops(&mut ops);
        self.division_ops(&mut ops);
        self.zap_ops(&mut ops);
        ops.push(Op::MmuPages { pages: MMU_PAGES_MIN });
        ops.extend(BackendMode::ALL.map(Op::Backend));
        self.walk_ops(&mut ops);
        self.paging_ops(&mut ops);
        ops.retain(|op| self.has(op.kind()));
        ops
    }

    const fn has(&self, kind: OpKind) -> bool {
        self.kinds.contains(kind)
    }

    fn ids(&self) -> impl Iterator<Item = SlotId> {
        let private = usize::from(self.slots > 1);
        let users = (0..self.slots - private).map(|n| SlotId::user(n as u8));
        users.chain((0..private).map(|n| SlotId::internal(n as u8)))
    }

    /// Every run of frames: the first, and how many.
    fn runs(&self) -> impl Iterator<Item = (Gfn, u32)> {
        let (vm, frames) = (self.vm, self.frames);
        (0..frames)
            .flat_map(move |first| (1..=frames - first).map(move |pages| (vm.gfn(first), vm.pages_of(pages) as u32)))
    }

    fn gpas(&self) -> impl Iterator<Item = Gpa> {
        let (vm, aliases) = (self.vm, self.vm.stolen().alias_count());
        (0..self.frames).flat_map(move |frame| (0..aliases).map(move |alias| vm.gpa(frame, alias)))
    }

    fn slot_ops(&self, ops: &mut Vec<Op>) {
        let flags = |readonly, log_dirty| SlotFlags { readonly, log_dirty };
        let all_flags = [flags(false, false), flags(false, true), flags(true, false)];
        for id in self.ids() {
            let of_id = if id.is_internal() { &all_flags[..1] } else { &all_flags[..] };
            let mut changes = Vec::new();
            for (gfn, pages) in self.runs() {
                for block in 0..self.slots {
                    let hva = self.hva(block, 0);
                    changes.extend(of_id.iter().map(|&flags| SlotChange::Create { gfn, pages, hva, flags }));
                }
            }
            changes.push(SlotChange::Delete);
            if !id.is_internal() {
                changes.extend((0..self.frames).map(|frame| SlotChange::Move { gfn: self.vm.gfn(frame) }));
                changes.extend(of_id.iter().map(|&flags| SlotChange::Flags(flags)));
            }
            ops.extend(changes.iter().map(|&change| Op::Slot { id, change }));
            self.aliased_slots(id, ops);
            if self.has(OpKind::SlotEnd) {
                ops.extend(changes.iter().map(|&change| Op::SlotBegin { id, change }));
            }
        }
        ops.push(Op::SlotEnd);
    }

    fn aliased_slots(&self, id: SlotId, ops: &mut Vec<Op>) {
        let aliases = self.vm.stolen().aliases().filter(|alias| !alias.is_none());
        for alias in aliases.filter(|_| !id.is_internal()) {
            for (gfn, pages) in self.runs() {
                let gpa = self.vm.stolen().join(gfn, alias);
                let blocks = (0..self.slots).map(|block| self.hva(block, 0));
                ops.extend(blocks.map(|hva| Op::SlotAliased { id, gpa, pages, hva }));
            }
        }
    }

    fn access_ops(&self, ops: &mut Vec<Op>) {
        for vcpu in 0..self.vm.vcpus() {
            for gpa in self.gpas() {
                let kinds = Access::ALL.into_iter().filter(|&access| self.has(Op::Access { vcpu, gpa, access }.kind()));
                for access in kinds {
                    ops.push(Op::Access { vcpu, gpa, access });
                    ops.push(Op::FaultBegin { vcpu, gpa, access });
                }
            }
            ops.extend(self.gpas().map(|gpa| Op::Prefault { vcpu, gpa }));
            ops.push(Op::FaultEnd { vcpu });
        }
    }

    fn hva(&self, block: usize, page: usize) -> HostPage {
        self.vm.hva(block * self.frames + page)
    }

    /// Each page of each block, and each whole block.
    fn host_ops(&self, ops: &mut Vec<Op>) {
        for block in 0..self.slots {
            let pages = (0..self.frames)
                .map(|page| HostPageRange { start: self.hva(block, page), pages: self.vm.stride() as u32 });
            let whole = HostPageRange { start: self.hva(block, 0), pages: self.vm.pages_of(self.frames) as u32 };
            for range in pages.chain((self.frames > 1).then_some(whole)) {
                ops.extend([Op::Unmap { range, by: None }, Op::ProtNone { range }, Op::Age { range }]);
                ops.extend(range.holds_huge().then_some(Op::Collapse { range }));
                ops.extend((0..NOTIFIER_WINDOWS as u8).map(|window| Op::UnmapBegin { window, range }));
            }
        }
        ops.extend((0..NOTIFIER_WINDOWS as u8).map(|window| Op::UnmapEnd { window }));
    }

    fn log_ops(&self, ops: &mut Vec<Op>) {
        for id in self.ids().filter(|id| !id.is_internal()) {
            ops.push(Op::DirtyGet { id });
            ops.extend(self.runs().map(|(gfn, pages)| Op::DirtyClear { id, gfn, pages }));
        }
        for gfn in (0..self.frames).map(|frame| self.vm.gfn(frame)) {
            ops.extend([Op::WriteProtect { gfn }, Op::WriteTrack { gfn }, Op::WriteUntrack { gfn }]);
        }
    }

    /// What divides frames, where there are leaves to divide.
    fn division_ops(&self, ops: &mut Vec<Op>) {
        if self.vm.largest_leaf() == Level::Page4K {
            return;
        }
        for (gfn, pages) in self.runs() {
            ops.extend([false, true].map(|private| Op::Attributes { gfn, pages, private }));
            if self.has(OpKind::AttributesEnd) {
                ops.extend([false, true].map(|private| Op::AttributesBegin { gfn, pages, private }));
            }
            ops.extend(MemoryType::ALL.map(|memory| Op::MemoryType { gfn, pages, memory }));
        }
        ops.extend([Op::AttributesEnd, Op::NxRecover]);
    }

    /// Zaps that let others have their turn after the first leaf.
    fn zap_ops(&self, ops: &mut Vec<Op>) {
        ops.extend(self.runs().map(|(gfn, pages)| Op::ZapBegin { gfn, pages, leaves: 1 }));
        ops.push(Op::ZapEnd);
    }

    /// Each table, with a leaf of each alias: which frame the leaf names makes no difference to anything. Then each frame as a
    /// table whose first entry leads to itself, under each alias: one such entry is a tree that can be walked to its end.
    fn walk_ops(&self, ops: &mut Vec<Op>) {
        for vcpu in 0..self.vm.vcpus() {
            for table in self.gpas() {
                let leaves = (0..self.vm.stolen().alias_count()).map(|alias| self.vm.gpa(0, alias));
                ops.extend(leaves.map(|leaf| Op::Translate { vcpu, table, leaf }));
            }
            for gpa in self.gpas() {
                let (gfn, _) = self.vm.stolen().split(gpa);
                let itself = self.vm.stolen().aliases().map(|alias| self.vm.stolen().join(gfn, alias));
                let entries = itself.map(|to| Gpte::new(to, GpteFlags::PLAIN));
                ops.extend(entries.map(|gpte| Op::WriteGpte { vcpu, gpa, index: 0, gpte }));
                ops.push(Op::GuestWalk { vcpu, root: gpa, gva: Gva::default(), access: Access::Read });
                let kinds = [Access::Read, Access::Write];
                ops.extend(kinds.map(|access| Op::GuestAccess { vcpu, root: gpa, gva: Gva::default(), access }));
            }
            ops.push(Op::GuestFlush { vcpu });
        }
    }

    /// Each block, or vCPU, where the host pages out memory at all.
    fn paging_ops(&self, ops: &mut Vec<Op>) {
        if self.vm.async_pf() {
            let blocks = (0..self.slots).map(|block| self.hva(block, 0));
            let ranges = blocks.map(|start| HostPageRange { start, pages: self.vm.pages_of(self.frames) as u32 });
            ops.extend(ranges.flat_map(|range| [Op::PageOut { range }, Op::PageIn { range }]));
            ops.extend((0..self.vm.vcpus()).flat_map(|vcpu| [Op::PageReady { vcpu }, Op::AsyncPfClear { vcpu }]));
        }
    }
}
