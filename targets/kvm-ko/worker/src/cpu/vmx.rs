//! INVEPT and INVVPID, which KVM executes with an operand in memory.
//!
//! UNSAFETY: reads the instruction and its operand.

#![expect(unsafe_code, reason = "reads machine code and its operand")]

use super::format::ADDRESS;
use super::tlb;
use crate::context::Registers;
use crate::memory::physical;

/// The last byte of the opcode.
const INVEPT: u8 = 0x80;
/// Types: of one context; of all.
const ALL: u64 = 2;
/// Of INVVPID: one address of a VPID; a VPID, with or without what is global.
const ONE_ADDRESS: u64 = 0;

/// Forget what the instruction at `at` says: `66 0f 38`, [`INVEPT`] or INVVPID, and its operand. How many bytes it has.
pub(crate) fn invalidate(registers: &Registers<'_>, at: u64) -> u64 {
    let (operand, bytes) = registers.operand(at + 4);
    // SAFETY: an instruction of a module, with its operand, of two words, in memory of the kernel.
    let ([kind, modrm], first, second) = unsafe {
        (physical::read::<[u8; 2]>(at + 3), physical::read::<u64>(operand), physical::read::<u64>(operand + 8))
    };
    match (kind, registers.get(modrm >> 3 & 7)) {
        (INVEPT, ALL) => tlb::drop_all(),
        (INVEPT, _) => tlb::drop_tag(first & ADDRESS),
        // What is kept by VPID are linear addresses, of a guest whose tables KVM shadows.
        (_, ALL) => tlb::drop_all(),
        (_, ONE_ADDRESS) => tlb::remove(first & 0xffff, second),
        _ => tlb::drop_tag(first & 0xffff),
    }
    4 + bytes
}
