//! KVM's internal memslots. On Intel, KVM keeps a task state segment and an identity map in guest memory, to run guests in real
//! mode without unrestricted guest (`init_rmode_tss()`, `init_rmode_identity_map()`). It also keeps a page at the address of the
//! local APIC, by which the processor recognises accesses to the APIC (`kvm_alloc_apic_access_page()`).
//!
//! User space chooses the gfn of the first two before there are vCPUs, and cannot delete them. So a program that begins with
//! internal memslots has a VM of its own. A memslot exists if KVM refuses one of user space at the same gfn (`EEXIST`). Its
//! memory is a new mapping that KVM makes in this process, so its pages can be given identities.
//!
//! The APIC access page exists if KVM emulates the local APICs, which other VMs here do without. Through the base name either
//! the local APIC or the page answers, depending on the APIC's mode and the processor (`kvm_apicv_activated()`). So the base
//! name is not accessed, and only the aliases are tested.

use super::mmu_watch::MmuWatch;
use super::{Machine, SPARE_SLOT};
use crate::error::{Doing, MachineError};
use crate::guest::page;
use crate::host::memory::{Mapping, Pages, new_shared_mappings, shared_mappings};
use crate::kvm::alias_method::AliasMethod;
use crate::kvm::ioctl::{Region, delete_region, set_region};
use crate::trace::Trace;
use gpa_model::{Alias, Gfn, Gpa, Host, HostPageRange, Op, Program, SlotChange, SlotId, VmConfig};
use kvm_ioctls::VmFd;
use std::ops::Range;

const TSS: SlotId = SlotId::internal(0);
const TSS_PAGES: u32 = 3;
const APIC_ACCESS_PAGE: SlotId = SlotId::internal(1);
/// The gfn of the APIC access page, whatever the guest writes to IA32_APIC_BASE (`APIC_DEFAULT_PHYS_BASE`).
const APIC_GFN: Gfn = Gfn::new(0xfee00);
const IDENTITY_MAP: SlotId = SlotId::internal(2);

/// An internal memslot that a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    id: SlotId,
    gfn: Gfn,
    /// The host pages whose identities its pages bear.
    pages: HostPageRange,
}

/// An internal memslot that KVM has made.
#[derive(Debug)]
pub(super) struct InternalSlot {
    wanted: Wanted,
    memory: Pages,
}

/// The internal memslots that `program` begins with and KVM may have: p0 is the task state segment, p1 the APIC
/// access page, p2 the identity map. There are none if an alias cannot be a hole while its frame is memory.
pub(super) fn wanted(program: &Program, alias_method: AliasMethod) -> Vec<Wanted> {
    let create = |op: &Op| match *op {
        Op::Slot { id, change: SlotChange::Create { gfn, pages, hva, .. } } if id.is_internal() => {
            Some(Wanted { id, gfn, pages: HostPageRange { start: hva, pages } })
        }
        _ => None,
    };
    let all: Vec<Wanted> = program.ops.iter().map_while(create).collect();
    // No other op may use their host pages, because only KVM can map them.
    let others = &program.ops[all.len()..];
    let free = |wanted: &Wanted| !others.iter().any(|op| touches(op, wanted.pages));
    let possible = |wanted: &Wanted| match wanted.id {
        TSS => wanted.pages.pages == TSS_PAGES,
        APIC_ACCESS_PAGE => wanted.pages.pages == 1 && wanted.gfn == APIC_GFN,
        IDENTITY_MAP => wanted.pages.pages == 1,
        _ => false,
    };
    let has_holes = alias_method.names_are_gpas();
    all.into_iter().filter(|wanted| has_holes && possible(wanted) && free(wanted)).collect()
}

/// Whether KVM makes some of `wanted` only with local APICs.
pub(super) fn need_local_apics(wanted: &[Wanted]) -> bool {
    wanted.iter().any(|wanted| wanted.id == APIC_ACCESS_PAGE)
}

fn touches(op: &Op, pages: HostPageRange) -> bool {
    match *op {
        Op::Slot { change: SlotChange::Create { pages: count, hva, .. }, .. } => {
            pages.overlaps(&HostPageRange { start: hva, pages: count })
        }
        Op::Unmap { range, .. } => pages.overlaps(&range),
        _ => false,
    }
}

