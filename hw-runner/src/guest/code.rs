//! The code of the guest, and the list of requests that it carries out.

use super::layout::{
    CODE_PAGE, REQUEST_BYTES, REQUEST_PAGE, REQUEST_PAGES, REQUESTS_PER_PAGE, STACK_PAGE, own_address,
};
use super::page::{STAMP, STUB, stub};
use crate::host::memory::Pages;
use gpa_model::{Access, Pfn};
use kvm_bindings::kvm_regs;

/// The port that reports the end of a list.
pub(crate) const DONE_PORT: u16 = 0x10;

// Offsets in a request, as the code below has them.
const GVA: usize = 0x00;
const VALUE: usize = 0x08;
const KIND: usize = 0x10;
const EXITED: usize = 0x14;
const RESULT: usize = 0x18;
const DONE: usize = 0x1c;

const END: u32 = 0;

/// The guest's whole program. `r15` holds the address of its requests. After the `out` it starts over; a list
/// that follows one whose last access came out begins where that ended.
#[rustfmt::skip]
const CODE: [u8; 74] = [
    // start:
    0x4c, 0x89, 0xfe,                         // 00  mov  rsi, r15
    // next:
    0x8b, 0x46, 0x10,                         // 03  mov  eax, [rsi+KIND]
    0x48, 0x8b, 0x3e,                         // 06  mov  rdi, [rsi+GVA]
    0x83, 0xf8, 0x01,                         // 09  cmp  eax, 1
    0x72, 0x38,                               // 0c  jb   done             ; 0: end
    0x74, 0x1f,                               // 0e  je   read             ; 1
    0x83, 0xf8, 0x02,                         // 10  cmp  eax, 2
    0x74, 0x04,                               // 13  je   write            ; 2
    0xff, 0xd7,                               // 15  call rdi              ; 3: the page's stub puts its identity in eax
    0xeb, 0x19,                               // 17  jmp  store
    // write:
    0x48, 0x8b, 0x46, 0x08,                   // 19  mov  rax, [rsi+VALUE]
    0x48, 0x89, 0x07,                         // 1d  mov  [rdi], rax
    0x83, 0x7e, 0x14, 0x00,                   // 20  cmp  dword [rsi+EXITED], 0
    0x75, 0x0c,                               // 24  jne  store            ; user space took the write: no page to name
    0x48, 0x81, 0xe7, 0x00, 0xf0, 0xff, 0xff, // 26  and  rdi, -0x1000
    0x66, 0x90,                               // 2d  nop
    // read:
    0x8b, 0x47, 0x08,                         // 2f  mov  eax, [rdi+STAMP]
    // store:
    0x89, 0x46, 0x18,                         // 32  mov  [rsi+RESULT], eax
    0xc7, 0x46, 0x1c, 0x01, 0x00, 0x00, 0x00, // 35  mov  dword [rsi+DONE], 1
    0x48, 0x83, 0xc6, 0x20,                   // 3c  add  rsi, REQUEST_BYTES
    0xeb, 0xc1,                               // 40  jmp  next
    0x66, 0x90, 0x66, 0x90,                   // 42  nop; nop
    // done:
    0xe6, 0x10,                               // 46  out  DONE_PORT, al
    0xeb, 0xb6,                               // 48  jmp  start
];
const START: u64 = 0x00;
const NEXT: u64 = 0x03;

/// A guest access to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) access: Access,
    /// The linear address of the page; a write goes to a word in it.
    pub(crate) page: u64,
    /// The offset in the page of a write.
    pub(crate) offset: usize,
    /// The value of a write.
    pub(crate) value: u64,
}

/// Put the code in place.
pub(crate) fn load_code(own: &Pages) {
    write_code(own, CODE_PAGE, &CODE);
}

/// Write machine code to a page.
pub(crate) fn write_code(own: &Pages, page: usize, code: &[u8]) {
    for (word, bytes) in code.chunks(size_of::<u32>()).enumerate() {
        let mut padded = [0x90; size_of::<u32>()];
        padded[..bytes.len()].copy_from_slice(bytes);
        own.write_u32(page, word * size_of::<u32>(), u32::from_le_bytes(padded));
    }
}

