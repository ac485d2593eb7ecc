//! Addresses as functions: of one, and of all on a stack that look like return addresses.
//!
//! UNSAFETY: reads a stack.

#![expect(unsafe_code, reason = "reads a stack")]

use super::low::Low;
use super::module::Module;
use super::with_modules;
use crate::memory::{physical, stack};

/// Words of a stack that are looked at, and functions that are named.
const WORDS: u64 = 1024;
const FUNCTIONS: usize = 32;

/// The function at `address`, as `kvm_mmu_zap_all+0x1c [kvm]`.
pub(crate) fn name_of(address: u64) -> String {
    with_modules(|modules| function(modules, address)).unwrap_or_else(|| format!("{address:#x}"))
}

fn function(modules: &[Module], address: u64) -> Option<String> {
    modules.iter().find_map(|module| {
        let (name, offset) = module.function_at(address)?;
        Some(format!("{name}+{offset:#x} [{}]", module.name))
    })
}

/// Functions whose return addresses lie on the stack from `stack` on, innermost first.
pub(crate) fn backtrace(stack: u64) -> Vec<String> {
    let limit = stack::end().min(stack + WORDS * 8);
    with_modules(|modules| {
        let words = (stack.next_multiple_of(8)..limit).step_by(8);
        // SAFETY: between the stack pointer and the end of the stack.
        let addresses = words.map(|at| unsafe { physical::read::<u64>(at) }).filter(|address| Low::holds(*address));
        addresses.filter_map(|address| function(modules, address)).take(FUNCTIONS).collect()
    })
}

/// The same of the stack as it is here.
#[inline(never)]
pub(crate) fn backtrace_here() -> Vec<String> {
    let here = 0_u64;
    backtrace(&raw const here as u64)
}
