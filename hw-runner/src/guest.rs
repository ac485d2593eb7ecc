//! The guest: a few machine instructions that carry out a list of accesses, and the page tables they run under.
//!
//! The guest runs at CPL 3 with IOPL 3, because some hypervisors emulate ring 0 instruction by instruction and then no
//! translation of theirs is at stake. It has no IDT: an exception ends in a shutdown exit, which is an answer too.
//!
//! Guest physical memory of its own, where no frames of programs may be:
//!
//! ```text
//! OWN_GFN    code | TSS | one stack page for each vCPU | request pages of vCPU 0, 1, … | the guest that spins
//! TABLE_GFN  root A | root B | pointer table | directory | leaf table of OWN_GFN | leaf tables of the windows | see names
//! ```
//!
//! Each of the two is a huge page, wherever the host has one to give: when KVM has dropped its tables, as it does with each memslot
//! that goes, two faults bring all of it back.
//!
//! One leaf table holds every name of every frame of one VM: [`ALIASES`] × [`FRAMES`] entries. The next VM gets the next table
//! and with it other linear addresses, for which nothing is cached yet. Two roots with the same content let CR3 change when all
//! tables are used up and written anew, so that no translation of an earlier program survives in a TLB.

mod names;

pub(crate) use names::{Entry, name, name_by, window_address, write_window, write_window_over};

use crate::memory::{HUGE_PAGES, PAGE_BYTES, Pages};
use gpa_model::limits::{ALIASES, FRAMES, OPS, VCPUS};
use gpa_model::{Access, Gpa, Pfn, VmConfig};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// First gfn of code, stacks and requests.
pub(crate) const OWN_GFN: u64 = 0x4000;
/// First gfn of the page tables.
pub(crate) const TABLE_GFN: u64 = OWN_GFN + HUGE_PAGES as u64;
const _: () = assert!(OWN_GFN.is_multiple_of(HUGE_PAGES as u64));
/// First gfn above both.
const END_GFN: u64 = TABLE_GFN + HUGE_PAGES as u64;
/// The port that says a batch is done.
pub(crate) const DONE_PORT: u16 = 0x10;

const REQUEST_BYTES: usize = 32;
const REQUESTS_PER_PAGE: usize = PAGE_BYTES / REQUEST_BYTES;
/// One page more than the accesses of a whole program need, for the request that ends the list.
const REQUEST_PAGES: usize = OPS / REQUESTS_PER_PAGE + 1;
/// Requests of a list, with the one that ends it.
pub(crate) const REQUESTS: usize = REQUEST_PAGES * REQUESTS_PER_PAGE;
const _: () = assert!(OPS < REQUESTS);
const CODE_PAGE: usize = 0;
/// A task-state segment of zeros: its I/O bitmap lets every port through. Not every hypervisor honours IOPL.
const TSS_PAGE: usize = 1;
const STACK_PAGE: usize = 2;
const REQUEST_PAGE: usize = STACK_PAGE + VCPUS;
/// First page of what the guest that spins needs.
pub(crate) const SPIN_PAGE: usize = REQUEST_PAGE + VCPUS * REQUEST_PAGES;
/// Pages of all these.
const OWN_PAGES: usize = SPIN_PAGE + crate::spinner::PAGES;

const ROOTS: [usize; 2] = [0, 1];
const POINTERS: usize = 2;
const DIRECTORY: usize = 3;
const OWN_LEAVES: usize = 4;
const WINDOW_LEAVES: usize = 5;
/// How many VMs can have a leaf table for their windows at once.
pub(crate) const WINDOWS: usize = 256;

/// Entries of a table of any level.
const ENTRIES: usize = PAGE_BYTES / size_of::<u64>();
const _: () = assert!(ALIASES * FRAMES <= ENTRIES && OWN_PAGES <= ENTRIES);

