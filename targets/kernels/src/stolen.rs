//! Stolen GPA bits in the real kernel: a port of the patches of the RFC to Linux 6.12 and 7.3, as a script of [`Edit`]s.
//!
//! The mask is that of the module parameter `stolen_gpa_mask` when a VM is created. [`Design::Posted`] does what the patches do,
//! and has their gaps; [`Design::Fixed`] closes those gaps that a kernel in a lab can show. Everything else is the same in both,
//! and with the mask 0 nothing differs from the stock kernel.
//!
//! Beside the port the script adds instruments.

mod fixed;
mod instruments;
mod mutants;
mod port;

pub use mutants::{MUTANTS, Mutant};

use crate::edits::{Edit, Rewrite};

/// Which design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// That of the patches as posted.
    Posted,
    /// With their gaps closed.
    Fixed,
}

const HOST: &str = "arch/x86/include/asm/kvm_host.h";
const MMU_H: &str = "arch/x86/kvm/mmu.h";
const MMU: &str = "arch/x86/kvm/mmu/mmu.c";
const INTERNAL: &str = "arch/x86/kvm/mmu/mmu_internal.h";
const PAGING: &str = "arch/x86/kvm/mmu/paging_tmpl.h";
const VMX: &str = "arch/x86/kvm/vmx/vmx.c";
const X86: &str = "arch/x86/kvm/x86.c";
const MAIN: &str = "virt/kvm/kvm_main.c";
const DEBUGFS: &str = "arch/x86/kvm/debugfs.c";

const fn edit(file: &'static str, within: &'static str, rewrite: Rewrite) -> Edit {
    Edit { file, within, rewrite }
}

/// The first number of the version of the kernel from which on edits have their later form. Between the two versions that the script is
/// tried on an edit may not find its place, and then says so.
const LATER: u32 = 7;

/// The script of `design` for a kernel of `version`, such as `6.12`, with the change of `mutant` at its end.
pub fn script(version: &str, design: Design, mutant: Option<&Mutant>) -> Vec<Edit> {
    let number = version.split('.').next().and_then(|number| number.parse::<u32>().ok());
    let later = number.is_some_and(|number| number >= LATER);
    let common: &[Edit] = if later { &port::COMMON_7 } else { &port::COMMON_6 };
    let instruments: &[Edit] = if later { &instruments::EDITS_7 } else { &instruments::EDITS_6 };
    let [own, form]: [&[Edit]; 2] = match (design, later) {
        (Design::Posted, false) => [&port::POSTED, &port::POSTED_6],
        (Design::Posted, true) => [&port::POSTED, &port::POSTED_7],
        (Design::Fixed, false) => [&fixed::FIXED, &fixed::FIXED_6],
        (Design::Fixed, true) => [&fixed::FIXED, &fixed::FIXED_7],
    };
    let mutant = mutant.map_or(&[][..], |mutant| mutant.edits);
    [&port::COMMON, common, instruments, &instruments::EDITS, own, form, mutant].concat()
}
