//! The tables in the form that hardware walks. Inside the crate an entry names a table or a page by number; an exported
//! entry holds the physical address that the caller chose.

use super::KvmMmu;
use crate::policy::HasPolicy;
use crate::second_stage::SecondStage;
use crate::tables::roots::Root;
use crate::tables::spte::{ENTRIES, Format, is_page_aligned};
use gpa_model::Pfn;
use std::fmt;

/// The physical addresses of tables and pages. They are page-aligned and below MAXPHYADDR.
pub trait Placement {
    /// The address of table number `table`, counted from 0. Each table has a page of its own.
    fn table(&self, table: u32) -> u64;

    /// The address of a page of guest memory.
    fn page(&self, pfn: Pfn) -> u64;
}

/// Why the tables cannot be exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportError {
    /// The [`Placement`] gave an address that is not page-aligned.
    Unaligned(u64),
    /// Hardware would refuse an entry, because reserved bits are set. They are address bits if MAXPHYADDR or above.
    Reserved {
        /// The number of the table.
        table: u32,
        /// The index of the entry.
        index: usize,
        /// The reserved bits that are set.
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
    /// Passes each table and its address to `put`, and returns the address of the root table. Links and leaves hold
    /// physical addresses, for a processor with `maxphyaddr` address bits. Hardware can walk the tables in format `F`
    /// until the next step of the MMU. Accessed and dirty bits that hardware sets there are not read back.
    ///
    /// # Errors
    /// An [`ExportError`]. Some tables may have been passed to `put` before it.
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
    /// As [`KvmMmu::export`]. vCPUs that run at the same time may change entries after they were exported.
    ///
    /// # Errors
    /// An [`ExportError`]. Some tables may have been passed to `put` before it.
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
