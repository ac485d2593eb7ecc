//! The guest that carries out a list of requests.

use super::assembly;
use super::layout::{
    CODE_PAGE, REQUEST_BYTES, REQUEST_PAGE, REQUEST_PAGES, REQUESTS_PER_PAGE, STACK_PAGE, own_address, request,
};
use super::page::{STAMP, STUB, stub};
use crate::host::memory::Pages;
use gpa_model::{Access, Pfn};
use kvm_bindings::kvm_regs;

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

/// Loads the code.
pub(crate) fn load_code(own: &Pages) {
    write_code(own, CODE_PAGE, assembly::requests());
}

/// Writes machine code to a page.
pub(crate) fn write_code(own: &Pages, page: usize, code: &[u8]) {
    for (word, bytes) in code.chunks(size_of::<u32>()).enumerate() {
        let mut padded = [0x90; size_of::<u32>()];
        padded[..bytes.len()].copy_from_slice(bytes);
        own.write_u32(page, word * size_of::<u32>(), u32::from_le_bytes(padded));
    }
}

/// Loads code that never exits instead.
#[cfg(test)]
pub(crate) fn break_code(own: &Pages) {
    write_code(own, CODE_PAGE, assembly::hang());
}

/// Loads code that raises an exception instead.
#[cfg(test)]
pub(crate) fn crash_code(own: &Pages) {
    write_code(own, CODE_PAGE, assembly::crash());
}

/// Writes request number `n` of `vcpu`.
pub(crate) fn write_request(own: &Pages, vcpu: usize, n: usize, asked: &Request) {
    let (kind, gva) = match asked.access {
        Access::Read => (request::READ, asked.page),
        Access::Write => (request::WRITE, asked.page + asked.offset as u64),
        Access::Execute => (request::EXECUTE, asked.page + STUB as u64),
    };
    let (at, offset) = request_at(vcpu, n);
    own.write_u64(at, offset + request::GVA, gva);
    own.write_u64(at, offset + request::VALUE, asked.value);
    own.write_u32(at, offset + request::EXITED, 0);
    own.write_u32(at, offset + request::RESULT, 0);
    own.write_u32(at, offset + request::DONE, 0);
    own.write_u32(at, offset + request::KIND, kind);
}

/// Ends the list of `vcpu` after `n` requests.
pub(crate) fn end_requests(own: &Pages, vcpu: usize, n: usize) {
    let (at, offset) = request_at(vcpu, n);
    own.write_u32(at, offset + request::KIND, request::END);
}

/// Tells the guest that request `n` exited to user space.
pub(crate) fn note_exit(own: &Pages, vcpu: usize, n: usize) {
    let (at, offset) = request_at(vcpu, n);
    own.write_u32(at, offset + request::EXITED, 1);
}

/// Whether the guest has finished request `n`.
pub(crate) fn is_done(own: &Pages, vcpu: usize, n: usize) -> bool {
    let (at, offset) = request_at(vcpu, n);
    own.read_u32(at, offset + request::DONE) != 0
}

/// The identity of the page that request `n` found.
pub(crate) fn result(own: &Pages, vcpu: usize, n: usize) -> Pfn {
    let (at, offset) = request_at(vcpu, n);
    Pfn::new(own.read_u32(at, offset + request::RESULT))
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
        rip: own_address(CODE_PAGE) + if n == 0 { 0 } else { assembly::requests_next() },
        rsp: own_address(STACK_PAGE + vcpu + 1),
        rsi: own_address(page) + offset as u64,
        r15: own_address(request_at(vcpu, 0).0),
        rflags: RESERVED_ONE_AND_IOPL_3,
        ..Default::default()
    }
}
