//! The guest that spins: it reads and writes pages through all their names without end, and complains by itself.
//!
//! The host publishes a *floor* for each frame: the identity that every read must find, 0 while the page is being replaced,
//! or [`HOLE`] without memory. The guest reads the floor, then the page. If they differ it reads the floor again, and if that is
//! unchanged, the page is stale. Then it writes an increasing number to its own word of the page, reads it back through
//! another name, and publishes it.
//!
//! ```text
//! SPIN_PAGE  code | floors, and numbers published | control page and list of names of vCPU 0, of vCPU 1, …
//! ```

use super::layout::{self, SPIN_PAGE};
use super::{code, page};
use crate::host::memory::{PAGE_BYTES, Pages};
use gpa_model::limits::{FRAMES, VCPUS};
use kvm_bindings::kvm_regs;

/// The floor of a hole: the value with which user space answers reads.
pub(crate) const HOLE: u32 = u32::MAX;
/// The port that reports a complaint.
pub(crate) const COMPLAINT_PORT: u16 = 0x11;

const CODE_PAGE: usize = SPIN_PAGE;
const SHARED_PAGE: usize = SPIN_PAGE + 1;
const VCPU_PAGE: usize = SPIN_PAGE + 2;

/// Bytes of a name in a list: two addresses, the address of its floor, the address of its published number.
const NAME_BYTES: usize = 4 * size_of::<u64>();
/// How many names a list holds.
pub(crate) const NAMES: usize = PAGE_BYTES / NAME_BYTES - 1;

/// The shared page has the floors first, then the published numbers of each vCPU.
const NUMBERS: usize = FRAMES * size_of::<u32>();
const _: () = assert!(NUMBERS + VCPUS * FRAMES * size_of::<u64>() <= PAGE_BYTES);

// Offsets in a control page, as the code below has them.
const STOP: usize = 0x00;
const ROUNDS: usize = 0x08;
const KIND: usize = 0x10;
const NAME: usize = 0x18;
const EXPECTED: usize = 0x20;
const FOUND: usize = 0x28;

/// `r15` is the control page, `r14` the list of names, `r12` the word in each page that is this vCPU's.
#[rustfmt::skip]
const CODE: [u8; 124] = [
    // start:
    0x4c, 0x89, 0xf6,                   // 00  mov  rsi, r14
    // next:
    0x48, 0x8b, 0x3e,                   // 03  mov  rdi, [rsi]            ; the name
    0x48, 0x85, 0xff,                   // 06  test rdi, rdi
    0x74, 0x38,                         // 09  jz   again
    0x48, 0x8b, 0x56, 0x10,             // 0b  mov  rdx, [rsi+0x10]       ; its floor
    0x8b, 0x0a,                         // 0f  mov  ecx, [rdx]
    0x85, 0xc9,                         // 11  test ecx, ecx
    0x74, 0x28,                         // 13  jz   skip
    0x8b, 0x47, 0x08,                   // 15  mov  eax, [rdi+STAMP]
    0x39, 0xc8,                         // 18  cmp  eax, ecx
    0x75, 0x35,                         // 1a  jne  stale
    0x83, 0xf9, 0xff,                   // 1c  cmp  ecx, HOLE
    0x74, 0x1c,                         // 1f  je   skip
    0x49, 0xff, 0xc0,                   // 21  inc  r8
    0x4e, 0x89, 0x04, 0x27,             // 24  mov  [rdi+r12], r8
    0x4c, 0x8b, 0x4e, 0x08,             // 28  mov  r9, [rsi+8]           ; another name
    0x4b, 0x8b, 0x04, 0x21,             // 2c  mov  rax, [r9+r12]
    0x4c, 0x39, 0xc0,                   // 30  cmp  rax, r8
    0x75, 0x27,                         // 33  jne  lost
    0x48, 0x8b, 0x6e, 0x18,             // 35  mov  rbp, [rsi+0x18]
    0x4c, 0x89, 0x45, 0x00,             // 39  mov  [rbp], r8             ; published
    // skip:
    0x48, 0x83, 0xc6, 0x20,             // 3d  add  rsi, NAME_BYTES
    0xeb, 0xc0,                         // 41  jmp  next
    // again:
    0x49, 0xff, 0x47, 0x08,             // 43  inc  qword [r15+ROUNDS]
    0x41, 0x83, 0x3f, 0x00,             // 47  cmp  dword [r15+STOP], 0
    0x74, 0xb3,                         // 4b  je   start
    0xe6, 0x10,                         // 4d  out  DONE_PORT, al
    0xeb, 0xaf,                         // 4f  jmp  start
    // stale:
    0x39, 0x0a,                         // 51  cmp  [rdx], ecx
    0x75, 0xe8,                         // 53  jne  skip                  ; the floor has changed meanwhile
    0xbf, 0x01, 0x00, 0x00, 0x00,       // 55  mov  edi, 1
    0xeb, 0x0c,                         // 5a  jmp  report
    // lost:
    0x39, 0x0a,                         // 5c  cmp  [rdx], ecx
    0x75, 0xdd,                         // 5e  jne  skip
    0xbf, 0x02, 0x00, 0x00, 0x00,       // 60  mov  edi, 2
    0x4c, 0x89, 0xc1,                   // 65  mov  rcx, r8
    // report:
    0x49, 0x89, 0x7f, 0x10,             // 68  mov  [r15+KIND], rdi
    0x49, 0x89, 0x77, 0x18,             // 6c  mov  [r15+NAME], rsi
    0x49, 0x89, 0x4f, 0x20,             // 70  mov  [r15+EXPECTED], rcx
    0x49, 0x89, 0x47, 0x28,             // 74  mov  [r15+FOUND], rax
    0xe6, 0x11,                         // 78  out  COMPLAINT_PORT, al
    0xeb, 0xc1,                         // 7a  jmp  skip
];