/// Where in a root table the guest's own addresses begin. It is the last entry of the lower half, which no GPA with stolen bits
/// reaches: so tables that translate GPAs of programs can be the guest's, too.
pub(crate) const OWN_ROOT_ENTRY: usize = ENTRIES / 2 - 1;
/// Linear page numbers: each directory entry covers [`ENTRIES`] pages, the first for the guest itself, the others for windows.
const OWN_LINEAR: u64 = (OWN_ROOT_ENTRY * ENTRIES * ENTRIES * ENTRIES) as u64;
const _: () = assert!(WINDOWS < ENTRIES);

/// Present, writable, user; accessed and dirty, so that no walk has to write to the tables.
const ENTRY_BITS: u64 = 0b110_0111;

/// Where the stub of a page starts: `mov eax, imm32; ret` with the page's identity, for instruction fetches.
const STUB: usize = 0;
/// Where the identity lies for reads.
const STAMP: usize = 8;
/// Where the words lie that guests write, one for each op of a program.
const WORDS: usize = 1024;
const _: () = assert!(WORDS + OPS * size_of::<u64>() <= PAGE_BYTES);

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

/// Whether `vm` has no frames where the guest's own memory is.
pub(crate) fn leaves_room(vm: &VmConfig) -> bool {
    vm.gfn(FRAMES - 1).raw() < OWN_GFN || vm.base().raw() >= END_GFN
}

/// What a guest is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) access: Access,
    /// The linear address of the page. A write is to a word in it.
    pub(crate) page: u64,
    /// Where in the page a write is to.
    pub(crate) offset: usize,
    /// What a write leaves there.
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

/// Write request number `n` of `vcpu`.
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

/// End the list of `vcpu` after `n` requests.
pub(crate) fn end_requests(own: &Pages, vcpu: usize, n: usize) {
    let (at, offset) = request_at(vcpu, n);
    own.write_u32(at, offset + KIND, END);
}

/// Tell the guest that request `n` went to user space.
pub(crate) fn note_exit(own: &Pages, vcpu: usize, n: usize) {
    let (at, offset) = request_at(vcpu, n);
    own.write_u32(at, offset + EXITED, 1);
}

/// Whether the guest has finished request `n`.
pub(crate) fn is_done(own: &Pages, vcpu: usize, n: usize) -> bool {
    let (at, offset) = request_at(vcpu, n);
    own.read_u32(at, offset + DONE) != 0
}

/// The page identity that request `n` found.
pub(crate) fn result(own: &Pages, vcpu: usize, n: usize) -> Pfn {
    let (at, offset) = request_at(vcpu, n);
    Pfn::new(own.read_u32(at, offset + RESULT))
}

fn request_at(vcpu: usize, n: usize) -> (usize, usize) {
    let page = REQUEST_PAGE + vcpu * REQUEST_PAGES + n / REQUESTS_PER_PAGE;
    (page, n % REQUESTS_PER_PAGE * REQUEST_BYTES)
}

/// The linear address of one of the guest's own pages.
pub(crate) fn own_address(page: usize) -> u64 {
    Gpa::from_page(OWN_LINEAR + page as u64).raw()
}

/// Where in a page the word of op number `word` lies.
pub(crate) const fn word_offset(word: usize) -> usize {
    WORDS + word * size_of::<u64>()
}

/// Give a page its identity, for reads and for fetches.
pub(crate) fn stamp(memory: &Pages, page: usize, pfn: Pfn) {
    memory.write_u64(page, STUB, stub(pfn));
    memory.write_u64(page, STAMP, pfn.raw().into());
}

/// A page with that identity, and nothing else in it.
pub(crate) fn stamped(pfn: Pfn) -> [u64; ENTRIES] {
    let mut page = [0; ENTRIES];
    page[STUB / size_of::<u64>()] = stub(pfn);
    page[STAMP / size_of::<u64>()] = pfn.raw().into();
    page
}

/// How the guest gives the page at `page` its identity by itself.
pub(crate) fn stamp_requests(page: u64, pfn: Pfn) -> [Request; 2] {
    let request = |offset, value| Request { access: Access::Write, page, offset, value };
    [request(STUB, stub(pfn)), request(STAMP, pfn.raw().into())]
}

