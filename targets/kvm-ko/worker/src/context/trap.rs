//! Exceptions of kernel code, as signals: `WARN()` and `BUG()`, code that may fault, instructions that the worker carries out, and all
//! others, of which the kernel dies.
//!
//! UNSAFETY: handles signals, and changes the registers of what was interrupted.

#![expect(unsafe_code, reason = "handles signals")]

use super::registers::Registers;
use super::rescue;
use crate::alarm::{self, Alarm, AlarmKind};
use crate::loader::{self, Low};
use crate::memory::{HVA, HVA_BYTES, UNANSWERED};
use crate::single::Single;
use libc::{REG_RIP, REG_RSP, c_int, siginfo_t, ucontext_t};
use std::collections::BTreeMap;

/// What is done for an instruction at an address that the kernel may not execute here: how many bytes it has.
pub(crate) type Instruction = fn(&Registers<'_>, at: u64) -> u64;

struct Traps {
    /// Bytes of an entry of `__bug_table`.
    bug_entry: u64,
    /// Where code of this program for user access may fault, and where it then goes on.
    user_access: (u64, u64, u64),
    instructions: BTreeMap<u64, Instruction>,
}

static TRAPS: Single<Traps> =
    Single::new(Traps { bug_entry: 12, user_access: (0, 0, 0), instructions: BTreeMap::new() });

/// Bytes of the stack that signals are handled on: symbols are looked up there.
const STACK: usize = 256 << 10;

/// Handle signals from now on. `user_access` are the first and last address of code that may fault, and where it goes on then.
pub(crate) fn install(bug_entry: u64, user_access: (u64, u64, u64)) {
    {
        let mut traps = TRAPS.borrow();
        (traps.bug_entry, traps.user_access) = (bug_entry, user_access);
    }
    let stack = Vec::leak(vec![0_u8; STACK]);
    let alternative = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: the stack lives as long as the process; the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        libc::sigaltstack(&raw const alternative, std::ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for signal in [libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGTRAP] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Let `action` stand for the instruction at `at`, whose first two bytes are lost.
pub(crate) fn instruction(at: u64, action: Instruction) {
    Low::copy(at, &[0x0f, 0x0b]);
    TRAPS.borrow().instructions.insert(at, action);
}

extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut ucontext_t) {
    // SAFETY: of the kernel that this process runs on.
    let (registers, address) = unsafe { (&mut (*context).uc_mcontext.gregs, (*info).si_addr() as u64) };
    let at = registers[REG_RIP as usize] as u64;
    let instruction = TRAPS.borrow().instructions.get(&at).copied().filter(|_| signal == libc::SIGILL);
    if let Some(action) = instruction {
        let mut registers = Registers(registers);
        let bytes = action(&registers, at);
        registers.succeed(at + bytes);
        return;
    }
    if let Some(next) = go_on(signal, at, registers) {
        registers[REG_RIP as usize] = next as i64;
        return;
    }
    alarm::keep_fatal(&describe(signal, at, address, registers[REG_RSP as usize] as u64));
    let Some((stack, instruction)) = rescue::way_out() else {
        eprintln!("kvm-ko-worker: signal {signal} at {at:#x}, address {address:#x}, outside of the kernel");
        std::process::abort();
    };
    registers[REG_RSP as usize] = stack as i64;
    registers[REG_RIP as usize] = instruction as i64;
}

/// Where what was interrupted at `at` goes on, if it can.
fn go_on(signal: c_int, at: u64, registers: &[i64; 23]) -> Option<u64> {
    if signal == libc::SIGILL {
        let size = TRAPS.borrow().bug_entry;
        let warning =
            loader::with_modules(|modules| loader::warning_at(modules, at, size)).filter(|found| found.survives)?;
        let backtrace = named(at, registers[REG_RSP as usize] as u64);
        let place = format!("{} at {}", loader::name_of(at), warning.place);
        alarm::keep(Alarm { kind: AlarmKind::Warn, place, text: String::new(), backtrace });
        // UD2 is two bytes.
        return Some(at + 2);
    }
    if signal != libc::SIGSEGV && signal != libc::SIGBUS {
        return None;
    }
    let (first, last, next) = TRAPS.borrow().user_access;
    if (first..last).contains(&at) {
        return Some(next);
    }
    loader::with_modules(|modules| loader::fixup(modules, at)).or_else(|| loader::remove_privileged(at))
}

fn named(at: u64, stack: u64) -> Vec<String> {
    let mut names = vec![loader::name_of(at)];
    names.extend(loader::backtrace(stack));
    names
}

fn describe(signal: c_int, at: u64, address: u64, stack: u64) -> Alarm {
    if let Some(symbol) = loader::unanswered(at).or_else(|| loader::unanswered(address)) {
        let backtrace = loader::backtrace(stack);
        let how = if at & !0xf_ffff == UNANSWERED { "called" } else { "used" };
        let place = backtrace.first().cloned().unwrap_or_default();
        let text = format!("{symbol} was {how}, and nothing here answers it");
        return Alarm { kind: AlarmKind::Unanswered, place, text, backtrace };
    }
    let size = TRAPS.borrow().bug_entry;
    let bug = loader::with_modules(|modules| loader::warning_at(modules, at, size)).filter(|_| signal == libc::SIGILL);
    let (kind, text) = match bug {
        Some(bug) => (AlarmKind::Bug, format!("BUG() at {}", bug.place)),
        None => (AlarmKind::Oops, fault(signal, address)),
    };
    Alarm { kind, place: loader::name_of(at), text, backtrace: named(at, stack) }
}

/// Addresses differ from one kernel to the next, so only what kind of address it is is told.
fn fault(signal: c_int, address: u64) -> String {
    let what = match (signal, address) {
        (libc::SIGSEGV | libc::SIGBUS, 0..0x1_0000) => format!("an access {address:#x} bytes from a null pointer"),
        (libc::SIGSEGV | libc::SIGBUS, HVA..) if address < HVA + HVA_BYTES => "an access to user memory".to_owned(),
        (libc::SIGSEGV, _) => {
            "a general protection fault, as of a pointer that was read from freed memory, or an access to no memory"
                .to_owned()
        }
        (libc::SIGBUS, _) => "an access to no memory".to_owned(),
        (libc::SIGFPE, _) => "a division by zero".to_owned(),
        (libc::SIGILL, _) => "an undefined instruction".to_owned(),
        _ => format!("signal {signal}"),
    };
    format!("Oops: {what}")
}