/// Let the guest run for ever instead.
#[cfg(test)]
pub(crate) fn break_code(own: &Pages) {
    // eb fe = jmp $, at the start and at the end of a list.
    own.write_u32(CODE_PAGE, START as usize, u32::from_le_bytes([0xeb, 0xfe, 0x90, 0x90]));
}

/// Let the guest raise an exception that nobody handles instead.
#[cfg(test)]
pub(crate) fn crash_code(own: &Pages) {
    // 0f 0b = ud2.
    own.write_u32(CODE_PAGE, START as usize, u32::from_le_bytes([0x0f, 0x0b, 0x0f, 0x0b]));
}

/// Writes request number `n` of `vcpu`.
pub(crate) fn write_request(own: &Pages, vcpu: usize, n: usize, request: &Request) {
    let (kind, gva) = match request.access {
        Access::Read => (1, request.page),
        Access::Write => (2, request.page + request.offset as u64),
        Access::Execute => (3, request.page + STUB as u64),
    };
    let (at, offset) = request_at(vcpu, n);
    own.write_u64(at, offset + GVA, gva);
    own.write_u64(at, offset + VALUE, request.value);
    own.write_u32(at, offset + EXITED, 0);
    own.write_u32(at, offset + RESULT, 0);
    own.write_u32(at, offset + DONE, 0);
    own.write_u32(at, offset + KIND, kind);
}

/// Ends the list of `vcpu` after `n` requests.
pub(crate) fn end_requests(own: &Pages, vcpu: usize, n: usize) {
    let (at, offset) = request_at(vcpu, n);
    own.write_u32(at, offset + KIND, END);
}

/// Tells the guest that request `n` exited to user space.
pub(crate) fn note_exit(own: &Pages, vcpu: usize, n: usize) {
    let (at, offset) = request_at(vcpu, n);
    own.write_u32(at, offset + EXITED, 1);
}

/// Whether the guest has finished request `n`.
pub(crate) fn is_done(own: &Pages, vcpu: usize, n: usize) -> bool {
    let (at, offset) = request_at(vcpu, n);
    own.read_u32(at, offset + DONE) != 0
}

/// The identity of the page that request `n` found.
pub(crate) fn result(own: &Pages, vcpu: usize, n: usize) -> Pfn {
    let (at, offset) = request_at(vcpu, n);
    Pfn::new(own.read_u32(at, offset + RESULT))
}

fn request_at(vcpu: usize, n: usize) -> (usize, usize) {
    let page = REQUEST_PAGE + vcpu * REQUEST_PAGES + n / REQUESTS_PER_PAGE;
    (page, n % REQUESTS_PER_PAGE * REQUEST_BYTES)
}

/// The requests by which the guest itself gives the page at `page` its identity.
pub(crate) fn stamp_requests(page: u64, pfn: Pfn) -> [Request; 2] {
    let request = |offset, value| Request { access: Access::Write, page, offset, value };
    [request(STUB, stub(pfn)), request(STAMP, pfn.raw().into())]
}

/// Registers of `vcpu` to start with request `n`.
pub(crate) fn registers(vcpu: usize, n: usize) -> kvm_regs {
    const RESERVED_ONE_AND_IOPL_3: u64 = 0x3002;
    let (page, offset) = request_at(vcpu, n);
    kvm_regs {
        rip: own_address(CODE_PAGE) + if n == 0 { START } else { NEXT },
        rsp: own_address(STACK_PAGE + vcpu + 1),
        rsi: own_address(page) + offset as u64,
        r15: own_address(request_at(vcpu, 0).0),
        rflags: RESERVED_ONE_AND_IOPL_3,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the relative jump at `at` leads.
    fn target(at: usize) -> usize {
        (at + 2).wrapping_add_signed(isize::from(CODE[at + 1] as i8))
    }

    #[test]
    fn jumps_lead_to_their_labels() {
        let (start, next, write, read, store, done) = (0x00, 0x03, 0x19, 0x2f, 0x32, 0x46);
        for (at, to) in [(0x0c, done), (0x0e, read), (0x13, write), (0x17, store), (0x24, store)] {
            assert_eq!(target(at), to, "the jump at {at:#x}");
        }
        assert_eq!((target(0x40), target(0x48)), (next, start));
        assert_eq!((START as usize, NEXT as usize), (start, next));
        assert_eq!(CODE[done + 1], DONE_PORT as u8);
    }
}
