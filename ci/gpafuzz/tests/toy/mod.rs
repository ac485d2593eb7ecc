//! Small MMUs with one mistake each, to be found by campaigns.

use gpa_model::{Exit, FlushBackend, Gfn, Gpa, Host, HostPage, Mmu, Op, Rights, SlotChange, SlotId, Spte, VmConfig};
use std::collections::BTreeMap;

/// Maps what is accessed, and drops and flushes everything at any other op, except that it forgets to flush aliases.
#[derive(Default)]
pub(crate) struct ForgetsAliases {
    vm: VmConfig,
    slots: Vec<(SlotId, Gfn, u64, HostPage)>,
    mapped: BTreeMap<Gpa, Spte>,
}

impl Mmu for ForgetsAliases {
    fn reset(&mut self, vm: &VmConfig) {
        *self = Self { vm: *vm, ..Self::default() };
    }

    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        if let Op::Access { gpa, .. } = *op {
            let (gfn, _) = self.vm.stolen().split(gpa);
            let page = |slot: &(SlotId, Gfn, u64, HostPage)| {
                gfn.offset_from(slot.1).filter(|page| *page < slot.2).map(|page| slot.3.add(page))
            };
            let Some(hva) = self.slots.iter().find_map(page) else { return Exit::Mmio(gpa) };
            self.mapped.extend(Spte::new(host.pfn(hva), Rights::RWX).map(|spte| (gpa, spte)));
            return Exit::Memory(host.pfn(hva));
        }
        if let Op::Slot { id, change } = *op {
            self.slots.retain(|slot| slot.0 != id);
            if let SlotChange::Create { gfn, pages, hva, .. } = change {
                self.slots.push((id, gfn, pages.into(), hva));
            }
        }
        self.mapped.clear();
        if flush.range(self.vm.gpa(0, 0), 64).is_err() {
            flush.all();
        }
        Exit::Done
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.mapped.get(&gpa).copied()
    }

    fn supports(&self, op: &Op) -> bool {
        match op {
            Op::Slot { id, change: SlotChange::Create { flags, .. } } => {
                !id.is_internal() && !flags.log_dirty && !flags.readonly
            }
            Op::Slot { change: SlotChange::Delete, .. } => true,
            Op::Access { .. } | Op::Unmap { .. } => true,
            _ => false,
        }
    }
}

/// Panics as soon as anything is aged.
#[derive(Default)]
pub(crate) struct PanicsOnAge;

impl Mmu for PanicsOnAge {
    fn reset(&mut self, _: &VmConfig) {}

    fn step(&mut self, _: &Host, _: &mut FlushBackend, op: &Op) -> Exit {
        assert!(!matches!(op, Op::Age { .. }), "I do not feel\nany older");
        Exit::Done
    }

    fn walk(&self, _: Gpa) -> Option<Spte> {
        None
    }

    fn supports(&self, op: &Op) -> bool {
        matches!(op, Op::Slot { .. } | Op::Age { .. })
    }
}
