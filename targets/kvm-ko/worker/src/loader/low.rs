//! Code and data below 2 GiB, as far as they are ours: room for modules, and ways from their code to functions of this program.
//!
//! UNSAFETY: writes machine code.

#![expect(unsafe_code, reason = "writes machine code")]

use crate::memory::{LOW, LOW_BYTES, physical};

/// The address that the last call from kernel code to a function of this program returns to.
pub(crate) static CALLER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// The room there, and how much of it is used.
#[derive(Debug)]
pub(crate) struct Low {
    next: u64,
}

impl Low {
    /// All of it is free.
    pub(crate) const fn new() -> Self {
        Self { next: LOW }
    }

    /// Room for `size` zeroed bytes.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn alloc(&mut self, size: u64, align: u64) -> u64 {
        let at = self.next.next_multiple_of(align.max(1));
        self.next = at + size;
        assert!(self.next <= LOW + LOW_BYTES, "modules fit into {LOW_BYTES} bytes");
        at
    }

    fn code(&mut self, bytes: &[u8]) -> u64 {
        let at = self.alloc(bytes.len() as u64, 16);
        // SAFETY: room that was just taken.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
        at
    }

    /// A function that returns `value`.
    pub(crate) fn constant(&mut self, value: u32) -> u64 {
        // mov $value, %eax; ret
        let mut code = vec![0xb8];
        code.extend(value.to_le_bytes());
        code.push(0xc3);
        self.code(&code)
    }

    /// A way to the C function at `target`, with up to six arguments. Kernel code keeps the stack aligned to 8 bytes, other code
    /// to 16.
    pub(crate) fn call(&mut self, target: u64) -> u64 {
        // mov (%rsp), %r11; movabs $CALLER, %r10; mov %r11, (%r10)
        let mut code = vec![0x4c, 0x8b, 0x1c, 0x24, 0x49, 0xba];
        code.extend((&raw const CALLER as u64).to_le_bytes());
        code.extend([0x4d, 0x89, 0x1a]);
        // push %rbp; mov %rsp, %rbp; and $-16, %rsp; movabs $target, %rax; call *%rax; leave; ret
        code.extend([0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xf0, 0x48, 0xb8]);
        code.extend(target.to_le_bytes());
        code.extend([0xff, 0xd0, 0xc9, 0xc3]);
        self.code(&code)
    }

    /// A way to code at `target` that changes nothing.
    pub(crate) fn jump(&mut self, target: u64) -> u64 {
        // jmp *0(%rip)
        let mut code = vec![0xff, 0x25, 0, 0, 0, 0];
        code.extend(target.to_le_bytes());
        self.code(&code)
    }

    /// A function that calls the C function at `target` with its own first three arguments, and then goes on with `rest`, to be
    /// put at the entry of a function in place of its call of `__fentry__`.
    pub(crate) fn tracer(&mut self, target: u64) -> u64 {
        // push %rdi, %rsi, %rdx, %rcx, %r8, %r9, %rax; push %rbp; mov %rsp, %rbp; and $-16, %rsp
        let mut code = vec![0x57, 0x56, 0x52, 0x51, 0x41, 0x50, 0x41, 0x51, 0x50];
        code.extend([0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xf0, 0x48, 0xb8]);
        code.extend(target.to_le_bytes());
        // call *%rax; leave; pop %rax, %r9, %r8, %rcx, %rdx, %rsi, %rdi; ret
        code.extend([0xff, 0xd0, 0xc9, 0x58, 0x41, 0x59, 0x41, 0x58, 0x59, 0x5a, 0x5e, 0x5f, 0xc3]);
        self.code(&code)
    }

    /// A function that calls the C function at `target` with the address of its own arguments, which that may change, and goes on
    /// with them: in reverse, after RAX. To be put at the entry of a function, as [`Low::tracer`].
    pub(crate) fn adjuster(&mut self, target: u64) -> u64 {
        // push %rdi, %rsi, %rdx, %rcx, %r8, %r9, %rax; mov %rsp, %rdi; push %rbp; mov %rsp, %rbp; and $-16, %rsp
        let mut code = vec![0x57, 0x56, 0x52, 0x51, 0x41, 0x50, 0x41, 0x51, 0x50, 0x48, 0x89, 0xe7];
        code.extend([0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xf0, 0x48, 0xb8]);
        code.extend(target.to_le_bytes());
        // call *%rax; leave; pop %rax, %r9, %r8, %rcx, %rdx, %rsi, %rdi; ret
        code.extend([0xff, 0xd0, 0xc9, 0x58, 0x41, 0x59, 0x41, 0x58, 0x59, 0x5a, 0x5e, 0x5f, 0xc3]);
        self.code(&code)
    }

    /// Whether `address` is in the room that is used.
    pub(crate) fn holds(address: u64) -> bool {
        (LOW..LOW + LOW_BYTES).contains(&address)
    }

    /// Copy `bytes` to `at`.
    pub(crate) fn copy(at: u64, bytes: &[u8]) {
        assert!(Self::holds(at) && Self::holds(at + bytes.len() as u64), "modules lie in their room");
        for (offset, byte) in bytes.iter().enumerate() {
            // SAFETY: checked above.
            unsafe { physical::write(at + offset as u64, *byte) };
        }
    }
}
