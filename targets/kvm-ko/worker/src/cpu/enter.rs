//! VMRUN and VMLAUNCH: from the state in a control block to an exit. The C part knows the blocks.
//!
//! UNSAFETY: reads and writes the state that the C part hands over, and the guest's memory.

#![expect(unsafe_code, reason = "reads and writes what the C part hands over, and the guest's memory")]

use super::access::{self, Access, Guest, Kind, Progress};
use super::format::Format;
use super::guest_walk::{self, Paging, Stop};
use super::instruction::{self, encode};
use super::walk::{self, Leaf, Tables, error, walk};
use super::{settings, tlb};
use crate::alarm::{self, Event};
use crate::context::{self, Point, Registers};
use crate::loader::Answer;
use crate::memory::PHYSICAL_BYTES;

/// Why the guest is left; in the order of `enum worker_exit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Exit {
    /// The guest halts: what it was to do is done.
    Halt,
    /// As for an interrupt.
    Interrupt,
    /// A fault on the way by nested tables.
    NestedFault,
    /// A page fault.
    PageFault,
    /// A move to CR3 from RBX.
    WriteCr3,
    /// INVLPG.
    InvalidatePage,
    /// It cannot go on.
    Shutdown,
}

/// `TLB_CONTROL`: all ASIDs; that of this guest.
const FLUSH_ALL: u32 = 1;
/// EFER.LMA, CR0.PG, CR4.LA57.
const LONG_MODE: u64 = 1 << 10;
const PAGING: u64 = 1 << 31;
const LA57: u64 = 1 << 12;
/// Kinds of nested tables.
const NPT: u32 = 1;
const EPT_ACCESSED_DIRTY: u32 = 3;
/// An injected event: its vector, and that it has an error code.
const VECTOR: u64 = 0xff;
const PAGE_FAULT: u64 = 14;

/// `struct worker_entry`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct State {
    /// The root of nested tables, and the tag under which translations are kept.
    nested_root: u64,
    tag: u64,
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    rip: u64,
    rax: u64,
    rbx: u64,
    rcx: u64,
    /// An event: its vector, and its error code in the upper half.
    injected: u64,
    vcpu: u32,
    tlb_control: u32,
    /// 0: none. 1: AMD's. 2: EPT. 3: EPT with accessed and dirty bits.
    nested: u32,
    cpl: u32,
    /// Of a fault: the error code and the address.
    code: u64,
    address: u64,
    exit: u32,
    /// The instruction was carried out, so far as the processor does that.
    advances: u32,
    bytes: [u8; instruction::BYTES],
    bytes_len: u8,
}

pub(crate) fn answers() -> impl IntoIterator<Item = (&'static str, Answer)> {
    [("worker_enter_guest", Answer::Function(enter as extern "C" fn(*mut State) as *const () as u64))]
}

/// INVLPGA: the address in RAX, the ASID in ECX. How many bytes it has.
pub(crate) fn invalidate_page(registers: &Registers<'_>, _at: u64) -> u64 {
    tlb::remove(registers.get(RCX) & 0xffff_ffff, registers.get(RAX));
    3
}

/// How instructions number registers.
const RAX: u8 = 0;
const RCX: u8 = 1;

/// The bytes of the instruction by which vCPU `vcpu` makes its access, if it makes one.
pub(crate) fn instruction_of(vcpu: u32) -> Option<[u8; instruction::BYTES]> {
    access::progress(vcpu).map(|guest| encode(guest.access.kind, guest.access.size))
}

extern "C" fn enter(state: *mut State) {
    // SAFETY: the C part's own, for the time of the call.
    let state = unsafe { &mut *state };
    let vcpu = state.vcpu;
    if state.tlb_control != 0 {
        if state.tlb_control == FLUSH_ALL {
            tlb::drop_all();
        } else {
            tlb::drop_tag(state.tag);
        }
        alarm::note(Event::TlbFlushed { vcpu });
    }
    (state.code, state.address, state.advances, state.bytes_len) = (0, 0, 0, 0);
    state.exit = match access::progress(vcpu) {
        None => Exit::Halt,
        Some(_) if context::point(Point::Guest) => Exit::Interrupt,
        Some(mut guest) => {
            let exit = state.step(&mut guest);
            access::update(vcpu, guest);
            exit
        }
    } as u32;
}

