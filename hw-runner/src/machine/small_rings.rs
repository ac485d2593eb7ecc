//! Dirty rings as small as a program's. KVM's smallest ring has more entries, so the surplus is used up first.
//!
//! A memslot that programs do not see is created, its pages are prefaulted, each of which takes an entry of the vCPU's ring
//! (`make_spte()`), and it is deleted. Without prefaults a ring has more room than its program says; a vCPU that goes on is
//! then allowed.

use super::{Machine, SPARE_SLOT};
use crate::error::{Doing, MachineError};
use crate::kvm::ioctl::{Region, delete_region, set_region};
use crate::kvm::ring;
use gpa_model::{Gpa, VmConfig};
use kvm_bindings::KVM_MEM_LOG_DIRTY_PAGES;

/// The gfn of that memslot: above all gfns of programs, and below the lowest bit that can be stolen.
const GFN: u64 = 0x7ff_fe00;

impl Machine {
    /// Leaves the rings of `vm`, which have been reset, as many entries as it says.
    pub(super) fn use_up_rings(&mut self, vm: &VmConfig) -> Result<(), MachineError> {
        let small = self.ring_entries == ring::LEAST && self.can_prefault();
        let Some(entries) = vm.dirty_ring().filter(|_| small) else { return Ok(()) };
        let pages = ring::ROOM - usize::from(entries);
        let gpa = |page: usize| Gpa::from_page(GFN + page as u64);
        let region =
            Region { slot: SPARE_SLOT, flags: KVM_MEM_LOG_DIRTY_PAGES, gpa: gpa(0), mapping: 0, page: 0, pages };
        for vcpu in &self.vcpus[..vm.vcpus().into()] {
            set_region(&self.fd, &self.own, region).doing("set the memslot that uses up dirty rings")?;
            let mapped = (0..pages).try_for_each(|page| vcpu.pre_fault(gpa(page)));
            delete_region(&self.fd, SPARE_SLOT).doing("delete the memslot that uses up dirty rings")?;
            mapped.doing("use up a dirty ring")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::or_skip;
    use crate::kvm::alias_method::AliasMethod;
    use gpa_model::{Exit, Program, text};

    /// Writes to more clean pages than the smallest ring has room for, and one more after a reset.
    fn program() -> Program {
        let mut lines = "gpafuzz-program 1\nvm stolen=40,41 vcpus=1 base=0x1e0 flush=works dirty-ring=8\n\
                         slot 0 create gfn=0x1e0 pages=64 hva=0 log-dirty\n"
            .to_owned();
        for n in 0..ring::ROOM + 8 {
            lines += &format!("v0 write {:#x}@{}\n", 0x1e0 + n % 64, n / 64);
        }
        lines += "dirty-get 0\ndirty-clear 0 gfn=0x1e0 pages=64\nv0 write 0x1e0\n";
        text::parse(&lines).expect("a program")
    }

    #[test]
    fn a_full_ring_stops_its_vcpu_until_its_entries_are_given_back() {
        let Some(mut machine) = or_skip(Machine::open_with(AliasMethod::Rings)) else { return };
        let small = Machine::create(AliasMethod::Rings, &[], &program().vm).expect("a machine");
        if small.ring_entries != ring::LEAST {
            return println!("SKIPPED: no ring is that small where the processor logs writes");
        }
        let trace = machine.run(&program()).expect("a run");
        let exits: Vec<Exit> = trace.observations.iter().flatten().copied().collect();
        let (writes, after) = exits[1..].split_at(ring::ROOM + 8);
        let went_on = writes.iter().take_while(|exit| matches!(exit, Exit::Memory(_))).count();
        // The write that takes the last entry waits, too: it is entered again after its fault.
        let expected = if machine.can_prefault() { 7 } else { ring::ROOM - 1 };
        assert_eq!(went_on, expected, "{writes:?}");
        assert!(writes[went_on..].iter().all(|exit| *exit == Exit::RingFull), "{writes:?}");
        assert!(matches!(after, [Exit::Dirty(_), Exit::Done, Exit::Memory(_)]), "{after:?}");
    }
}
