//! The mode that the guest runs in: long mode at CPL 3, with all segments flat.

use super::layout::{ROOTS, TABLE_GFN, TSS_PAGE, own_address};
use crate::host::memory::PAGE_BYTES;
use gpa_model::Gpa;
use kvm_bindings::{kvm_segment, kvm_sregs};

/// Makes the tables at `root`, whose entries may forbid execution, the guest's.
pub(crate) fn use_root(sregs: &mut kvm_sregs, root: Gpa) {
    const NXE: u64 = 1 << 11;
    sregs.cr3 = root.raw();
    sregs.efer |= NXE;
}

/// The same registers at CPL 0.
pub(crate) fn privileged(sregs: &kvm_sregs) -> kvm_sregs {
    let mut sregs = *sregs;
    (sregs.cs.selector, sregs.cs.dpl) = (0x10, 0);
    (sregs.ss.selector, sregs.ss.dpl) = (0x18, 0);
    sregs
}

/// Long mode at CPL 3, with root table A or B.
pub(crate) fn special_registers(sregs: &mut kvm_sregs, root: usize) {
    const PE_MP_ET_NE_PG: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 31;
    const PAE: u64 = 1 << 5;
    const LME_LMA: u64 = 1 << 8 | 1 << 10;
    sregs.cr0 = PE_MP_ET_NE_PG;
    sregs.cr2 = 0;
    sregs.cr3 = Gpa::from_page(TABLE_GFN + ROOTS[root % ROOTS.len()] as u64).raw();
    sregs.cr4 = PAE;
    sregs.efer = LME_LMA;
    let flat =
        kvm_segment { limit: u32::MAX, present: 1, dpl: 3, s: 1, g: 1, selector: 0x2b, type_: 3, ..Default::default() };
    sregs.cs = kvm_segment { selector: 0x33, type_: 11, l: 1, ..flat };
    (sregs.ss, sregs.ds, sregs.es) = (kvm_segment { db: 1, ..flat }, flat, flat);
    (sregs.fs, sregs.gs) = (flat, flat);
    // A busy 64-bit TSS: VM entry to long mode requires one.
    let (base, limit) = (own_address(TSS_PAGE), PAGE_BYTES as u32 - 1);
    sregs.tr = kvm_segment { base, limit, selector: 0x40, type_: 11, present: 1, ..Default::default() };
    sregs.ldt = kvm_segment { unusable: 1, ..Default::default() };
    (sregs.gdt.base, sregs.gdt.limit, sregs.idt.base, sregs.idt.limit) = (0, 0, 0, 0);
}
