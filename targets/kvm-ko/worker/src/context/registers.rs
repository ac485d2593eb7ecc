//! The registers of kernel code that was interrupted, and the operand in memory of its instruction.
//!
//! UNSAFETY: reads machine code.

#![expect(unsafe_code, reason = "reads machine code")]

use crate::memory::physical;
use libc::{
    REG_EFL, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX, REG_RBP, REG_RBX, REG_RCX,
    REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP,
};

/// Where each register is, in the order in which instructions number them.
const ORDER: [i32; 16] = [
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12,
    REG_R13, REG_R14, REG_R15,
];
/// CF and ZF, by which VMX says that something failed.
const FAILED: i64 = 0x41;

/// The registers.
#[derive(Debug)]
pub(crate) struct Registers<'a>(pub(super) &'a mut [i64; 23]);

impl Registers<'_> {
    /// Register `number`.
    pub(crate) fn get(&self, number: u8) -> u64 {
        self.0[ORDER[usize::from(number & 15)] as usize] as u64
    }

    /// The address of the operand in memory that the ModRM byte at `at` and what follows it say, and how many bytes they are. No
    /// prefix names another register, and no constant follows.
    pub(crate) fn operand(&self, at: u64) -> (u64, u64) {
        // SAFETY: an instruction of a module.
        let byte = |offset: u64| unsafe { physical::read::<u8>(at + offset) };
        let (mode, base) = (byte(0) >> 6, byte(0) & 7);
        let mut bytes = 1;
        let mut address = self.get(base);
        if base == 4 {
            let sib = byte(1);
            bytes += 1;
            let index = if sib >> 3 & 7 == 4 { 0 } else { self.get(sib >> 3 & 7) << (sib >> 6) };
            address = index + if sib & 7 == 5 && mode == 0 { 0 } else { self.get(sib & 7) };
        }
        // SAFETY: as above.
        let far = |offset: u64| i64::from(unsafe { physical::read::<i32>(at + offset) });
        match (mode, base) {
            (0, 5) => {
                bytes += 4;
                address = (at + bytes).wrapping_add_signed(far(1));
            }
            (1, _) => {
                address = address.wrapping_add_signed((byte(bytes) as i8).into());
                bytes += 1;
            }
            (2, _) => {
                address = address.wrapping_add_signed(far(bytes));
                bytes += 4;
            }
            _ => {}
        }
        (address, bytes)
    }

    /// Go on at `address`, after an instruction that has succeeded.
    pub(super) fn succeed(&mut self, address: u64) {
        self.0[REG_EFL as usize] &= !FAILED;
        self.0[REG_RIP as usize] = address as i64;
    }
}
