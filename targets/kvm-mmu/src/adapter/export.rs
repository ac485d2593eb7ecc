//! The tables as hardware walks them. In the crate an entry names its table or page by number; exported, by the physical
//! address that the caller gave it.

use super::KvmMmu;
use crate::policy::HasPolicy;
use crate::second_stage::SecondStage;
use crate::tables::roots::Root;
use crate::tables::spte::{ENTRIES, Format, is_page_aligned};
use gpa_model::Pfn;
use std::fmt;

/// Where in physical memory things are. Addresses are page-aligned and fit in MAXPHYADDR.
pub trait Placement {
    /// The address of table number `table`, counted from 0. Each table needs a page of its own.
    fn table(&self, table: u32) -> u64;

    /// The address of a page of guest memory.
    fn page(&self, pfn: Pfn) -> u64;
}

/// Why the tables cannot be exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportError {
    /// An address of the [`Placement`] is not page-aligned.
    Unaligned(u64),
    /// Hardware would refuse an entry: bits are set that it wants clear, of the address if that is MAXPHYADDR or above.
    Reserved {
        /// The number of the table that it is in.
        table: u32,
        /// Its index there.
        index: usize,
        /// The offending bits.
        bits: u64,
    },
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unaligned(address) => write!(f, "expected a page-aligned physical address, found {address:#x}"),
            Self::Reserved { table, index, bits } => {
                write!(f, "expected bits {bits:#x} of entry {index} of table {table} to be clear; use lower addresses")
            }
        }
    }
}

impl std::error::Error for ExportError {}

impl<P: HasPolicy, F: Format> KvmMmu<P, F> {
    /// Hand each table to `put` with its address, links and leaves made physical, for a processor with `maxphyaddr` address
    /// bits, and return the address of the root. What `put` has written can be walked by hardware in the format `F` until the MMU is
    /// stepped again; accessed and dirty bits that hardware sets there do not come back.
    ///
    /// # Errors
    /// An [`ExportError`]; some tables may have been handed out by then.
    pub fn export(
        &self,
        maxphyaddr: u8,
        placement: &impl Placement,
        put: impl FnMut(u64, &[u64; ENTRIES]),
    ) -> Result<u64, ExportError> {
        self.mmu.export(maxphyaddr, placement, put)
    }
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// As [`KvmMmu::export`]. vCPUs that run meanwhile may change entries that were handed out already.
    ///
    /// # Errors
    /// An [`ExportError`]; some tables may have been handed out by then.
    pub fn export(
        &self,
        maxphyaddr: u8,
        placement: &impl Placement,
        mut put: impl FnMut(u64, &[u64; ENTRIES]),
    ) -> Result<u64, ExportError> {
        let mmu = self.mmu_lock.lock();
        for (table, level) in mmu.shadow_pages.levels() {
            let mut page = [0; ENTRIES];
            for (at, mut entry) in self.tables.entries(table, level) {
                let index = usize::from(at.index);
                if entry.is_present() {
                    let leaf = entry.is_leaf(level);
                    let address = if leaf { placement.page(entry.pfn()) } else { placement.table(entry.table()) };
                    entry = entry.placed(aligned(address)?);
                    let bits = entry.reserved_bits(level, maxphyaddr);
                    if bits != 0 {
                        return Err(ExportError::Reserved { table, index, bits });
                    }
                }
                page[index] = entry.raw();
            }
            put(aligned(placement.table(table))?, &page);
        }
        aligned(placement.table(self.tables.root(Root::Direct)))
    }
}

fn aligned(address: u64) -> Result<u64, ExportError> {
    if is_page_aligned(address) { Ok(address) } else { Err(ExportError::Unaligned(address)) }
}
