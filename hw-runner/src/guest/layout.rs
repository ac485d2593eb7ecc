//! Where the guest's own memory is: its pages, by guest physical and by linear address.

use crate::host::memory::{HUGE_PAGES, PAGE_BYTES};
use gpa_model::limits::{ALIASES, FRAMES, OPS, VCPUS};
use gpa_model::{Gpa, VmConfig};

/// First gfn of code, stacks and requests.
pub(crate) const OWN_GFN: u64 = 0x4000;
/// First gfn of the page tables.
pub(crate) const TABLE_GFN: u64 = OWN_GFN + HUGE_PAGES as u64;
const _: () = assert!(OWN_GFN.is_multiple_of(HUGE_PAGES as u64));
/// First gfn above both.
const END_GFN: u64 = TABLE_GFN + HUGE_PAGES as u64;
/// Bytes of one request.
pub(super) const REQUEST_BYTES: usize = 32;
pub(super) const REQUESTS_PER_PAGE: usize = PAGE_BYTES / REQUEST_BYTES;
/// One page more than the accesses of a program need, for the request that ends the list.
pub(super) const REQUEST_PAGES: usize = OPS / REQUESTS_PER_PAGE + 1;
/// Requests of a list, including the one that ends it.
pub(crate) const REQUESTS: usize = REQUEST_PAGES * REQUESTS_PER_PAGE;
const _: () = assert!(OPS < REQUESTS);

/// Offsets in a request, and its kinds.
pub(super) mod request {
    pub(crate) const GVA: usize = 0x00;
    pub(crate) const VALUE: usize = 0x08;
    pub(crate) const KIND: usize = 0x10;
    /// Whether the request has exited to user space.
    pub(crate) const EXITED: usize = 0x14;
    pub(crate) const RESULT: usize = 0x18;
    pub(crate) const DONE: usize = 0x1c;

    /// The kind that ends a list. The code compares kinds in this order.
    pub(crate) const END: u32 = 0;
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const EXECUTE: u32 = 3;
}

/// Offsets in a control page of the guest that spins, and kinds of complaints.
pub(super) mod control {
    pub(crate) const STOP: usize = 0x00;
    pub(crate) const ROUNDS: usize = 0x08;
    pub(crate) const KIND: usize = 0x10;
    pub(crate) const NAME: usize = 0x18;
    pub(crate) const EXPECTED: usize = 0x20;
    pub(crate) const FOUND: usize = 0x28;

    pub(crate) const STALE: u32 = 1;
    pub(crate) const LOST: u32 = 2;
}

/// Bytes of a name in a list: two addresses, the address of its floor, the address of its published number.
pub(super) const NAME_BYTES: usize = 4 * size_of::<u64>();

pub(super) const CODE_PAGE: usize = 0;
/// A task-state segment of zeros: its I/O bitmap allows every port. Some hypervisors ignore IOPL.
pub(super) const TSS_PAGE: usize = 1;
pub(super) const STACK_PAGE: usize = 2;
pub(super) const REQUEST_PAGE: usize = STACK_PAGE + VCPUS;
/// First page of the guest that spins.
pub(crate) const SPIN_PAGE: usize = REQUEST_PAGE + VCPUS * REQUEST_PAGES;
/// Pages of the guest that spins: its code, a page shared by all vCPUs, and two for each vCPU.
pub(super) const SPIN_PAGES: usize = 2 + 2 * VCPUS;
/// Pages of all of these.
pub(super) const OWN_PAGES: usize = SPIN_PAGE + SPIN_PAGES;

pub(super) const ROOTS: [usize; 2] = [0, 1];
pub(super) const POINTERS: usize = 2;
pub(super) const DIRECTORY: usize = 3;
pub(super) const OWN_LEAVES: usize = 4;
pub(super) const WINDOW_LEAVES: usize = 5;
/// How many windows there are.
pub(crate) const WINDOWS: usize = 256;

/// Entries of a table of any level.
pub(super) const ENTRIES: usize = PAGE_BYTES / size_of::<u64>();
const _: () = assert!(ALIASES * FRAMES <= ENTRIES && OWN_PAGES <= ENTRIES);

/// The root entry for the guest's own addresses: the last of the lower half, which no GPA with stolen bits
/// reaches. So tables that translate GPAs of programs can also serve as the guest's.
pub(crate) const OWN_ROOT_ENTRY: usize = ENTRIES / 2 - 1;
/// The first linear page. Each directory entry covers [`ENTRIES`] pages: the first the guest itself, the others
/// windows.
pub(super) const OWN_LINEAR: u64 = (OWN_ROOT_ENTRY * ENTRIES * ENTRIES * ENTRIES) as u64;
const _: () = assert!(WINDOWS < ENTRIES);

/// Present, writable, user; accessed and dirty, so that page walks do not write to the tables.
pub(super) const ENTRY_BITS: u64 = 0b110_0111;

/// Whether the frames of `vm` do not overlap the guest's own memory.
pub(crate) fn leaves_room(vm: &VmConfig) -> bool {
    vm.gfn(FRAMES - 1).raw() < OWN_GFN || vm.base().raw() >= END_GFN
}

/// The linear address of one of the guest's own pages.
pub(crate) fn own_address(page: usize) -> u64 {
    Gpa::from_page(OWN_LINEAR + page as u64).raw()
}
