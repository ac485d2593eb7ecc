//! Memslots of KVM's own: on Intel's processors it keeps a task state segment and an identity map in guest memory, for guests in
//! real mode, where the processor cannot run those as they are (`init_rmode_tss()`, `init_rmode_identity_map()`).
//!
//! User space says where, before there are vCPUs, and can never take them away; so a program that begins with private memslots has
//! a VM of its own. That one exists is proven by what must not be: a memslot of user space at the same gfn (`EEXIST`). Its memory
//! is a mapping that KVM makes in this process, found among those that are new, so that it bears identities like any other.
//!
//! The third one, the APIC access page, is always at gfn 0xfee00, which lies above the frames of programs.

use super::inside::Inside;
use super::{Machine, SPARE_SLOT};
use crate::error::{Doing, MachineError};
use crate::guest;
use crate::ioctl::{Region, delete_region, set_region};
use crate::memory::{Mapping, Pages, new_shared_mapping, shared_mappings};
use crate::realisation::Realisation;
use crate::trace::Trace;
use gpa_model::{Gfn, Gpa, Host, HvaRange, Op, Program, SlotChange, SlotId, Vm};
use kvm_ioctls::VmFd;
use std::ops::Range;

/// Pages of the task state segment, and of the identity map.
const TSS_PAGES: u32 = 3;
const IDENTITY_MAP_PAGES: u32 = 1;

/// What one of them is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    id: SlotId,
    gfn: Gfn,
    /// The host pages whose identities its own bear.
    pages: HvaRange,
}

/// One that KVM has made.
#[derive(Debug)]
pub(super) struct Private {
    wanted: Wanted,
    memory: Pages,
}

/// Those that `program` begins with, as far as KVM has such: p0 is the task state segment, p2 the identity map.
pub(super) fn wanted(program: &Program) -> Vec<Wanted> {
    let create = |op: &Op| match *op {
        Op::Slot { id, change: SlotChange::Create { gfn, pages, hva, .. } } if id.is_private() => {
            Some(Wanted { id, gfn, pages: HvaRange { start: hva, pages } })
        }
        _ => None,
    };
    let all: Vec<Wanted> = program.ops.iter().map_while(create).collect();
    // The host pages are KVM's: nobody else can have them, nor take them away.
    let others = &program.ops[all.len()..];
    let free = |wanted: &Wanted| !others.iter().any(|op| touches(op, wanted.pages));
    let size = |wanted: &Wanted| match wanted.id {
        id if id == SlotId::private(0) => wanted.pages.pages == TSS_PAGES,
        id if id == SlotId::private(2) => wanted.pages.pages == IDENTITY_MAP_PAGES,
        _ => false,
    };
    all.into_iter().filter(|wanted| size(wanted) && free(wanted)).collect()
}

fn touches(op: &Op, pages: HvaRange) -> bool {
    match *op {
        Op::Slot { change: SlotChange::Create { pages: count, hva, .. }, .. } => {
            pages.overlaps(&HvaRange { start: hva, pages: count })
        }
        Op::Unmap { range, .. } => pages.overlaps(&range),
        _ => false,
    }
}

/// Have KVM make those of `wanted` that it makes at once, and tell it where the others are to be.
pub(super) fn before_vcpus(fd: &VmFd, wanted: &[Wanted]) -> Result<Vec<Private>, MachineError> {
    let mut made = Vec::new();
    for &wanted in wanted {
        let gpa = Gpa::from_page(wanted.gfn.raw()).raw();
        if wanted.id == SlotId::private(0) {
            let before = shared_mappings().doing("list the mappings of this process")?;
            fd.set_tss_address(gpa as usize).doing("say where the task state segment is to be")?;
            made.extend(find(wanted, &before)?);
        } else {
            fd.set_identity_map_address(gpa).doing("say where the identity map is to be")?;
        }
    }
    Ok(made)
}

/// The identity map, which KVM has made with the first vCPU, if it has; `before` are the mappings there were until then.
pub(super) fn after_vcpus(wanted: &[Wanted], before: &[Mapping]) -> Result<Option<Private>, MachineError> {
    match wanted.iter().find(|wanted| wanted.id == SlotId::private(2)) {
        Some(&wanted) => find(wanted, before),
        None => Ok(None),
    }
}

fn find(wanted: Wanted, before: &[Mapping]) -> Result<Option<Private>, MachineError> {
    let pages = wanted.pages.pages as usize;
    let memory = new_shared_mapping(before, pages).doing("list the mappings of this process")?;
    Ok(memory.map(|memory| Private { wanted, memory }))
}

impl Private {
    /// Its memory, and the numbers of the host pages whose identities it bears.
    pub(super) fn pages(&self) -> (&Pages, Range<usize>) {
        let (first, pages) = (self.wanted.pages.start.page() as usize, self.wanted.pages.pages as usize);
        (&self.memory, first..first + pages)
    }
}

