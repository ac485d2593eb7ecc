//! A walk of the guest's own page tables, which lie in guest memory: each step goes by nested tables (APM, volume 2, 15.25.5).
//!
//! UNSAFETY: reads and writes entries of the guest's tables.

#![expect(unsafe_code, reason = "reads and writes the guest's page tables")]

use super::access::Kind;
use super::format::{ACCESSED, ADDRESS, DIRTY, LARGE, NO_EXECUTE, PRESENT, USER, WRITABLE, reserved as beyond};
use super::settings;
use super::walk::{self, Leaf, error};

/// EFER: LMA, NXE. CR4: PSE, PAE, LA57.
const LONG_MODE: u64 = 1 << 10;
const NXE: u64 = 1 << 11;
const PSE: u64 = 1 << 4;
const PAE: u64 = 1 << 5;
const LA57: u64 = 1 << 12;

/// How the guest translates: what its registers say of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) efer: u64,
    /// Whether a program of the guest makes the access, not its kernel.
    pub(crate) user: bool,
}

/// Why a walk stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The guest gets a page fault.
    Guest { code: u64 },
    /// The nested tables do not lead on from `gpa`.
    Nested { gpa: u64, code: u64 },
}

/// How the tables are made.
#[derive(Clone, Copy)]
struct Format {
    levels: u32,
    /// Bytes of an entry, and bits of an index.
    entry: u64,
    index_bits: u32,
}

impl Format {
    fn of(registers: &Paging) -> Self {
        let (levels, entry, index_bits) = match registers {
            _ if registers.efer & LONG_MODE != 0 => (if registers.cr4 & LA57 != 0 { 5 } else { 4 }, 8, 9),
            _ if registers.cr4 & PAE != 0 => (3, 8, 9),
            _ => (2, 4, 10),
        };
        Self { levels, entry, index_bits }
    }

    const fn shift(self, level: u32) -> u32 {
        12 + self.index_bits * (level - 1)
    }

    const fn has_large(self, level: u32, cr4: u64) -> bool {
        match (self.entry, level) {
            (4, 2) => cr4 & PSE != 0,
            (8, 2) => true,
            (8, 3) => self.levels > 3,
            _ => false,
        }
    }
}

/// Where `address` leads by the guest's tables, for an access of `kind`. `nested` translates a guest physical address.
pub(crate) fn walk(
    registers: &Paging,
    address: u64,
    kind: Kind,
    nested: &mut dyn FnMut(u64, Kind) -> Result<(Leaf, bool), u64>,
) -> Result<u64, Stop> {
    let format = Format::of(registers);
    let writes = matches!(kind, Kind::Write | Kind::CompareExchange);
    let no_execute = registers.efer & NXE != 0 && format.entry == 8;
    let mut code = if writes { error::WRITE } else { 0 };
    code |= if registers.user { error::USER } else { 0 };
    code |= if kind == Kind::Execute && no_execute { error::FETCH } else { 0 };
    let physical_bits = settings::get().physical_bits;
    let (mut writable, mut user, mut executable) = (true, true, true);
    let mut table = match (format.levels, format.entry) {
        (3, _) => registers.cr3 & 0xffff_ffe0,
        (_, 4) => registers.cr3 & 0xffff_f000,
        _ => registers.cr3 & ADDRESS,
    };
    for level in (1..=format.levels).rev() {
        // The four entries of PAE have no rights and no accessed bit.
        let bare = format.levels == 3 && level == 3;
        let mask = (1 << format.index_bits) - 1;
        let gpa = table + (address >> format.shift(level) & mask) * format.entry;
        let at = step(gpa, Kind::Read, format.entry, nested)?;
        // SAFETY: an entry in guest memory.
        let raw =
            unsafe { if format.entry == 8 { at.read_unaligned() } else { at.cast::<u32>().read_unaligned().into() } };
        if raw & PRESENT == 0 {
            return Err(Stop::Guest { code });
        }
        let mut reserved = if format.entry == 8 { beyond(physical_bits) } else { 0 };
        reserved |= if format.entry == 8 && !no_execute { NO_EXECUTE } else { 0 };
        let large = level > 1 && raw & LARGE != 0 && !bare && (format.entry == 8 || registers.cr4 & PSE != 0);
        if raw & reserved != 0 || large && !format.has_large(level, registers.cr4) {
            return Err(Stop::Guest { code: code | error::PRESENT | error::RESERVED });
        }
        if !bare {
            writable &= raw & WRITABLE != 0;
            user &= raw & USER != 0;
            executable &= raw & NO_EXECUTE == 0 || !no_execute;
        }
        if level > 1 && !large {
            if !bare {
                touch(gpa, at, raw, ACCESSED, format.entry, nested)?;
            }
            table = if format.entry == 8 { raw & ADDRESS } else { raw & 0xffff_f000 };
            continue;
        }
        if writes && !writable || kind == Kind::Execute && !executable || registers.user && !user {
            return Err(Stop::Guest { code: code | error::PRESENT });
        }
        touch(gpa, at, raw, ACCESSED | if writes { DIRTY } else { 0 }, format.entry, nested)?;
        let below = (1 << format.shift(level)) - 1;
        let base = match (format.entry, large) {
            // PSE-36: eight more bits of the address.
            (4, true) => raw & 0xffc0_0000 | (raw >> 13 & 0xff) << 32,
            (4, false) => raw & 0xffff_f000,
            _ => raw & ADDRESS & !below,
        };
        return Ok(base | address & below);
    }
    Err(Stop::Guest { code })
}

/// The entry at `gpa`, in memory.
fn step(
    gpa: u64,
    kind: Kind,
    bytes: u64,
    nested: &mut dyn FnMut(u64, Kind) -> Result<(Leaf, bool), u64>,
) -> Result<*mut u64, Stop> {
    let (leaf, _) = nested(gpa, kind).map_err(|code| Stop::Nested { gpa, code })?;
    let at = walk::bytes(leaf.physical(gpa), bytes).ok_or(Stop::Nested { gpa, code: error::PRESENT })?;
    Ok(at.cast())
}

/// Set `bits` in an entry that lacks them, which is a write to its page.
fn touch(
    gpa: u64,
    at: *mut u64,
    raw: u64,
    bits: u64,
    bytes: u64,
    nested: &mut dyn FnMut(u64, Kind) -> Result<(Leaf, bool), u64>,
) -> Result<(), Stop> {
    if raw & bits == bits {
        return Ok(());
    }
    step(gpa, Kind::Write, bytes, nested)?;
    // SAFETY: the entry that was read; the bits are in its first four bytes.
    unsafe {
        let word = at.cast::<u32>();
        word.write_unaligned(word.read_unaligned() | bits as u32);
    }
    Ok(())
}
