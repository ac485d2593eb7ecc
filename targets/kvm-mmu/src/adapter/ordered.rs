//! Flushes and freed table pages, each noted with the tables as they are at that point.

use crate::host::TlbFlush;
use crate::tables::spte::Format;
use crate::tables::table_pages::Tables;
use gpa_model::{FlushBackend, Gpa, RangeFlushFailed, VcpuSet, VmConfig};

/// The back-end of one op, which keeps the ordered log of it.
pub(super) struct Ordered<'a, F> {
    tlb: &'a mut FlushBackend,
    tables: &'a Tables<F>,
    vm: &'a VmConfig,
    /// The writes to the tables up to the last sample.
    sampled: u64,
}

impl<'a, F: Format> Ordered<'a, F> {
    pub(super) fn new(tlb: &'a mut FlushBackend, tables: &'a Tables<F>, vm: &'a VmConfig) -> Self {
        Self { tlb, tables, vm, sampled: tables.writes() }
    }

    /// Tables that were not written since the last sample are what they were.
    fn sample(&mut self) {
        let writes = self.tables.writes();
        if writes == self.sampled {
            return;
        }
        self.sampled = writes;
        let (vm, tables) = (self.vm, self.tables);
        self.tlb.tables(|visit| {
            for alias in 0..vm.stolen().alias_count() {
                let mut of_alias = |frame, spte| visit(alias, frame, spte);
                tables.walk_window(vm.gpa(0, alias), vm.stride(), &mut of_alias);
            }
        });
    }
}

impl<F: Format> TlbFlush for Ordered<'_, F> {
    fn has_range(&self) -> bool {
        self.tlb.has_range()
    }

    fn range(&mut self, gpa: Gpa, pages: u64) -> Result<(), RangeFlushFailed> {
        self.sample();
        self.tlb.range(gpa, pages)
    }

    fn on(&mut self, vcpus: VcpuSet) {
        self.sample();
        self.tlb.on(vcpus);
    }

    fn freed(&mut self) {
        self.sample();
        self.tlb.freed();
    }
}
