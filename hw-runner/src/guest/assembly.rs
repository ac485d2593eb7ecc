//! The machine code of the guests, assembled between labels, to be copied into their memory.
#![expect(unsafe_code, reason = "reads the code between symbols of the assembler")]

use super::layout::{NAME_BYTES, REQUEST_BYTES, control, request};
use super::page::STAMP;
use crate::host::memory::PAGE_BYTES;
use std::arch::global_asm;

/// The port that reports the end of a list.
pub(crate) const DONE_PORT: u16 = 0x10;
/// The port that reports a complaint.
pub(crate) const COMPLAINT_PORT: u16 = 0x11;

// The guest that carries out requests. r15 holds the address of its list. After the `out` it starts over; a list that
// follows one whose last access exited begins where that one ended.
global_asm!(
    ".pushsection .rodata.hw_runner_guest, \"a\"",
    ".globl hw_runner_requests, hw_runner_requests_next, hw_runner_requests_end",
    ".hidden hw_runner_requests, hw_runner_requests_next, hw_runner_requests_end",
    "hw_runner_requests:",
    "    mov rsi, r15",
    "hw_runner_requests_next:",
    "    mov eax, [rsi + {KIND}]",
    "    mov rdi, [rsi + {GVA}]",
    "    cmp eax, {READ}",
    "    jb .Lrequests_done", // request::END
    "    je .Lrequests_read",
    "    cmp eax, {WRITE}",
    "    je .Lrequests_write",
    "    call rdi", // request::EXECUTE: the page's stub returns its identity in eax.
    "    jmp .Lrequests_store",
    ".Lrequests_write:",
    "    mov rax, [rsi + {VALUE}]",
    "    mov [rdi], rax",
    "    cmp dword ptr [rsi + {EXITED}], 0",
    "    jne .Lrequests_store", // User space took the write, so there is no page to read.
    "    and rdi, {PAGE}",
    ".Lrequests_read:",
    "    mov eax, [rdi + {STAMP}]",
    ".Lrequests_store:",
    "    mov [rsi + {RESULT}], eax",
    "    mov dword ptr [rsi + {DONE}], 1",
    "    add rsi, {REQUEST_BYTES}",
    "    jmp hw_runner_requests_next",
    ".Lrequests_done:",
    "    out {DONE_PORT}, al",
    "    jmp hw_runner_requests",
    "hw_runner_requests_end:",
    ".popsection",
    KIND = const request::KIND,
    GVA = const request::GVA,
    VALUE = const request::VALUE,
    EXITED = const request::EXITED,
    RESULT = const request::RESULT,
    DONE = const request::DONE,
    READ = const request::READ,
    WRITE = const request::WRITE,
    STAMP = const STAMP,
    PAGE = const -(PAGE_BYTES as i64),
    REQUEST_BYTES = const REQUEST_BYTES,
    DONE_PORT = const DONE_PORT,
);

// The guest that spins. r15 is its control page, r14 its list of names, r12 the offset of its word in each page.
global_asm!(
    ".pushsection .rodata.hw_runner_guest, \"a\"",
    ".globl hw_runner_spinner, hw_runner_spinner_end",
    ".hidden hw_runner_spinner, hw_runner_spinner_end",
    "hw_runner_spinner:",
    "    mov rsi, r14",
    ".Lspinner_next:",
    "    mov rdi, [rsi]", // The name.
    "    test rdi, rdi",
    "    jz .Lspinner_again",
    "    mov rdx, [rsi + 16]", // The address of its floor.
    "    mov ecx, [rdx]",
    "    test ecx, ecx",
    "    jz .Lspinner_skip",
    "    mov eax, [rdi + {STAMP}]",
    "    cmp eax, ecx",
    "    jne .Lspinner_stale",
    "    cmp ecx, -1", // spinner::HOLE
    "    je .Lspinner_skip",
    "    inc r8",
    "    mov [rdi + r12], r8",
    "    mov r9, [rsi + 8]", // The other name.
    "    mov rax, [r9 + r12]",
    "    cmp rax, r8",
    "    jne .Lspinner_lost",
    "    mov rbp, [rsi + 24]", // The address of its published number.
    "    mov [rbp], r8",
    ".Lspinner_skip:",
    "    add rsi, {NAME_BYTES}",
    "    jmp .Lspinner_next",
    ".Lspinner_again:",
    "    inc qword ptr [r15 + {ROUNDS}]",
    "    cmp dword ptr [r15 + {STOP}], 0",
    "    je hw_runner_spinner",
    "    out {DONE_PORT}, al",
    "    jmp hw_runner_spinner",
    ".Lspinner_stale:",
    "    cmp [rdx], ecx",
    "    jne .Lspinner_skip", // The floor has changed meanwhile.
    "    mov edi, {STALE}",
    "    jmp .Lspinner_report",
    ".Lspinner_lost:",
    "    cmp [rdx], ecx",
    "    jne .Lspinner_skip",
    "    mov edi, {LOST}",
    "    mov rcx, r8",
    ".Lspinner_report:",
    "    mov [r15 + {KIND}], rdi",
    "    mov [r15 + {NAME}], rsi",
    "    mov [r15 + {EXPECTED}], rcx",
    "    mov [r15 + {FOUND}], rax",
    "    out {COMPLAINT_PORT}, al",
    "    jmp .Lspinner_skip",
    "hw_runner_spinner_end:",
    ".popsection",
    STAMP = const STAMP,
    NAME_BYTES = const NAME_BYTES,
    STOP = const control::STOP,
    ROUNDS = const control::ROUNDS,
    KIND = const control::KIND,
    NAME = const control::NAME,
    EXPECTED = const control::EXPECTED,
    FOUND = const control::FOUND,
    STALE = const control::STALE,
    LOST = const control::LOST,
    DONE_PORT = const DONE_PORT,
    COMPLAINT_PORT = const COMPLAINT_PORT,
);