impl State {
    /// One try of what the guest is about to do: the exit.
    fn step(&mut self, guest: &mut Guest) -> Exit {
        if self.injected != 0 {
            let is_page_fault = self.injected & VECTOR == PAGE_FAULT;
            guest.progress = Progress::Faulted { code: (self.injected >> 32) as u32 };
            return if is_page_fault { Exit::Halt } else { Exit::Shutdown };
        }
        let Guest { access, progress, .. } = *guest;
        match progress {
            Progress::Tried { rip } if rip != self.rip => {
                guest.progress = Progress::Emulated;
                guest.value = self.rax;
                return Exit::Halt;
            }
            Progress::Waiting => {
                guest.progress = Progress::Tried { rip: self.rip };
                // KVM knows the physical address; of the linear one only the place in the page has to agree, and it is canonical.
                let by_physical = self.nested != 0 && !access.linear;
                self.rbx = if by_physical { access.address & ((1 << 47) - 1) } else { access.address };
                self.rax = if access.kind == Kind::Write { access.value } else { 0 };
                self.rcx = access.value;
            }
            Progress::Tried { .. } => {}
            Progress::Done { .. } | Progress::Emulated | Progress::Faulted { .. } => return Exit::Halt,
        }
        match access.kind {
            Kind::LoadRoot => {
                (self.rbx, self.advances) = (access.value, 1);
                Exit::WriteCr3
            }
            Kind::InvalidatePage => {
                (self.address, self.advances) = (access.address, 1);
                Exit::InvalidatePage
            }
            _ => self.access(guest),
        }
    }

    fn access(&mut self, guest: &mut Guest) -> Exit {
        let Access { address, kind, linear, .. } = guest.access;
        let paging = self.cr0 & PAGING != 0;
        let address = if self.nested != 0 && linear && paging {
            let registers = Paging { cr3: self.cr3, cr4: self.cr4, efer: self.efer, user: self.cpl == 3 };
            match guest_walk::walk(&registers, address, kind, &mut |gpa, kind| self.translate(gpa, kind)) {
                Ok(gpa) => gpa,
                Err(Stop::Guest { code }) => {
                    guest.progress = Progress::Faulted { code: code as u32 };
                    return Exit::Halt;
                }
                Err(Stop::Nested { gpa, code }) => return self.fault(guest, gpa, code | error::GUEST_PAGE),
            }
        } else {
            address
        };
        let (leaf, from_tlb) = match self.translate(address, kind) {
            Ok(found) => found,
            Err(code) => {
                let how = if self.nested != 0 { error::GUEST_FINAL } else { 0 };
                return self.fault(guest, address, code | how);
            }
        };
        let physical = leaf.physical(address);
        let Some(at) = walk::bytes(physical, guest.access.size.into()) else {
            alarm::raise(alarm::AlarmKind::Oops, no_memory(&leaf));
            return Exit::Shutdown;
        };
        guest.value = perform(at, guest.access);
        guest.progress = Progress::Done { physical, from_tlb };
        Exit::Halt
    }

    /// Where `address` leads by KVM's tables, and whether the TLB knew it; or the error code.
    fn translate(&self, address: u64, kind: Kind) -> Result<(Leaf, bool), u64> {
        let tables = self.tables();
        if let Some(leaf) = tlb::look_up(self.tag, address, kind, tables.user) {
            return Ok((leaf, true));
        }
        let leaf = walk(&tables, address, kind, true)?;
        tlb::insert(self.tag, address, leaf);
        Ok((leaf, false))
    }

    fn tables(&self) -> Tables {
        let settings = settings::get();
        let physical_bits = settings.physical_bits;
        if self.nested != 0 {
            let accessed_dirty = self.nested == EPT_ACCESSED_DIRTY;
            let format = if self.nested == NPT { Format::Page } else { Format::Ept { accessed_dirty } };
            return Tables {
                root: self.nested_root,
                levels: settings.nested_levels,
                user: true,
                physical_bits,
                format,
            };
        }
        let levels = match (self.efer & LONG_MODE != 0, self.cr4 & LA57 != 0) {
            (true, true) => 5,
            (true, false) => 4,
            (false, _) => 3,
        };
        Tables { root: self.cr3, levels, user: self.cpl == 3, physical_bits, format: Format::Page }
    }

    /// The exit for a fault on the way from `address`, with this error code.
    fn fault(&mut self, guest: &mut Guest, address: u64, code: u64) -> Exit {
        tlb::remove(self.tag, address);
        guest.faults += 1;
        if guest.faults >= settings::FAULTS_MAX {
            context::give_up();
        }
        context::set_faulted(true);
        self.bytes = encode(guest.access.kind, guest.access.size);
        self.bytes_len = instruction::BYTES as u8;
        (self.code, self.address) = (code, address);
        if self.nested != 0 { Exit::NestedFault } else { Exit::PageFault }
    }
}

fn no_memory(leaf: &Leaf) -> String {
    format!("an entry of level {} leads the guest to where there is no memory (above {PHYSICAL_BYTES:#x})", leaf.level)
}

/// Make the access at the bytes `at`. What was read, or found.
fn perform(at: *mut u8, access: Access) -> u64 {
    let size = usize::from(access.size);
    let mut found = [0; 8];
    // SAFETY: in one page of physical memory, as `walk::bytes` has checked.
    unsafe { std::ptr::copy_nonoverlapping(at, found.as_mut_ptr(), size) };
    let value = u64::from_le_bytes(found);
    if access.kind == Kind::Write || access.kind == Kind::CompareExchange && value == 0 {
        let bytes = access.value.to_le_bytes();
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, size) };
    }
    value
}
