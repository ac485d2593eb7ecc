//! Putting the processor into a module: its privileged instructions become code of this program.
//!
//! UNSAFETY: reads machine code and the kernel's structures.

#![expect(unsafe_code, reason = "reads machine code and the kernel's structures")]

use super::load::{LoadError, absent, constant};
use crate::context;
use crate::cpu;
use crate::loader::{self, Hook, Low, Module, Symbols};
use crate::memory::physical;
use crate::single::Single;

/// CLGI, STGI, VMLOAD, VMSAVE and the like: three bytes, without an effect here.
const SVM: std::ops::RangeInclusive<u8> = 0xd8..=0xdf;
/// INVLPGA, the last byte.
const INVLPGA: u8 = 0xdf;

/// `__svm_vcpu_run()` becomes the processor, and the instructions of SVM go.
pub(super) fn put_svm(module: &Module, symbols: &Symbols) -> Result<(), LoadError> {
    instead(module, symbols, "__svm_vcpu_run", "worker_svm_vcpu_run")?;
    for (at, code) in loader::may_fault(module) {
        match code {
            [0x0f, 0x01, INVLPGA, ..] => context::instruction(at, cpu::invalidate_page),
            [0x0f, 0x01, last, ..] if SVM.contains(&last) => Low::copy(at, &[0x0f, 0x1f, 0x00]),
            _ => {}
        }
    }
    Ok(())
}

/// `__vmx_vcpu_run()` becomes the processor, the VMCS an array, and other instructions of VMX succeed.
pub(super) fn put_vmx(module: &Module, symbols: &Symbols, low: &mut Low) -> Result<(), LoadError> {
    instead(module, symbols, "__vmx_vcpu_run", "worker_vmx_vcpu_run")?;
    let address = |name: &str| symbols.address(name).ok_or_else(|| absent(name));
    let (read, write) = (address("worker_vmread")?, address("worker_vmwrite")?);
    for (at, code) in loader::may_fault(module) {
        match code {
            [0x66, 0x0f, 0x38, 0x80 | 0x81, ..] => context::instruction(at, cpu::invalidate_context),
            // VMXOFF; VMCLEAR and VMXON; VMPTRLD.
            [0x0f, 0x01, 0xc4, ..] => succeed(at, 3),
            [0x66 | 0xf3, 0x0f, 0xc7, modrm, ..] if modrm >> 3 & 7 == 6 => succeed(at, 3 + operand_bytes(&code[3..])),
            [0x0f, 0xc7, modrm, ..] if modrm >> 3 & 7 == 6 => succeed(at, 2 + operand_bytes(&code[2..])),
            _ => {
                if let Some(access) = FieldAccess::decode(at, &code) {
                    access.put(low, read, write);
                }
            }
        }
    }
    fetch_from_here(symbols, low)
}

fn instead(module: &Module, symbols: &Symbols, name: &str, ours: &str) -> Result<(), LoadError> {
    let function = module.symbol(name).ok_or_else(|| absent(name))?;
    let ours = symbols.address(ours).ok_or_else(|| absent(ours))?;
    loader::redirect(function, Hook::Instead(ours)).map_err(LoadError)
}

/// How many bytes a ModRM byte and what follows it are, for an operand in memory.
fn operand_bytes(code: &[u8]) -> usize {
    let (mode, base) = (code[0] >> 6, code[0] & 7);
    let sib = usize::from(base == 4);
    1 + sib + if mode == 2 || mode == 0 && base == 5 { 4 } else { usize::from(mode == 1) }
}

/// An instruction that says in CF and ZF that it has failed: `test %esp, %esp` clears both.
fn succeed(at: u64, bytes: usize) {
    let mut code = vec![0x90; bytes];
    code[..2].copy_from_slice(&[0x85, 0xe4]);
    Low::copy(at, &code);
}

/// A VMREAD or VMWRITE with registers, and the branch on its success that follows it.
struct FieldAccess {
    at: u64,
    writes: bool,
    /// The register that names the field, and that of the value.
    field: u8,
    value: u8,
    /// Where code goes on.
    next: u64,
}

