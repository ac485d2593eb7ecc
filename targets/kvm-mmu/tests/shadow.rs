//! Which guests' page tables are shadowed, and that a shadow is synchronised before it is linked.

use gpa_model::{Access, Exit, Fault, FlushBackend, GuestPaging, Gva, Host, StolenMask, VmConfig, text};
use gpa_oracles::Lockstep;
use kvm_mmu::{Corrected, KvmMmu, Mistake, Policy, SecondStage, ShadowError};

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

/// Makes the mistake that 65855ed8b034 mends.
#[derive(Debug, Default)]
struct LinkedWithoutSync;

impl Policy for LinkedWithoutSync {
    fn plants(&self, of: Mistake) -> bool {
        of == Mistake::LinkedWithoutSync
    }
}

#[test]
fn a_table_that_is_linked_over_one_out_of_step_is_objected_to() {
    let program = text::parse(include_str!("../../../corpus/seeds/good_table_linked_over_one_out_of_step.prog"));
    let program = program.expect("a program of the corpus");
    let violation = Lockstep::default().run(&mut KvmMmu::<LinkedWithoutSync>::default(), &program);
    let signature = violation.expect("an objection").signature;
    assert_eq!((signature.oracle, signature.clause), ("gfn_unalias", "exit"));
    assert!(Lockstep::default().run(&mut KvmMmu::<Corrected>::default(), &program).is_none());
}
