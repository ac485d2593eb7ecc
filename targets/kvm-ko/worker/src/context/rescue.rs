//! A call into the kernel that comes back when the kernel dies: the stack is cut where it was entered.
//!
//! UNSAFETY: calls code by address, and leaves it by way of a signal's context.

#![expect(unsafe_code, reason = "calls code by address")]

use crate::alarm::{self, Alarm, AlarmKind};
use crate::loader;
use crate::single::Single;
use std::arch::global_asm;

/// The kernel died, in this call or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dead;

// rdi: where the stack pointer is kept; rsi: the function; rdx: its six arguments.
global_asm!(
    ".globl kvm_ko_call",
    "kvm_ko_call:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov [rdi], rsp",
    "mov rax, rsi",
    "mov r10, rdx",
    "mov rdi, [r10]",
    "mov rsi, [r10 + 8]",
    "mov rdx, [r10 + 16]",
    "mov rcx, [r10 + 24]",
    "mov r8, [r10 + 32]",
    "mov r9, [r10 + 40]",
    "call rax",
    ".globl kvm_ko_rescued",
    "kvm_ko_rescued:",
    "cld",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);

unsafe extern "C" {
    fn kvm_ko_call(stack: *mut u64, function: u64, arguments: *const [u64; 6]) -> u64;
    fn kvm_ko_rescued();
}

/// Where the stack pointer of the innermost call is kept; 0 outside of any.
static INNERMOST: Single<u64> = Single::new(0);

/// Call the kernel's function at `function`.
pub(crate) fn call(function: u64, arguments: &[u64]) -> Result<u64, Dead> {
    if alarm::is_dead() {
        return Err(Dead);
    }
    let mut six = [0; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    let mut stack = 0_u64;
    let outer = INNERMOST.set(&raw mut stack as u64);
    // SAFETY: a C function of the kernel. If it dies, its frames are dropped, which nothing refers to any more.
    let result = unsafe { kvm_ko_call(&raw mut stack, function, &raw const six) };
    INNERMOST.set(outer);
    if alarm::is_dead() { Err(Dead) } else { Ok(result) }
}

/// The innermost call of the thread that is left. The thread that comes has another.
pub(crate) fn exchange_innermost(of_next: u64) -> u64 {
    INNERMOST.set(of_next)
}

/// The stack pointer and the instruction at which the innermost call comes back, if there is one.
pub(crate) fn way_out() -> Option<(u64, u64)> {
    let at = INNERMOST.get();
    // SAFETY: of a call that has not returned.
    (at != 0).then(|| (unsafe { *(at as *const u64) }, kvm_ko_rescued as *const () as u64))
}

/// The kernel does not survive what it does now. Comes back from the innermost call.
pub(crate) fn die(kind: AlarmKind, text: &str) -> ! {
    let backtrace = loader::backtrace_here();
    let place = backtrace.first().cloned().unwrap_or_default();
    alarm::keep_fatal(&Alarm { kind, place, text: text.to_owned(), backtrace });
    let (stack, instruction) = way_out().unwrap_or_else(|| panic!("the kernel died outside of a call: {text}"));
    // SAFETY: where `kvm_ko_call` left its stack; the frames in between belong to code that is given up.
    unsafe { std::arch::asm!("mov rsp, {}", "jmp {}", in(reg) stack, in(reg) instruction, options(noreturn)) }
}