// Code for CPL 0: invalidates each address of the list at rsi, which a 0 ends; or reloads CR3.
global_asm!(
    ".pushsection .rodata.hw_runner_guest, \"a\"",
    ".globl hw_runner_invalidate, hw_runner_reload, hw_runner_reload_end",
    ".hidden hw_runner_invalidate, hw_runner_reload, hw_runner_reload_end",
    "hw_runner_invalidate:",
    "    mov rdi, [rsi]",
    "    test rdi, rdi",
    "    jz .Linvalidate_done",
    "    invlpg [rdi]",
    "    add rsi, 8",
    "    jmp hw_runner_invalidate",
    ".Linvalidate_done:",
    "    out {DONE_PORT}, al",
    "hw_runner_reload:",
    "    mov rax, cr3",
    "    mov cr3, rax",
    "    out {DONE_PORT}, al",
    "hw_runner_reload_end:",
    ".popsection",
    DONE_PORT = const DONE_PORT,
);

// Guests that never exit, and that die.
#[cfg(test)]
global_asm!(
    ".pushsection .rodata.hw_runner_guest, \"a\"",
    ".globl hw_runner_hang, hw_runner_crash, hw_runner_crash_end",
    ".hidden hw_runner_hang, hw_runner_crash, hw_runner_crash_end",
    "hw_runner_hang:",
    "    jmp hw_runner_hang",
    "hw_runner_crash:",
    "    ud2",
    "hw_runner_crash_end:",
    ".popsection",
);

unsafe extern "C" {
    static hw_runner_requests: u8;
    static hw_runner_requests_next: u8;
    static hw_runner_requests_end: u8;
    static hw_runner_spinner: u8;
    static hw_runner_spinner_end: u8;
    static hw_runner_invalidate: u8;
    static hw_runner_reload: u8;
    static hw_runner_reload_end: u8;
    #[cfg(test)]
    static hw_runner_hang: u8;
    #[cfg(test)]
    static hw_runner_crash: u8;
    #[cfg(test)]
    static hw_runner_crash_end: u8;
}

/// The code that carries out requests.
pub(super) fn requests() -> &'static [u8] {
    // SAFETY: the labels delimit bytes of one section.
    unsafe { between(&raw const hw_runner_requests, &raw const hw_runner_requests_end) }
}

/// Where in [`requests`] the code goes on with the request at rsi.
pub(super) fn requests_next() -> u64 {
    (&raw const hw_runner_requests_next).addr() as u64 - (&raw const hw_runner_requests).addr() as u64
}

/// The code that spins.
pub(super) fn spinner() -> &'static [u8] {
    // SAFETY: the labels delimit bytes of one section.
    unsafe { between(&raw const hw_runner_spinner, &raw const hw_runner_spinner_end) }
}

/// The code for CPL 0, which starts by invalidating the list at rsi.
pub(super) fn privileged() -> &'static [u8] {
    // SAFETY: the labels delimit bytes of one section.
    unsafe { between(&raw const hw_runner_invalidate, &raw const hw_runner_reload_end) }
}

/// Where in [`privileged`] the code reloads CR3.
pub(super) fn reload() -> u64 {
    (&raw const hw_runner_reload).addr() as u64 - (&raw const hw_runner_invalidate).addr() as u64
}

/// Code that never exits.
#[cfg(test)]
pub(super) fn hang() -> &'static [u8] {
    // SAFETY: the labels delimit bytes of one section.
    unsafe { between(&raw const hw_runner_hang, &raw const hw_runner_crash) }
}

/// Code that raises an exception, for which there is no handler.
#[cfg(test)]
pub(super) fn crash() -> &'static [u8] {
    // SAFETY: the labels delimit bytes of one section.
    unsafe { between(&raw const hw_runner_crash, &raw const hw_runner_crash_end) }
}

/// The bytes from `start` to `end`.
///
/// # Safety
/// Both must be labels of one section, in this order.
unsafe fn between(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: the caller guarantees it; the section is read-only and lives as long as the process.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}
