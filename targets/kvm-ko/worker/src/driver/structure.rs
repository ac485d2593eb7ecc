//! What KVM keeps by gfn, at the end of a program: its shadow pages and the reverse map.
//!
//! A stock kernel knows nothing of stolen bits, so its gfns carry them. What the model calls a gfn and an alias is told apart here; a gfn
//! that carries another alias than the leaf it is for stays as it is, and is wrong.

use super::Stop;
use super::machine::{Machine, odd};
use gpa_model::{Gfn, GfnIndexed, Gpa, Level, Rights, StolenMask};
use kvm_ko::wire::{Answer, Record};
use kvm_ko_worker::kernel::{Kernel, Page, Rmap};
use std::collections::BTreeMap;

/// `ACC_EXEC_MASK`, `ACC_WRITE_MASK`.
const EXECUTE: u8 = 1;
const WRITE: u8 = 2;

/// A leaf by the address at which it lies itself.
type Leaves = BTreeMap<u64, (Gpa, Level)>;

/// Add to `answer` what is kept by gfn.
pub(super) fn look(kernel: &Kernel, machine: &Machine, answer: &mut Answer<'_>) -> Result<(), Stop> {
    let stolen = machine.vm.stolen();
    let looking = "look at shadow pages";
    for page in kernel.pages(machine.fd).map_err(odd(looking))? {
        if page.obsolete == 0 && page.address_space == 0 && page.tdp_mmu == 0 {
            answer.add(&Record::Key(shadow_page(&page, stolen)));
        }
    }
    let mut leaves = Leaves::new();
    for root in kernel.roots(machine.fd).map_err(odd(looking))?.iter().filter(|root| !root.obsolete) {
        for (gfn, entry) in kernel.leaves(root) {
            let level = Level::ALL.get(usize::from(entry.level).saturating_sub(1)).copied().unwrap_or_default();
            leaves.insert(entry.at, (Gpa::from_page(gfn), level));
        }
    }
    for slot in machine.memslots.numbers() {
        for entry in kernel.rmap(machine.fd, slot).map_err(odd("look at an rmap"))? {
            answer.add(&Record::Key(rmap(&entry, &leaves, stolen)));
        }
    }
    Ok(())
}

fn shadow_page(page: &Page, stolen: StolenMask) -> GfnIndexed {
    let (gfn, alias) = stolen.split(Gpa::from_page(page.gfn));
    let right = |bit, right| if page.access & bit != 0 { right } else { Rights::NONE };
    GfnIndexed::ShadowPage {
        gfn: gfn.raw(),
        alias,
        level: page.level,
        direct: page.direct != 0,
        access: Rights::R.union(right(WRITE, Rights::W)).union(right(EXECUTE, Rights::X)),
        guest_mode: page.guest_mode != 0,
    }
}

fn rmap(entry: &Rmap, leaves: &Leaves, stolen: StolenMask) -> GfnIndexed {
    let listed = Gpa::from_page(entry.gfn);
    // One that lies nowhere in the tables is taken for one of the name that it is listed under.
    let (gpa, level) = leaves.get(&entry.spte).copied().unwrap_or((listed, Level::Page4K));
    let ((gfn, alias), (_, of_leaf)) = (stolen.split(listed), stolen.split(gpa));
    let gfn = if alias == of_leaf { gfn } else { Gfn::new(entry.gfn) };
    GfnIndexed::Rmap { gfn: gfn.raw(), gpa, level, idle: false }
}
