//! The instruction by which the guest makes an access, as bytes: KVM decodes them when it carries the access out itself.

use super::access::Kind;

/// Bytes that the processor hands over (APM, volume 2, 15.8.4).
pub(crate) const BYTES: usize = 15;

/// An access of `size` bytes by way of RBX: to and from RAX, or from RCX if RAX (0) is what is found. In 32-bit mode at most 4.
pub(crate) fn encode(kind: Kind, size: u8) -> [u8; BYTES] {
    let mut code = Vec::with_capacity(BYTES);
    if kind == Kind::CompareExchange {
        code.push(0xf0);
    }
    match size {
        2 => code.push(0x66),
        8 => code.push(0x48),
        _ => {}
    }
    let wide = u8::from(size > 1);
    match kind {
        // lock cmpxchg %rcx, (%rbx)
        Kind::CompareExchange => code.extend([0x0f, 0xb0 | wide, 0x0b]),
        // mov %rax, (%rbx)
        Kind::Write => code.extend([0x88 | wide, 0x03]),
        // mov (%rbx), %rax
        _ => code.extend([0x8a | wide, 0x03]),
    }
    code.resize(BYTES, 0x90);
    code.try_into().unwrap_or([0x90; BYTES])
}
