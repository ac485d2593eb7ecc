//! Software-protected VMs, whose memory is private by attribute. Distributions leave them out of KVM; all that they need is in it for
//! SEV's sake, and so the option itself is the only change.

use crate::edits::{Edit, Rewrite};

/// What the runner calls aliases in such a VM.
pub const REALISATION: &str = "sw-protected";

/// KVM with `CONFIG_KVM_SW_PROTECTED_VM`.
pub const SCRIPT: [Edit; 2] = [enable("arch/x86/kvm/x86.c"), enable("arch/x86/kvm/mmu/mmu.c")];

const fn enable(file: &'static str) -> Edit {
    Edit { file, within: "", rewrite: Rewrite::Replace("IS_ENABLED(CONFIG_KVM_SW_PROTECTED_VM)", "true") }
}
