//! An MMU of your own, judged by every oracle.
//!
//! `cargo run --release --package gpa-oracles --example your_mmu`
//!
//! This one keeps its memslots in a `Vec` and its translations in a `BTreeMap`. Whatever is not an access makes it drop
//! every translation and flush every TLB: slow, and right. Delete a line of `step` and see what the oracles say.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{
    Access, Exit, FlushBackend, Gfn, Gpa, Host, HostPage, Mmu, Op, Program, Rights, SlotChange, SlotId, Spte, VmConfig,
};
use gpa_oracles::{Lockstep, report};
use rand_xoshiro::{Xoshiro256PlusPlus, rand_core::SeedableRng};
use std::collections::BTreeMap;

struct YourMmu {
    vm: VmConfig,
    slots: Vec<(SlotId, Gfn, u64, HostPage, bool)>,
    mapped: BTreeMap<Gpa, Spte>,
}

impl YourMmu {
    fn new(vm: &VmConfig) -> Self {
        Self { vm: *vm, slots: Vec::new(), mapped: BTreeMap::new() }
    }
}

impl Mmu for YourMmu {
    fn reset(&mut self, vm: &VmConfig) {
        *self = Self::new(vm);
    }

    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        if let Op::Access { gpa, access, .. } = *op {
            let (gfn, alias) = self.vm.stolen().split(gpa);
            let page =
                |slot: &(SlotId, Gfn, u64, HostPage, bool)| gfn.offset_from(slot.1).filter(|page| *page < slot.2);
            let slot = self.slots.iter().find_map(|slot| Some((slot, page(slot)?)));
            let Some((&(id, _, _, hva, readonly), page)) = slot else { return Exit::Mmio(gpa) };
            if (id.is_internal() && !alias.is_none()) || (readonly && access == Access::Write) {
                return Exit::Mmio(gpa);
            }
            let pfn = host.pfn(hva.add(page));
            self.mapped.extend(Spte::new(pfn, if readonly { Rights::RX } else { Rights::RWX }).map(|spte| (gpa, spte)));
            return Exit::Memory(pfn);
        }
        if let Op::Slot { id, change } = *op {
            self.slots.retain(|slot| slot.0 != id);
            if let SlotChange::Create { gfn, pages, hva, flags } = change {
                self.slots.push((id, gfn, pages.into(), hva, flags.readonly));
            }
        }
        // Without accessed bits, what was mapped counts as young, and has to fault before it is young again.
        let young = !self.mapped.is_empty();
        self.mapped.clear();
        flush.all();
        if matches!(op, Op::Age { .. }) { Exit::Young(young) } else { Exit::Done }
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.mapped.get(&gpa).copied()
    }

    /// Ops in one piece, and no dirty log. What is refused here is counted, never judged and never taken for passed.
    fn supports(&self, op: &Op) -> bool {
        match op {
            Op::Slot { change: SlotChange::Create { flags, .. }, .. } => !flags.log_dirty,
            Op::Slot { change: SlotChange::Delete, .. } => true,
            Op::Access { .. } | Op::Unmap { .. } | Op::Age { .. } | Op::WriteProtect { .. } | Op::Backend(_) => true,
            _ => false,
        }
    }
}

fn main() {
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let generator = Generator::new(Profile { windows: false, ..Profile::default() });
    let (mut run, mut mmu, mut program) = (Lockstep::default(), YourMmu::new(&VmConfig::default()), Program::default());
    for number in 1..=10_000 {
        generator.program(&mut choices, &mut program);
        if run.run(&mut mmu, &program).is_some() {
            println!("program {number}: {}", report(&mut run, &mut mmu, &program, "your_mmu").0);
            std::process::exit(1);
        }
    }
    println!("10000 programs, no oracle objects: {:?}", run.counts());
    for (oracle, clause, tally) in run.tallies() {
        println!("{:<30} {tally:?}", format!("{oracle}/{}", clause.name));
    }
}
