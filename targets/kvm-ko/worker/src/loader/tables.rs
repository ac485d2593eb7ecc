//! Tables that the compiler leaves in a module: where code may fault, and what `WARN()` and `BUG()` say.
//!
//! UNSAFETY: reads the tables, and what they point to.

#![expect(unsafe_code, reason = "reads tables of modules")]

use super::low::Low;
use super::module::Module;
use crate::memory::physical;

/// Bytes of an entry of `__ex_table`: where, where to go on, how.
const EXCEPTION: u64 = 12;
/// A flag of a `struct bug_entry`: `BUGFLAG_WARNING`.
const IS_WARNING: u16 = 1;

/// What stands at an undefined instruction of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// `WARN()`; otherwise `BUG()`.
    pub(crate) survives: bool,
    /// File and line.
    pub(crate) place: String,
}

/// Where code goes on that faults at `address` and may.
pub(crate) fn fixup(modules: &[Module], address: u64) -> Option<u64> {
    entries(modules, "__ex_table", EXCEPTION).find_map(|at| {
        // SAFETY: an entry of the table.
        let (fault, rest): (i32, i32) = unsafe { (physical::read(at), physical::read(at + 4)) };
        (at.wrapping_add_signed(fault.into()) == address).then(|| (at + 4).wrapping_add_signed(rest.into()))
    })
}

/// Where the code of a module may fault, with its first bytes. Instructions of SVM and VMX are among them, because they fault where
/// virtualisation is switched off while they are on their way.
pub(crate) fn may_fault(module: &Module) -> Vec<(u64, [u8; 16])> {
    let entries = entries(std::slice::from_ref(module), "__ex_table", EXCEPTION);
    entries
        .map(|at| {
            // SAFETY: an entry of the table, and code.
            let code = at.wrapping_add_signed(unsafe { physical::read::<i32>(at) }.into());
            (code, unsafe { physical::read(code) })
        })
        .collect()
}

/// What the kernel says at `address`, if an undefined instruction stands there for that. An entry of `__bug_table` has `size` bytes.
pub(crate) fn warning_at(modules: &[Module], address: u64, size: u64) -> Option<Warning> {
    entries(modules, "__bug_table", size).find_map(|at| {
        // SAFETY: an entry of the table: where, since 6.19 a format, the file, its line, flags.
        let (code, file): (i32, u64) = unsafe { (physical::read(at), at + size - 8) };
        if at.wrapping_add_signed(code.into()) != address {
            return None;
        }
        // SAFETY: as above; the file is a string.
        let (name, line, flags) = unsafe {
            let name = file.wrapping_add_signed(physical::read::<i32>(file).into());
            (
                std::ffi::CStr::from_ptr(name as *const _),
                physical::read::<u16>(file + 4),
                physical::read::<u16>(file + 6),
            )
        };
        let place = format!("{}:{line}", name.to_string_lossy());
        Some(Warning { survives: flags & IS_WARNING != 0, place })
    })
}

/// Let what warns once a boot warn again.
pub(crate) fn rearm_once(modules: &[Module]) {
    for section in modules.iter().filter_map(|module| module.section(".data..once")) {
        Low::copy(section.at, &vec![0; section.size as usize]);
    }
}

fn entries(modules: &[Module], table: &'static str, size: u64) -> impl Iterator<Item = u64> {
    let sections = modules.iter().filter_map(move |module| module.section(table));
    sections.flat_map(move |section| (section.at..section.at + section.size).step_by(size as usize))
}
