//! Synchronises shadow pages with the guest's tables: at each write to an upper table, at the guest's TLB flush for
//! tables of leaves.

use crate::host::TlbFlush;
use crate::memslots::slots::Memslots;
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::shadow_pages::SpKey;
use crate::tables::spte::{Entry, Format};
use crate::tables::table_pages::Sptep;
use gpa_model::limits::GPTES;
use gpa_model::{Gfn, Gpa, Host};
use smallvec::SmallVec;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// The guest flushes its TLB: from here on it must see what its tables say now (`kvm_mmu_sync_roots()`).
    pub(crate) fn guest_flush(&self, host: &Host, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let mut mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        let behind = mmu.shadow_pages.active().filter(|&table| mmu.shadow_pages.is_unsync(table));
        let behind: SmallVec<[u32; 8]> = behind.collect();
        for table in behind {
            self.sync_page(host, &slots, &mut mmu, table, &mut owed);
        }
        owed.all(self.policy(), tlb);
    }

    /// Drops the entries that the guest's table no longer supports, and write-protects the table again
    /// (`FNAME(sync_page)()`).
    pub(crate) fn sync_page(&self, host: &Host, slots: &Memslots, mmu: &mut Locked, table: u32, owed: &mut FlushOwed) {
        let key = *mmu.shadow_pages.key(table);
        self.write_protect(mmu, key.gfn, 1, true, owed);
        mmu.shadow_pages.set_unsync(table, false);
        for index in 0..GPTES as u8 {
            let at = Sptep::new(table, index.into(), 1);
            let entry = self.tables.get(at);
            if !entry.is_present() {
                self.tables.set(at, Entry::ABSENT);
            } else if !self.still_says(host, slots, (&key, index), mmu.shadow_pages.gfn_of(at), entry) {
                self.zap(mmu, at);
                owed.owe();
            }
        }
    }

    /// Synchronises the unsync pages below `table`, and `table` itself (`mmu_sync_children()`).
    pub(crate) fn sync_children(
        &self,
        host: &Host,
        slots: &Memslots,
        mmu: &mut Locked,
        (table, level): (u32, u8),
        owed: &mut FlushOwed,
    ) {
        if mmu.shadow_pages.is_unsync(table) {
            self.sync_page(host, slots, mmu, table, owed);
        }
        for (at, entry) in self.tables.entries(table, level) {
            if entry.is_present() && !entry.is_leaf(at.level) {
                self.sync_children(host, slots, mmu, (entry.table(), level - 1), owed);
            }
        }
    }

    /// Whether the guest's entry still leads to `gfn` and allows what `entry` allows.
    fn still_says(&self, host: &Host, slots: &Memslots, at: (&SpKey, u8), gfn: Gfn, entry: Entry<F>) -> bool {
        let (paging, (key, index)) = (self.vm.paging(), at);
        self.read_guest_pte(host, slots, key.gfn, index, 1).is_some_and(|gpte| {
            let allowed = key.access.intersect(gpte.rights());
            gpte.is_present()
                && !gpte.is_reserved(self.guest_reserved(paging))
                && self.policy().sync_gfn(self.vm.stolen(), paging, gpte.address()) == gfn
                && allowed.contains(entry.restored().rights())
        })
    }

    /// A write to a guest table was emulated: drops the entries that were made from the old one
    /// (`kvm_mmu_pte_write()`).
    pub(crate) fn guest_pte_written(&self, gpa: Gpa, index: u8, tlb: &mut dyn TlbFlush) {
        let gfn = self.policy().unalias(self.vm.stolen(), gpa);
        let mut mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        let tables: SmallVec<[u32; 4]> = mmu.shadow_pages.indirect_of(gfn).collect();
        for table in tables {
            let level = mmu.shadow_pages.key(table).level;
            let at = Sptep::new(table, index.into(), level);
            let entry = self.tables.get(at);
            if entry.is_present() {
                owed.owe();
                if level == 1 {
                    self.zap(&mut mmu, at);
                } else {
                    mmu.shadow_pages.unlink(entry.table(), at);
                }
            }
            self.tables.set(at, Entry::ABSENT);
        }
        owed.all(self.policy(), tlb);
    }

    /// Tracks writes to the guest table of a new shadow page (`account_shadowed()`). A page that also holds an upper
    /// table must not stay unsync.
    pub(crate) fn account(&self, host: &Host, slots: &Memslots, mmu: &mut Locked, key: &SpKey, owed: &mut FlushOwed) {
        let Some(slot) = slots.find(key.gfn) else { return };
        let Some(page) = key.gfn.offset_from(slot.gfn) else { return };
        slot.tables.insert(page);
        let mut forgotten = FlushOwed::nothing();
        let owed = if self.plants(Mistake::TableUnflushed) { &mut forgotten } else { owed };
        self.write_protect(mmu, key.gfn, 1, true, owed);
        if key.level > 1 {
            slot.upper_tables.insert(page);
            let behind = mmu.shadow_pages.indirect_of(key.gfn).filter(|&table| mmu.shadow_pages.is_unsync(table));
            let behind: SmallVec<[u32; 4]> = behind.collect();
            for table in behind {
                self.sync_page(host, slots, mmu, table, owed);
            }
        }
    }
}