impl FieldAccess {
    fn decode(at: u64, code: &[u8; 16]) -> Option<Self> {
        let has_rex = code[0] & 0xf0 == 0x40;
        let (rex, code) = if has_rex { (code[0], &code[1..]) } else { (0, &code[..]) };
        let [0x0f, opcode @ (0x78 | 0x79), modrm, ref branch @ ..] = *code else { return None };
        // Some compilers are asked for a hint before the branch.
        let hint = usize::from(matches!(branch[0], 0x2e | 0x3e));
        let after = at + u64::from(has_rex) + 3 + hint as u64;
        let next = match branch[hint..] {
            // ja, to where it has succeeded.
            [0x77, near, ..] => (after + 2).wrapping_add_signed((near as i8).into()),
            [0x0f, 0x87, a, b, c, d, ..] => (after + 6).wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into()),
            // jbe, to where it has not.
            [0x76, ..] => after + 2,
            [0x0f, 0x86, ..] => after + 6,
            _ => return None,
        };
        let (field, value) = (modrm >> 3 & 7 | (rex & 4) << 1, modrm & 7 | (rex & 1) << 3);
        (modrm >> 6 == 3).then_some(Self { at, writes: opcode == 0x79, field, value, next })
    }

    /// Jump to code that makes the access by the functions `read` and `write`, and goes on.
    fn put(&self, low: &mut Low, read: u64, write: u64) {
        let register = |opcode: u8, number: u8| {
            let prefix = (number >= 8).then_some(0x41);
            prefix.into_iter().chain([opcode | number & 7]).collect::<Vec<u8>>()
        };
        let (push, pop) = (0x50, 0x58);
        let place = low.alloc(32, 16);
        let branch = |opcode: u8, from: u64, to: u64| {
            let distance = to.wrapping_sub(from + 5) as u32;
            [[opcode].as_slice(), &distance.to_le_bytes()].concat()
        };
        let mut code = Vec::new();
        if self.writes {
            code.extend(register(push, self.value));
        }
        code.extend(register(push, self.field));
        code.extend(branch(0xe8, place + code.len() as u64, if self.writes { write } else { read }));
        if self.writes {
            // lea 16(%rsp), %rsp
            code.extend([0x48, 0x8d, 0x64, 0x24, 0x10]);
        } else {
            code.extend(register(pop, self.value));
        }
        code.extend(branch(0xe9, place + code.len() as u64, self.next));
        Low::copy(place, &code);
        Low::copy(self.at, &branch(0xe9, self.at, place));
    }
}

/// The instruction that was given to KVM last, and where a vCPU has its number.
static FETCHED: Single<([u8; 16], u64)> = Single::new(([0; 16], 0));

/// VMX hands over no instruction, and there is none in the guest's memory: the emulator is given the one that the guest is at.
fn fetch_from_here(symbols: &Symbols, low: &mut Low) -> Result<(), LoadError> {
    FETCHED.set(([0; 16], constant(symbols, "worker_vcpu_id")?));
    let name = "x86_emulate_instruction";
    let function = symbols.address(name).ok_or_else(|| absent(name))?;
    let code = low.adjuster(give_instruction as extern "C" fn(*mut [u64; 7]) as *const () as u64);
    loader::redirect(function, Hook::Before(code)).map_err(|why| LoadError(format!("expected to watch {name}: {why}")))
}

/// `x86_emulate_instruction(vcpu, address, type, instruction, bytes)`, whose arguments these are in reverse, after RAX and R9.
extern "C" fn give_instruction(arguments: *mut [u64; 7]) {
    // SAFETY: of the code that calls this.
    let [_, _, bytes, instruction, _, _, vcpu] = unsafe { &mut *arguments };
    if *bytes != 0 {
        return;
    }
    let mut fetched = FETCHED.borrow();
    // SAFETY: a `struct kvm_vcpu`.
    let number: u32 = unsafe { physical::read(*vcpu + fetched.1) };
    if let Some(code) = cpu::instruction_of(number) {
        fetched.0[..code.len()].copy_from_slice(&code);
        (*bytes, *instruction) = (code.len() as u64, (&raw const fetched.0) as u64);
    }
}