/// Creates the internal memslots of `wanted` that KVM makes at once, and chooses the addresses of the others.
pub(super) fn before_vcpus(fd: &VmFd, wanted: &[Wanted]) -> Result<Vec<InternalSlot>, MachineError> {
    let mut made = Vec::new();
    for &wanted in wanted {
        let gpa = Gpa::from_page(wanted.gfn.raw()).raw();
        match wanted.id {
            TSS => {
                let before = shared_mappings().doing("list the mappings of this process")?;
                fd.set_tss_address(gpa as usize).doing("say where the task state segment is to be")?;
                made.extend(find(wanted, &before)?);
            }
            IDENTITY_MAP => fd.set_identity_map_address(gpa).doing("say where the identity map is to be")?,
            _ => {}
        }
    }
    Ok(made)
}

/// The internal memslots that KVM made with the first vCPU; `before` are the mappings that existed until then.
pub(super) fn after_vcpus(wanted: &[Wanted], before: &[Mapping]) -> Result<Vec<InternalSlot>, MachineError> {
    let late = wanted.iter().filter(|wanted| wanted.id != TSS);
    let found: Result<Vec<_>, _> = late.map(|&wanted| find(wanted, before)).collect();
    Ok(found?.into_iter().flatten().collect())
}

fn find(wanted: Wanted, before: &[Mapping]) -> Result<Option<InternalSlot>, MachineError> {
    let new = new_shared_mappings(before, wanted.pages.pages as usize).doing("list the mappings of this process")?;
    // An identity map has entries; the APIC access page is still zero.
    let is_it = |memory: &Pages| wanted.id == TSS || (wanted.id == IDENTITY_MAP) == (memory.read_u32(0, 0) != 0);
    Ok(new.into_iter().find(is_it).map(|memory| InternalSlot { wanted, memory }))
}

impl InternalSlot {
    /// Its memory, and the numbers of the host pages whose identities it bears.
    pub(super) fn pages(&self) -> (&Pages, Range<usize>) {
        let (first, pages) = (self.wanted.pages.start.page() as usize, self.wanted.pages.pages as usize);
        (&self.memory, first..first + pages)
    }
}

impl Machine {
    /// Carries out `program` in a VM of its own, with the internal memslots `wanted`, and with dirty rings as
    /// small as the program's.
    pub(super) fn run_apart(
        &mut self,
        wanted: &[Wanted],
        program: &Program,
        trace: &mut Trace,
    ) -> Result<(), MachineError> {
        let mut machine = Self::create(self.fingerprint.alias_method, wanted, &program.vm)?;
        machine.mmu_watch = MmuWatch::of(&machine.fd);
        machine.mmu_watch.watch(program);
        machine.fingerprint.clone_from(&self.fingerprint);
        machine.stealable.clone_from(&self.stealable);
        std::mem::swap(&mut machine.reclaims, &mut self.reclaims);
        let result = machine.carry_out(program, &mut trace.observations);
        trace.seen = machine.mmu_watch.take();
        std::mem::swap(&mut machine.reclaims, &mut self.reclaims);
        self.accesses += machine.accesses;
        result
    }

