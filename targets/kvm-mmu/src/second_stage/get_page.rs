//! Finds the shadow page for a key or makes a new one (`kvm_mmu_get_page()`), and makes the path to an entry.

use crate::policy::{Family, Mistake, Policy};
use crate::tables::shadow_pages::{ShadowPages, SpKey};
use crate::tables::spte::{Format, index, pages_of_entry};
use crate::tables::table_pages::{Sptep, Tables};
use gpa_model::{Alias, Gfn, Gpa};

impl ShadowPages {
    /// Returns the entry for `walked` in a table of `level`, and makes the path to it. New shadow pages are for `gfn`
    /// and `alias` (`__direct_map()`, `__kvm_mmu_get_page()`).
    ///
    /// # Errors
    /// The large leaf that is in the way. It has to be removed first.
    pub(crate) fn entry_or_alloc<F: Format>(
        &mut self,
        policy: &(impl Policy + ?Sized),
        tables: &Tables<F>,
        walked: Gpa,
        gfn: Gfn,
        alias: Alias,
        level: u8,
    ) -> Result<Sptep, Sptep> {
        let mut table = tables.root_of(walked);
        for above in (level + 1..=tables.root_level()).rev() {
            let at = Sptep::new(table, index(walked, above), above);
            let entry = tables.get(at);
            table = if entry.is_present() && entry.is_leaf(above) {
                return Err(at);
            } else if entry.is_present() {
                entry.table()
            } else {
                let gfn = gfn.align_down(pages_of_entry(above));
                let key = SpKey::direct(gfn, alias, above - 1);
                let child = match policy.family() {
                    Family::Rmap => self.find_or_alloc(policy, key).0,
                    Family::Tdp => self.alloc(key),
                };
                self.link(tables, child, at);
                child
            };
        }
        Ok(Sptep::new(table, index(walked, level), level))
    }

    /// The shadow page for `key`, if there is one of the current generation.
    pub(crate) fn find(&self, policy: &(impl Policy + ?Sized), key: &SpKey) -> Option<u32> {
        self.bucket(key).find(|&table| {
            policy.same_shadow_page(self.key(table), key)
                && (!self.is_obsolete(table) || policy.plants(Mistake::ObsoleteFound))
        })
    }

    /// The shadow page for `key`, and whether it is new (`kvm_mmu_get_page()`).
    pub(crate) fn find_or_alloc(&mut self, policy: &(impl Policy + ?Sized), key: SpKey) -> (u32, bool) {
        if let Some(table) = self.find(policy, &key) {
            return (table, false);
        }
        let table = self.alloc(policy.stored_key(key));
        self.hash(table, &policy.bucket_key(policy.stored_key(key)));
        (table, true)
    }
}