/// One name of a frame in a vCPU's list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    pub(crate) frame: usize,
    /// Alias number.
    pub(crate) alias: usize,
    /// Its linear address, for the first read and the write.
    pub(crate) address: u64,
    /// The linear address of the other name, for the read after the write.
    pub(crate) other: u64,
}

/// A complaint of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// A read found another identity than the floor that was published before it began.
    Stale { name: usize, expected: u64, found: u64 },
    /// A read through another name did not find the write.
    Lost { name: usize, expected: u64, found: u64 },
}

/// Loads the code, and the list of `names` of `vcpu`.
pub(crate) fn load(own: &Pages, vcpu: usize, names: &[Name]) {
    assert!(names.len() <= NAMES, "{} names, but a list has room for {NAMES}", names.len());
    code::write_code(own, CODE_PAGE, &CODE);
    let (control, list) = pages_of(vcpu);
    own.write_u32(control, STOP, 0);
    own.write_u64(control, ROUNDS, 0);
    for (n, name) in names.iter().enumerate() {
        let entry = [
            name.address,
            name.other,
            layout::own_address(SHARED_PAGE) + floor_at(name.frame) as u64,
            layout::own_address(SHARED_PAGE) + number_at(vcpu, name.frame) as u64,
        ];
        for (word, value) in entry.into_iter().enumerate() {
            own.write_u64(list, n * NAME_BYTES + word * size_of::<u64>(), value);
        }
    }
    own.write_u64(list, names.len() * NAME_BYTES, 0);
}

/// Publishes the floor of `frame`.
pub(crate) fn set_floor(own: &Pages, frame: usize, floor: u32) {
    own.write_u32(SHARED_PAGE, floor_at(frame), floor);
}

/// The number that `vcpu` published last for `frame`.
pub(crate) fn published(own: &Pages, vcpu: usize, frame: usize) -> u64 {
    own.read_u64(SHARED_PAGE, number_at(vcpu, frame))
}

/// Makes `vcpu` exit at the end of its list.
pub(crate) fn stop(own: &Pages, vcpu: usize) {
    own.write_u32(pages_of(vcpu).0, STOP, 1);
}

/// How often `vcpu` went through its list.
pub(crate) fn rounds(own: &Pages, vcpu: usize) -> u64 {
    own.read_u64(pages_of(vcpu).0, ROUNDS)
}

/// The complaint of `vcpu` that has just exited.
pub(crate) fn complaint(own: &Pages, vcpu: usize) -> Complaint {
    let (control, list) = pages_of(vcpu);
    let read = |at| own.read_u64(control, at);
    let name = read(NAME).saturating_sub(layout::own_address(list)) as usize / NAME_BYTES;
    let (expected, found) = (read(EXPECTED), read(FOUND));
    if read(KIND) == 1 { Complaint::Stale { name, expected, found } } else { Complaint::Lost { name, expected, found } }
}

/// Registers of `vcpu` to start with.
pub(crate) fn registers(vcpu: usize) -> kvm_regs {
    let (control, list) = pages_of(vcpu);
    kvm_regs {
        rip: layout::own_address(CODE_PAGE),
        r12: page::word_offset(vcpu) as u64,
        r14: layout::own_address(list),
        r15: layout::own_address(control),
        ..code::registers(vcpu, 0)
    }
}

fn pages_of(vcpu: usize) -> (usize, usize) {
    (VCPU_PAGE + 2 * vcpu, VCPU_PAGE + 2 * vcpu + 1)
}

fn floor_at(frame: usize) -> usize {
    frame * size_of::<u32>()
}

fn number_at(vcpu: usize, frame: usize) -> usize {
    NUMBERS + (vcpu * FRAMES + frame) * size_of::<u64>()
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
        let (start, next, skip, again, stale, lost, report) = (0x00, 0x03, 0x3d, 0x43, 0x51, 0x5c, 0x68);
        let jumps =
            [(0x09, again), (0x13, skip), (0x1a, stale), (0x1f, skip), (0x33, lost), (0x41, next), (0x4b, start)];
        for (at, to) in
            jumps.into_iter().chain([(0x4f, start), (0x53, skip), (0x5a, report), (0x5e, skip), (0x7a, skip)])
        {
            assert_eq!(target(at), to, "the jump at {at:#x}");
        }
        assert_eq!((CODE[0x4e], CODE[0x79]), (code::DONE_PORT as u8, COMPLAINT_PORT as u8));
        assert_eq!(usize::from(CODE[0x40]), NAME_BYTES);
    }
}
