//! Functions with conventions of their own, which only machine code can answer.
//!
//! UNSAFETY: machine code.

#![expect(unsafe_code, reason = "machine code")]

use crate::loader::Answer;
use std::arch::global_asm;

/// `__x86_indirect_thunk_rax` and so on: a jump to what the register holds.
macro_rules! indirect {
    ($($register:literal),*) => {
        global_asm!($(concat!(".globl kvm_ko_thunk_", $register, "\nkvm_ko_thunk_", $register, ": jmp ", $register),)*);
    };
}

indirect!("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15");

// `__get_user_N`: from [rax] to rdx; `__put_user_N`: from rax to [rcx]. The result is in eax and ecx; -14 is EFAULT. What faults
// goes on where both say so.
global_asm!(
    ".globl kvm_ko_user_first",
    "kvm_ko_user_first:",
    ".globl kvm_ko_get_user_1",
    "kvm_ko_get_user_1: movzx edx, byte ptr [rax]",
    "xor eax, eax",
    "ret",
    ".globl kvm_ko_get_user_2",
    "kvm_ko_get_user_2: movzx edx, word ptr [rax]",
    "xor eax, eax",
    "ret",
    ".globl kvm_ko_get_user_4",
    "kvm_ko_get_user_4: mov edx, [rax]",
    "xor eax, eax",
    "ret",
    ".globl kvm_ko_get_user_8",
    "kvm_ko_get_user_8: mov rdx, [rax]",
    "xor eax, eax",
    "ret",
    ".globl kvm_ko_put_user_4",
    "kvm_ko_put_user_4: mov [rcx], eax",
    "xor ecx, ecx",
    "ret",
    ".globl kvm_ko_put_user_8",
    "kvm_ko_put_user_8: mov [rcx], rax",
    "xor ecx, ecx",
    "ret",
    ".globl kvm_ko_user_last",
    "kvm_ko_user_last:",
    "xor edx, edx",
    "mov rax, -14",
    "mov ecx, -14",
    "ret",
    // rep_movs_alternative(): rcx bytes from rsi to rdi; in rcx what is left.
    ".globl kvm_ko_rep_movs",
    "kvm_ko_rep_movs: rep movsb",
    "ret",
    // rep_stos_alternative(): clear_user().
    ".globl kvm_ko_rep_stos",
    "kvm_ko_rep_stos: push rax",
    "xor eax, eax",
    "rep stosb",
    "pop rax",
    "ret",
    // clear_page(): 4096 bytes at rdi, with rax and rcx as the caller expects them.
    ".globl kvm_ko_clear_page",
    "kvm_ko_clear_page: mov ecx, 512",
    "xor eax, eax",
    "rep stosq",
    "ret",
    // clear_pages(): rcx bytes at rdi.
    ".globl kvm_ko_clear_pages",
    "kvm_ko_clear_pages: xor eax, eax",
    "rep stosb",
    "ret",
    // A function that changes nothing at all.
    ".globl kvm_ko_return",
    "kvm_ko_return: ret",
);

/// The code that is meant by a name.
macro_rules! code {
    ($($name:literal => $symbol:ident),* $(,)?) => {
        [$({
            unsafe extern "C" {
                fn $symbol();
            }
            ($name, Answer::Code($symbol as *const () as u64))
        }),*]
    };
}

/// The first and last address of code that may fault because of an address of user space, and where it then goes on.
pub(crate) fn user_access() -> (u64, u64, u64) {
    unsafe extern "C" {
        fn kvm_ko_user_first();
        fn kvm_ko_user_last();
    }
    let last = kvm_ko_user_last as *const () as u64;
    (kvm_ko_user_first as *const () as u64, last, last)
}

pub(crate) fn answers() -> impl IntoIterator<Item = (&'static str, Answer)> {
    code! {
        "__get_user_1" => kvm_ko_get_user_1,
        "__get_user_2" => kvm_ko_get_user_2,
        "__get_user_4" => kvm_ko_get_user_4,
        "__get_user_8" => kvm_ko_get_user_8,
        "__get_user_nocheck_1" => kvm_ko_get_user_1,
        "__get_user_nocheck_2" => kvm_ko_get_user_2,
        "__get_user_nocheck_4" => kvm_ko_get_user_4,
        "__get_user_nocheck_8" => kvm_ko_get_user_8,
        "__put_user_4" => kvm_ko_put_user_4,
        "__put_user_8" => kvm_ko_put_user_8,
        "__put_user_nocheck_4" => kvm_ko_put_user_4,
        "__put_user_nocheck_8" => kvm_ko_put_user_8,
        "clear_page_orig" => kvm_ko_clear_page,
        "clear_page_rep" => kvm_ko_clear_page,
        "clear_page_erms" => kvm_ko_clear_page,
        "__clear_pages_unrolled" => kvm_ko_clear_pages,
        "rep_movs_alternative" => kvm_ko_rep_movs,
        "rep_stos_alternative" => kvm_ko_rep_stos,
        "__x86_return_thunk" => kvm_ko_return,
        "__x86_indirect_thunk_rax" => kvm_ko_thunk_rax,
        "__x86_indirect_thunk_rbx" => kvm_ko_thunk_rbx,
        "__x86_indirect_thunk_rcx" => kvm_ko_thunk_rcx,
        "__x86_indirect_thunk_rdx" => kvm_ko_thunk_rdx,
        "__x86_indirect_thunk_rsi" => kvm_ko_thunk_rsi,
        "__x86_indirect_thunk_rdi" => kvm_ko_thunk_rdi,
        "__x86_indirect_thunk_rbp" => kvm_ko_thunk_rbp,
        "__x86_indirect_thunk_r8" => kvm_ko_thunk_r8,
        "__x86_indirect_thunk_r9" => kvm_ko_thunk_r9,
        "__x86_indirect_thunk_r10" => kvm_ko_thunk_r10,
        "__x86_indirect_thunk_r11" => kvm_ko_thunk_r11,
        "__x86_indirect_thunk_r12" => kvm_ko_thunk_r12,
        "__x86_indirect_thunk_r13" => kvm_ko_thunk_r13,
        "__x86_indirect_thunk_r14" => kvm_ko_thunk_r14,
        "__x86_indirect_thunk_r15" => kvm_ko_thunk_r15,
    }
}