const fn stub(pfn: Pfn) -> u64 {
    let [a, b, c, d] = pfn.raw().to_le_bytes();
    // b8 imm32 = mov eax, imm32; c3 = ret.
    u64::from_le_bytes([0xb8, a, b, c, d, 0xc3, 0x90, 0x90])
}

/// Write everything of the tables but the windows.
pub(crate) fn write_tables(tables: &Pages) {
    let table = |page: usize| Gpa::from_page(TABLE_GFN + page as u64);
    let set = |page, index: usize, gpa: Gpa| tables.write_u64(page, index * size_of::<u64>(), gpa.raw() | ENTRY_BITS);
    for root in ROOTS {
        set(root, OWN_ROOT_ENTRY, table(POINTERS));
    }
    set(POINTERS, 0, table(DIRECTORY));
    set(DIRECTORY, 0, table(OWN_LEAVES));
    for window in 0..WINDOWS {
        set(DIRECTORY, 1 + window, table(WINDOW_LEAVES + window));
    }
    names::write_directories(tables);
    for page in 0..OWN_PAGES {
        set(OWN_LEAVES, page, Gpa::from_page(OWN_GFN + page as u64));
    }
}

/// The entry of a root table that leads to the guest's own addresses.
pub(crate) fn own_root_entry() -> u64 {
    Gpa::from_page(TABLE_GFN + POINTERS as u64).raw() | ENTRY_BITS
}

/// Let the tables at `root` be the guest's, whose entries may forbid execution.
pub(crate) fn use_root(sregs: &mut kvm_sregs, root: Gpa) {
    const NXE: u64 = 1 << 11;
    sregs.cr3 = root.raw();
    sregs.efer |= NXE;
}

/// The same registers at CPL 0.
pub(crate) fn privileged(sregs: &kvm_sregs) -> kvm_sregs {
    let mut sregs = *sregs;
    (sregs.cs.selector, sregs.cs.dpl) = (0x10, 0);
    (sregs.ss.selector, sregs.ss.dpl) = (0x18, 0);
    sregs
}

/// Long mode at CPL 3, with root table A or B.
pub(crate) fn special_registers(sregs: &mut kvm_sregs, root: usize) {
    const PE_MP_ET_NE_PG: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 31;
    const PAE: u64 = 1 << 5;
    const LME_LMA: u64 = 1 << 8 | 1 << 10;
    sregs.cr0 = PE_MP_ET_NE_PG;
    sregs.cr2 = 0;
    sregs.cr3 = Gpa::from_page(TABLE_GFN + ROOTS[root % ROOTS.len()] as u64).raw();
    sregs.cr4 = PAE;
    sregs.efer = LME_LMA;
    let flat =
        kvm_segment { limit: u32::MAX, present: 1, dpl: 3, s: 1, g: 1, selector: 0x2b, type_: 3, ..Default::default() };
    sregs.cs = kvm_segment { selector: 0x33, type_: 11, l: 1, ..flat };
    (sregs.ss, sregs.ds, sregs.es) = (kvm_segment { db: 1, ..flat }, flat, flat);
    (sregs.fs, sregs.gs) = (flat, flat);
    // A busy 64-bit TSS: hardware refuses to enter long mode without one.
    let (base, limit) = (own_address(TSS_PAGE), PAGE_BYTES as u32 - 1);
    sregs.tr = kvm_segment { base, limit, selector: 0x40, type_: 11, present: 1, ..Default::default() };
    sregs.ldt = kvm_segment { unusable: 1, ..Default::default() };
    (sregs.gdt.base, sregs.gdt.limit, sregs.idt.base, sregs.idt.limit) = (0, 0, 0, 0);
}

/// Registers of `vcpu` to begin with request `n`.
pub(crate) fn registers(vcpu: usize, n: usize) -> kvm_regs {
    const RESERVED_ONE_AND_IOPL_3: u64 = 0x3002;
    let own = own_address;
    let (page, offset) = request_at(vcpu, n);
    kvm_regs {
        rip: own(CODE_PAGE) + if n == 0 { START } else { NEXT },
        rsp: own(STACK_PAGE + vcpu + 1),
        rsi: own(page) + offset as u64,
        r15: own(request_at(vcpu, 0).0),
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