    /// Whether KVM has made internal memslot `id`. If so, gives its pages the identities of their host pages.
    pub(super) fn internal_slot(&mut self, vm: &VmConfig, host: &Host, id: SlotId) -> Result<bool, MachineError> {
        let Some(slot) = self.internal_slots.iter().find(|slot| slot.wanted.id == id) else {
            return Ok(false);
        };
        let Wanted { gfn, pages, .. } = slot.wanted;
        for at in 0..u64::from(pages.pages) {
            let region = Region { gpa: Gpa::from_page(gfn.add(at).raw()), ..SPARE };
            match set_region(&self.fd, &self.memory, region) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                Err(error) => return Err(error).doing("find out whether an internal memslot exists"),
                Ok(()) => {
                    delete_region(&self.fd, SPARE_SLOT).doing("delete a memslot")?;
                    return Ok(false);
                }
            }
            page::stamp(&slot.memory, at as usize, host.pfn(pages.start.add(at)));
        }
        if self.fingerprint.alias_method == AliasMethod::Exposed {
            self.expose(vm, id)?;
        }
        Ok(true)
    }

    /// Whether KVM's local APIC may answer `op`.
    pub(super) fn is_for_the_local_apic(&self, vm: &VmConfig, op: &Op) -> bool {
        match *op {
            Op::Access { gpa, .. } | Op::FaultBegin { gpa, .. } | Op::Prefault { gpa, .. } => {
                self.has_local_apics && vm.stolen().split(gpa) == (APIC_GFN, Alias::NONE)
            }
            _ => false,
        }
    }

    /// Maps the memory of internal memslot `id` under each alias, which must never happen: the positive
    /// control.
    fn expose(&self, vm: &VmConfig, id: SlotId) -> Result<(), MachineError> {
        let Some(internal) = self.internal_slots.iter().find(|slot| slot.wanted.id == id) else { return Ok(()) };
        let stolen = vm.stolen();
        for (number, alias) in stolen.aliases().enumerate().skip(1) {
            let slot = SPARE_SLOT + (id.index() * gpa_model::limits::ALIASES + number) as u32;
            let gpa = stolen.join(internal.wanted.gfn, alias);
            let region = Region { slot, gpa, pages: internal.memory.len(), ..SPARE };
            set_region(&self.fd, &internal.memory, region).doing("map an internal memslot's memory under an alias")?;
        }
        Ok(())
    }

    /// Whether the internal memslot at `frame` has `value` at `offset` of its page; `None` if there is none.
    pub(super) fn internal_page_holds(&self, vm: &VmConfig, frame: usize, offset: usize, value: u64) -> Option<bool> {
        self.internal_slots.iter().find_map(|InternalSlot { wanted, memory }| {
            let page = vm.gfn(frame).offset_from(wanted.gfn).filter(|&page| page < wanted.pages.pages.into())?;
            Some(memory.read_u64(page as usize, offset) == value)
        })
    }
}

/// A memslot of user space that KVM must refuse.
const SPARE: Region = Region { slot: SPARE_SLOT, flags: 0, gpa: Gpa::from_page(0), mapping: 0, page: 0, pages: 1 };

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(base: u64, ops: &str) -> Vec<String> {
        let text = format!("gpafuzz-program 1\nvm stolen=40 vcpus=1 base={base:#x} flush=works\n{ops}");
        let program = gpa_model::text::parse(&text).expect("a program");
        assert_eq!(wanted(&program, AliasMethod::GuestPtes), []);
        wanted(&program, AliasMethod::Slots).iter().map(|wanted| wanted.id.to_string()).collect()
    }

    #[test]
    fn what_kvm_could_not_make_is_not_wanted() {
        let (tss, map) = ("slot p0 create gfn=0x1e0 pages=3 hva=0x20\n", "slot p2 create gfn=0x1e4 pages=1 hva=0x30\n");
        assert_eq!(ids(0x1e0, &format!("{tss}{map}v0 read 0x1e0\n")), ["p0", "p2"]);
        assert_eq!(ids(0x1e0, &format!("v0 read 0x1e0\n{tss}")), [""; 0]);
        assert_eq!(ids(0x1e0, &format!("{tss}{map}unmap hva=0x22 pages=1\n")), ["p2"]);
        assert_eq!(ids(0x1e0, &format!("{tss}{map}slot 0 create gfn=0x1f0 pages=4 hva=0x2e\n")), ["p0"]);
        let small = "slot p0 create gfn=0x1e0 pages=1 hva=0x20\nslot p1 create gfn=0x1e4 pages=1 hva=0x30\n";
        assert_eq!(ids(0x1e0, small), [""; 0]);
        assert_eq!(ids(0xfede0, "slot p1 create gfn=0xfee00 pages=1 hva=0x30\n"), ["p1"]);
        assert_eq!(ids(0xfede0, "slot p1 create gfn=0xfee00 pages=2 hva=0x30\n"), [""; 0]);
    }
}