impl Machine {
    /// Carry out `program` in a VM of its own, which has private memslots as `wanted`, and dirty rings as small as the program's.
    pub(super) fn run_apart(
        &mut self,
        wanted: &[Wanted],
        program: &Program,
        trace: &mut Trace,
    ) -> Result<(), MachineError> {
        let mut machine = Self::create(self.fingerprint.realisation, wanted, program.vm.dirty_ring().is_some())?;
        machine.inside = Inside::of(&machine.fd);
        machine.inside.watch(program);
        machine.fingerprint.clone_from(&self.fingerprint);
        machine.stealable.clone_from(&self.stealable);
        std::mem::swap(&mut machine.drivers, &mut self.drivers);
        let result = machine.carry_out(program, &mut trace.observations);
        trace.seen = machine.inside.take();
        std::mem::swap(&mut machine.drivers, &mut self.drivers);
        self.accesses += machine.accesses;
        result
    }

    /// Whether KVM has made private memslot `id`: then its pages get the identities of those it stands for.
    pub(super) fn private_slot(&mut self, vm: &Vm, host: &Host, id: SlotId) -> Result<bool, MachineError> {
        let Some(private) = self.private.iter().find(|private| private.wanted.id == id) else {
            return Ok(false);
        };
        let Wanted { gfn, pages, .. } = private.wanted;
        for at in 0..u64::from(pages.pages) {
            let region = Region { gpa: Gpa::from_page(gfn.add(at).raw()), ..SPARE };
            match set_region(&self.fd, &self.memory, region) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                Err(error) => return Err(error).doing("find out whether a private memslot exists"),
                Ok(()) => {
                    delete_region(&self.fd, SPARE_SLOT).doing("delete a memslot")?;
                    return Ok(false);
                }
            }
            guest::stamp(&private.memory, at as usize, host.pfn(pages.start.add(at)));
        }
        if self.fingerprint.realisation == Realisation::Exposed {
            self.expose(vm, id)?;
        }
        Ok(true)
    }

    /// The mistake that private memslots are to be safe from, made from outside: their memory under an alias.
    fn expose(&self, vm: &Vm, id: SlotId) -> Result<(), MachineError> {
        let Some(private) = self.private.iter().find(|private| private.wanted.id == id) else { return Ok(()) };
        let stolen = vm.stolen();
        for (number, alias) in stolen.aliases().enumerate().skip(1) {
            let slot = SPARE_SLOT + (id.index() * gpa_model::limits::ALIASES + number) as u32;
            let gpa = stolen.join(private.wanted.gfn, alias);
            let region = Region { slot, gpa, pages: private.memory.len(), ..SPARE };
            set_region(&self.fd, &private.memory, region).doing("map a private memslot's memory under an alias")?;
        }
        Ok(())
    }

    /// Whether the private memslot at `frame`, if there is one, has `value` at `offset` of its page.
    pub(super) fn private_page_holds(&self, vm: &Vm, frame: usize, offset: usize, value: u64) -> Option<bool> {
        self.private.iter().find_map(|Private { wanted, memory }| {
            let page = vm.gfn(frame).offset_from(wanted.gfn).filter(|&page| page < wanted.pages.pages.into())?;
            Some(memory.read_u64(page as usize, offset) == value)
        })
    }
}

/// A memslot of user space that is where it must not be.
const SPARE: Region = Region { slot: SPARE_SLOT, flags: 0, gpa: Gpa::from_page(0), mapping: 0, page: 0, pages: 1 };

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ops: &str) -> Vec<String> {
        let text = format!("gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n{ops}");
        let program = gpa_model::text::parse(&text).expect("a program");
        wanted(&program).iter().map(|wanted| wanted.id.to_string()).collect()
    }

    #[test]
    fn what_kvm_could_not_make_is_not_wanted() {
        let (tss, map) = ("slot p0 create gfn=0x1e0 pages=3 hva=0x20\n", "slot p2 create gfn=0x1e4 pages=1 hva=0x30\n");
        assert_eq!(ids(&format!("{tss}{map}v0 read 0x1e0\n")), ["p0", "p2"]);
        assert_eq!(ids(&format!("v0 read 0x1e0\n{tss}")), [""; 0]);
        assert_eq!(ids(&format!("{tss}{map}unmap hva=0x22 pages=1\n")), ["p2"]);
        assert_eq!(ids(&format!("{tss}{map}slot 0 create gfn=0x1f0 pages=4 hva=0x2e\n")), ["p0"]);
        assert_eq!(
            ids("slot p0 create gfn=0x1e0 pages=1 hva=0x20\nslot p1 create gfn=0x1e4 pages=1 hva=0x30\n"),
            [""; 0]
        );
    }
}
