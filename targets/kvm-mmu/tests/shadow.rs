//! Whose page tables are shadowed, and who is told why theirs are not.

use gpa_model::{Access, Exit, Fault, FlushBackend, GuestPaging, Gva, Host, StolenMask, VmConfig};
use kvm_mmu::{Corrected, SecondStage, ShadowError};

/// What an access comes to in a VM without memory.
fn access(vm: &VmConfig) -> Result<Exit, ShadowError> {
    let mmu = SecondStage::<Corrected>::new(vm);
    mmu.guest_access(&Host::new(vm), &mut FlushBackend::default(), 0, (vm.gpa(0, 0), Gva::default()), Access::Read)
}

#[test]
fn a_guest_that_does_not_know_of_stolen_bits_is_refused_where_there_are_any() {
    for paging in GuestPaging::ALL {
        let vm = VmConfig::default().with_paging(paging);
        let knows = matches!(paging, GuestPaging::FourLevel | GuestPaging::FiveLevel | GuestPaging::Pae);
        let fault = Ok(Exit::GuestFault(Fault::NotPresent));
        let refused = if knows { fault } else { Err(ShadowError::StolenBits(paging)) };
        assert_eq!(access(&vm), refused, "{}", paging.name());
        let plain = vm.with_stolen(StolenMask::NONE).expect("no stolen bits are legal");
        assert_eq!(access(&plain), fault, "{}", paging.name());
    }
}

#[test]
fn a_refusal_says_what_would_do() {
    assert_eq!(
        ShadowError::StolenBits(GuestPaging::NestedEpt).to_string(),
        "nested-ept tables cannot be shadowed in a VM with stolen bits: use 4-level, 5-level or pae, or no stolen bits"
    );
}
