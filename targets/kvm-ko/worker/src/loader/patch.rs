//! Code that the kernel patches: static calls, jump labels; and what is patched to put this program in the processor's place.
//!
//! Alternatives stay as compiled: they are made for a processor with few features.
//!
//! UNSAFETY: reads tables, keys and machine code of modules.

#![expect(unsafe_code, reason = "reads tables, keys and machine code of modules")]

use super::low::Low;
use super::module::Module;
use super::symbols::unanswered;
use crate::memory::physical;
use crate::single::Single;
use std::collections::BTreeMap;

const NOP_5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
const NOP_2: [u8; 2] = [0x66, 0x90];

/// A function of a module that is replaced, or watched.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    /// Each call goes to this address instead.
    Instead(u64),
    /// Code of [`Low::tracer`] is called first.
    Before(u64),
}

/// Let the trampoline of a static call go to `function`; to nothing if that is 0.
pub(crate) fn static_call(trampoline: u64, function: u64) {
    if function == 0 {
        Low::copy(trampoline, &[0xc3]);
    } else {
        Low::copy(trampoline, &jump(0xe9, trampoline, function));
    }
}

/// A call or jump at `at` to `target`.
fn jump(opcode: u8, at: u64, target: u64) -> [u8; 5] {
    let distance = (target.wrapping_sub(at + 5) as u32).to_le_bytes();
    [opcode, distance[0], distance[1], distance[2], distance[3]]
}

/// Put a hook at the entry of `function`.
///
/// # Errors
/// If its code does not begin as that of a function that can be traced does.
pub(crate) fn redirect(function: u64, hook: Hook) -> Result<(), String> {
    match hook {
        Hook::Instead(target) => Low::copy(function, &jump(0xe9, function, target)),
        Hook::Before(target) => {
            // SAFETY: code of a module.
            let at = (0..8).map(|skip| function + skip).find(|at| unsafe { physical::read::<[u8; 5]>(*at) } == NOP_5);
            let at = at.ok_or_else(|| "it has no call of __fentry__".to_owned())?;
            Low::copy(at, &jump(0xe8, at, target));
        }
    }
    Ok(())
}

/// One entry of `__jump_table`: `struct jump_entry`.
#[derive(Clone, Copy)]
#[repr(C)]
struct JumpEntry {
    code: i32,
    target: i32,
    key: i64,
}

/// The key of an entry has two flags: what it is when the key is off, and whether its code is freed.
const KEY_FLAGS: u64 = 3;

/// The places in code that depend on a key, by the key.
static PLACES: Single<BTreeMap<u64, Vec<u64>>> = Single::new(BTreeMap::new());

/// Find the places in the code of `modules` that depend on keys, and make all as they should be.
pub(crate) fn jump_labels(modules: &[Module]) {
    let mut places: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for table in modules.iter().filter_map(|module| module.section("__jump_table")) {
        for at in (table.at..table.at + table.size).step_by(size_of::<JumpEntry>()) {
            // SAFETY: an entry of the table.
            let entry: JumpEntry = unsafe { physical::read(at) };
            let key = (at + 8).wrapping_add_signed(entry.key & !(KEY_FLAGS as i64));
            // A key that nothing defines is off, as compiled.
            if unanswered(key).is_none() {
                places.entry(key).or_default().push(at);
            }
        }
    }
    let keys: Vec<u64> = places.keys().copied().collect();
    PLACES.set(places);
    keys.into_iter().for_each(jump_label);
}

/// Make all code that depends on `key` as it should be.
pub(crate) fn jump_label(key: u64) {
    for at in PLACES.borrow().get(&key).into_iter().flatten().copied() {
        // SAFETY: an entry of a table.
        let entry: JumpEntry = unsafe { physical::read(at) };
        let (code, target) =
            (at.wrapping_add_signed(entry.code.into()), (at + 4).wrapping_add_signed(entry.target.into()));
        // SAFETY: a `struct static_key` begins with its count; and code of a module.
        let (enabled, opcode) = unsafe { (physical::read::<i32>(key) > 0, physical::read::<u8>(code)) };
        let jumps = enabled != (entry.key & 1 != 0);
        match (opcode, jumps) {
            (0xeb | 0x66, true) => Low::copy(code, &[0xeb, (target.wrapping_sub(code + 2)) as u8]),
            (0xeb | 0x66, false) => Low::copy(code, &NOP_2),
            (_, true) => Low::copy(code, &jump(0xe9, code, target)),
            (_, false) => Low::copy(code, &NOP_5),
        }
    }
}

/// Remove the privileged instruction at `at`, if it is one that this program can do without: a move from a control register gives 0,
/// one to it does nothing. Where code goes on.
pub(crate) fn remove_privileged(at: u64) -> Option<u64> {
    if !Low::holds(at) {
        return None;
    }
    // SAFETY: code of a module.
    let [first, second, modrm]: [u8; 3] = unsafe { physical::read(at) };
    let register = modrm & 7;
    match (first, second) {
        // xor %reg, %reg; nop
        (0x0f, 0x20) => Low::copy(at, &[0x31, 0xc0 | register << 3 | register, 0x90]),
        (0x0f, 0x22) => Low::copy(at, &[0x0f, 0x1f, 0x00]),
        _ => return None,
    }
    Some(at)
}
