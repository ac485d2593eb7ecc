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

use super::layout::{self, NAME_BYTES, SPIN_PAGE, control};
use super::{assembly, page, requests};
use crate::host::memory::{PAGE_BYTES, Pages};
use gpa_model::limits::{FRAMES, VCPUS};
use kvm_bindings::kvm_regs;

/// The floor of a hole: the value with which user space answers reads.
pub(crate) const HOLE: u32 = u32::MAX;
const CODE_PAGE: usize = SPIN_PAGE;
const SHARED_PAGE: usize = SPIN_PAGE + 1;
const VCPU_PAGE: usize = SPIN_PAGE + 2;

/// How many names a list holds.
pub(crate) const NAMES: usize = PAGE_BYTES / NAME_BYTES - 1;

/// The shared page has the floors first, then the published numbers of each vCPU.
const NUMBERS: usize = FRAMES * size_of::<u32>();
const _: () = assert!(NUMBERS + VCPUS * FRAMES * size_of::<u64>() <= PAGE_BYTES);

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
    requests::write_code(own, CODE_PAGE, assembly::spinner());
    let (control_page, list) = pages_of(vcpu);
    own.write_u32(control_page, control::STOP, 0);
    own.write_u64(control_page, control::ROUNDS, 0);
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
    own.write_u32(pages_of(vcpu).0, control::STOP, 1);
}

/// How often `vcpu` went through its list.
pub(crate) fn rounds(own: &Pages, vcpu: usize) -> u64 {
    own.read_u64(pages_of(vcpu).0, control::ROUNDS)
}

/// The complaint of `vcpu` that has just exited.
pub(crate) fn complaint(own: &Pages, vcpu: usize) -> Complaint {
    let (control_page, list) = pages_of(vcpu);
    let read = |at| own.read_u64(control_page, at);
    let name = read(control::NAME).saturating_sub(layout::own_address(list)) as usize / NAME_BYTES;
    let (expected, found) = (read(control::EXPECTED), read(control::FOUND));
    if read(control::KIND) == u64::from(control::STALE) {
        Complaint::Stale { name, expected, found }
    } else {
        Complaint::Lost { name, expected, found }
    }
}

/// Registers of `vcpu` to start with.
pub(crate) fn registers(vcpu: usize) -> kvm_regs {
    let (control_page, list) = pages_of(vcpu);
    kvm_regs {
        rip: layout::own_address(CODE_PAGE),
        r12: page::word_offset(vcpu) as u64,
        r14: layout::own_address(list),
        r15: layout::own_address(control_page),
        ..requests::registers(vcpu, 0)
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
