//! Host pages that nobody can have, such as one whose memory failed: whoever needs one is told, by whatever name, and nothing is
//! mapped or logged for it.

use gpa_model::{Access, Exit, FlushBackend, HostPage, Pfn, SlotChange, SlotFlags, SlotId, VmConfig};
use kvm_mmu::{Corrected, DirectMirror, HasPolicy, HostPages, PfnError, SecondStage};

/// Every page but the second.
struct Failed;

impl HostPages for Failed {
    fn pfn(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        if hva.page() == 1 { Err(PfnError::NoPage) } else { Ok(Pfn::new(hva.page() as u32 + 100)) }
    }
}

const SLOT: SlotId = SlotId::user(0);

fn machine<P: HasPolicy + Default>(vm: &VmConfig, log_dirty: bool) -> (SecondStage<P>, FlushBackend) {
    let (mmu, mut tlb) = (SecondStage::new(vm), FlushBackend::default());
    let flags = SlotFlags { readonly: false, log_dirty };
    let create = SlotChange::Create { gfn: vm.base(), pages: 4, hva: vm.hva(0), flags };
    mmu.set_memslot(SLOT, create, &mut tlb).expect("a legal memslot");
    (mmu, tlb)
}

/// Also where the guest could be told to wait: there is nothing to wait for.
fn every_access_fails<P: HasPolicy + Default>() {
    for vm in [VmConfig::default(), VmConfig::default().with_async_pf(true)] {
        let (mmu, mut tlb) = machine::<P>(&vm, false);
        for gpa in [vm.gpa(1, 0), vm.gpa(1, 1)] {
            for access in Access::ALL {
                assert_eq!(mmu.access(&Failed, &mut tlb, 0, gpa, access), Exit::Error, "{gpa:?}");
            }
            assert_eq!(mmu.walk(gpa), None);
        }
        assert_eq!(mmu.prefault(&Failed, &mut tlb, 0, vm.gpa(1, 0)), Exit::Error);
        assert_eq!(mmu.access(&Failed, &mut tlb, 0, vm.gpa(2, 1), Access::Write), Exit::Memory(Pfn::new(102)));
    }
}

#[test]
fn every_access_to_such_a_page_fails() {
    every_access_fails::<Corrected>();
    every_access_fails::<DirectMirror>();
}

#[test]
fn it_is_left_out_when_its_neighbours_are_prefetched() {
    let vm = VmConfig::default();
    let (mmu, mut tlb) = machine::<Corrected>(&vm, false);
    assert_eq!(mmu.access(&Failed, &mut tlb, 0, vm.gpa(0, 1), Access::Read), Exit::Memory(Pfn::new(100)));
    let mapped = [0, 1, 2, 3].map(|frame| mmu.walk(vm.gpa(frame, 1)).is_some());
    assert_eq!(mapped, [true, false, true, true]);
}

#[test]
fn a_tracked_write_to_it_is_neither_emulated_nor_logged() {
    let vm = VmConfig::default();
    let (mmu, mut tlb) = machine::<Corrected>(&vm, true);
    for frame in [1, 2] {
        mmu.track(vm.gfn(frame), &mut tlb);
    }
    let mut write = |frame| mmu.access(&Failed, &mut tlb, 0, vm.gpa(frame, 1), Access::Write);
    assert_eq!(write(1), Exit::Error);
    assert_eq!(write(2), Exit::Emulated(Pfn::new(102)));
    assert_eq!(mmu.dirty_frames(SLOT).iter().collect::<Vec<_>>(), [2]);
}
