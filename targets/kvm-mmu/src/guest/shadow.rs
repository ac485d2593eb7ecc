//! Shadow paging (`FNAME(page_fault)()`): a guest program translates by tables that the MMU makes from the guest's own.
//!
//! A guest table has one indirect shadow page for each combination of rights that the entries above it allow. A large
//! page of the guest is covered by direct shadow pages, which are shared with the second stage. Guest tables above the
//! lowest level are write-tracked: an emulated write drops the entry that was made from the old one. A table of leaves
//! may become unsync until the guest flushes its TLB (`sync.rs`).
//!
//! Leaves are 4 KiB. A 32-bit guest table has more entries than a shadow page; programs use only the first few.

use crate::fault::{FaultIn, PageFault, Resolved, Wait};
use crate::guest::walk::GuestPath;
use crate::host::{HostPages, TlbFlush};
use crate::memslots::slots::{Memslot, Memslots};
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::shadow_pages::SpKey;
use crate::tables::spte::{Entry, Format, Leaf, pages_of_entry};
use crate::tables::table_pages::Sptep;
use gpa_model::limits::GUEST_LEVELS;
use gpa_model::{Access, Alias, Exit, Gpa, GuestPaging, Gva, Host, Level, Rights};
use std::fmt;

/// Why a guest's tables cannot be shadowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShadowError {
    /// A guest in this mode does not know of stolen bits, but the VM has some.
    StolenBits(GuestPaging),
}

impl fmt::Display for ShadowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::StolenBits(paging) = self;
        let name = paging.name();
        write!(
            f,
            "{name} tables cannot be shadowed in a VM with stolen bits: use 4-level, 5-level or pae, or no stolen bits"
        )
    }
}

impl std::error::Error for ShadowError {}

/// An access by guest-virtual address.
#[derive(Clone, Copy)]
struct Virtual {
    root: Gpa,
    gva: Gva,
    access: Access,
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// An access of a guest program to `gva`, through the guest's tables from `root`, with the fault that it may need.
    ///
    /// # Errors
    /// A [`ShadowError`] if these tables cannot be shadowed.
    pub fn guest_access(
        &self,
        host: &Host,
        tlb: &mut dyn TlbFlush,
        vcpu: u8,
        (root, gva): (Gpa, Gva),
        access: Access,
    ) -> Result<Exit, ShadowError> {
        let at = Virtual { root, gva, access };
        let paging = self.vm.paging();
        if self.vm.stolen().gfn_mask() != 0 && !paging.strips_stolen_bits() {
            return Err(ShadowError::StolenBits(paging));
        }
        let slots = self.slots.read();
        let cached = match self.shadow_walk(&slots, at) {
            // An MMIO entry says only that there is no memslot. The emulator checks what the guest's tables allow.
            Some(Exit::Mmio(gpa)) => Some(gpa),
            Some(exit) => return Ok(exit),
            None => None,
        };
        let path = match self.walk_addr(host, &slots, at.root, at.gva, at.access) {
            Ok(path) => path,
            Err(fault) => return Ok(Exit::GuestFault(fault)),
        };
        if cached == Some(self.vm.stolen().base(path.gpa)) {
            return Ok(Exit::Mmio(path.gpa));
        }
        let hidden = slots.find(self.vm.stolen().split(path.gpa).0).is_some_and(|slot| self.hides(slot));
        let found =
            if hidden { FaultIn::NoSlot } else { self.look_up(host, &slots, vcpu, (path.gpa, at.access), Wait::Sleep) };
        Ok(match found {
            FaultIn::NoSlot => {
                self.shadow_mmio(host, &slots, tlb, (at, &path));
                Exit::Mmio(path.gpa)
            }
            FaultIn::Emulate => Exit::Mmio(path.gpa),
            FaultIn::Async(exit) => exit,
            FaultIn::Error => Exit::Error,
            FaultIn::MemoryFault => Exit::MemoryFault,
            FaultIn::Retry => Exit::Retry,
            FaultIn::Write(pfn) => Exit::Emulated(pfn),
            FaultIn::Fixed => self.shadow_walk(&slots, at).unwrap_or(Exit::Retry),
            FaultIn::Map(fault) => {
                let resolved = self.fetch(host, &slots, tlb, (at, &path), &fault);
                self.finish_page_fault(host, &fault, resolved);
                match resolved {
                    Resolved::Fixed => self.shadow_walk(&slots, at).unwrap_or(Exit::Retry),
                    Resolved::Write => Exit::Emulated(fault.pfn()),
                    Resolved::Retry => Exit::Retry,
                }
            }
        })
    }

    /// The key of the shadow page for the table in the guest's root register (`mmu_alloc_root()`).
    fn root_key(&self, root: Gpa) -> SpKey {
        let (paging, stolen) = (self.vm.paging(), self.vm.stolen());
        let pointer = paging.root(root);
        let gfn = self.policy().table_gfn(stolen, paging, pointer);
        let alias = self.policy().indirect_alias(stolen, pointer);
        let guest_mode = paging.is_nested();
        SpKey { gfn, alias, level: paging.levels(), direct: false, access: Rights::RWX, guest_mode }
    }

    /// A walk of the shadow tables by the processor. Returns `None` if it faults. Nothing is logged here: a write to a
    /// clean entry faults.
    fn shadow_walk(&self, slots: &Memslots, Virtual { root, gva, access }: Virtual) -> Option<Exit> {
        let mmu = self.mmu_lock.lock();
        let mut table = mmu.shadow_pages.find(self.policy(), &self.root_key(root))?;
        for level in (2..=self.vm.paging().levels()).rev() {
            let entry = self.tables.get(Sptep::new(table, gva.index(level).into(), level));
            if !entry.is_present() {
                return None;
            }
            table = entry.table();
        }
        let at = Sptep::new(table, gva.index(1).into(), 1);
        loop {
            let entry = self.tables.get(at);
            if let Some(generation) = entry.mmio_generation() {
                let current = self.policy().mmio_is_current(generation, slots.generation(), slots.in_flux());
                return current.then(|| Exit::Mmio(self.vm.stolen().join(entry.mmio_gfn(), Alias::NONE)));
            }
            let dirties = access == Access::Write && !entry.is_dirty();
            if !entry.rights().contains(Rights::needed(access)) || dirties {
                return None;
            }
            if self.tables.replace(at, entry, entry.accessed()) {
                return Some(Exit::Memory(entry.pfn()));
            }
        }
    }

    /// Maps a fault (`FNAME(fetch)()`).
    fn fetch(
        &self,
        host: &Host,
        slots: &Memslots,
        tlb: &mut dyn TlbFlush,
        (at, path): (Virtual, &GuestPath),
        fault: &PageFault,
    ) -> Resolved {
        let mut mmu = self.mmu_lock.lock();
        if self.is_stale(&mmu, slots, fault) {
            return Resolved::Retry;
        }
        let paging = self.vm.paging();
        let gva = Gpa::from_page(at.gva.offset(paging, paging.levels() + 1));
        if self.policy().warns_of_fault(self.vm.stolen(), gva, fault.gfn) {
            self.warn("a fault at an address with a stolen bit");
        }
        let mut owed = FlushOwed::nothing();
        self.make_mmu_pages_available(&mut mmu, slots, GUEST_LEVELS, tlb);
        let sptep = self.shadow_entry(host, slots, &mut mmu, (at, path), &mut owed);
        let slot = slots.find(fault.gfn);
        // The page may be a table on this path, which is tracked only since the lines above.
        let tracked = slot.is_some_and(|slot| self.is_tracked(slot, fault.gfn, fault.alias));
        let rights = path.rights.intersect(fault.rights);
        let rights = if tracked { rights.minus(Rights::W) } else { rights };
        let rights = self.unsync_for(&mut mmu, slot, fault, rights);
        let old = self.tables.get(sptep);
        if old.is_present() && (old.pfn() != fault.pfn() || mmu.shadow_pages.gfn_of(sptep) != fault.gfn) {
            self.zap(&mut mmu, sptep);
            owed.owe();
        } else if old.is_present() && !rights.contains(old.restored().rights()) {
            owed.owe();
        }
        let (pfn, host_writable) = (fault.pfn(), fault.host_writable);
        let leaf = Leaf { pfn, rights, level: Level::Page4K, host_writable, young: true };
        mmu.shadow_pages.set_gfn(sptep, fault.gfn);
        self.set_leaf(&mut mmu, sptep, fault.gfn, fault.alias, Entry::leaf(leaf));
        if rights.contains(Rights::W) {
            self.mark_dirty(slots, fault.vcpu, self.policy().dirty_key(fault.gfn, fault.alias), fault.alias);
        }
        if self.plants(Mistake::PrefetchInInvalidation) || !self.notifier.is_active() {
            self.prefetch_gptes(host, slots, &mut mmu, sptep);
        }
        owed.all(self.policy(), tlb);
        if tracked && fault.access == Access::Write {
            self.mark_dirty(slots, fault.vcpu, self.policy().dirty_key(fault.gfn, fault.alias), fault.alias);
            return Resolved::Write;
        }
        Resolved::Fixed
    }

    /// Makes an MMIO entry for an address without a memslot (`mark_mmio_spte()`).
    fn shadow_mmio(&self, host: &Host, slots: &Memslots, tlb: &mut dyn TlbFlush, (at, path): (Virtual, &GuestPath)) {
        let gfn = self.vm.stolen().split(path.gpa).0;
        let entry = Entry::mmio(gfn, self.policy().mmio_generation(slots.generation()));
        // An MMIO entry has fewer address bits than a guest entry.
        if !self.policy().caches_mmio(slots.in_flux()) || entry.mmio_gfn() != gfn {
            return;
        }
        let mut mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        self.make_mmu_pages_available(&mut mmu, slots, GUEST_LEVELS, tlb);
        let sptep = self.shadow_entry(host, slots, &mut mmu, (at, path), &mut owed);
        if self.tables.get(sptep).is_present() && !self.plants(Mistake::MmioOverPresent) {
            self.zap(&mut mmu, sptep);
            owed.owe();
        }
        self.tables.set(sptep, entry);
        owed.all(self.policy(), tlb);
    }

    /// The entry for the access in a table of leaves, with the shadow pages on the way to it.
    fn shadow_entry(
        &self,
        host: &Host,
        slots: &Memslots,
        mmu: &mut Locked,
        (at, path): (Virtual, &GuestPath),
        owed: &mut FlushOwed,
    ) -> Sptep {
        let mut table = self.shadow_page(host, slots, mmu, self.root_key(at.root), owed);
        for level in (2..=self.vm.paging().levels()).rev() {
            let sptep = Sptep::new(table, at.gva.index(level).into(), level);
            let wanted = self.child_key(path, level);
            let entry = self.tables.get(sptep);
            if entry.is_present() && self.policy().reuses_child(mmu.shadow_pages.key(entry.table()), &wanted) {
                table = entry.table();
                continue;
            }
            if entry.is_present() {
                mmu.shadow_pages.unlink(entry.table(), sptep);
                self.tables.set(sptep, Entry::ABSENT);
                owed.owe();
            }
            table = self.shadow_page(host, slots, mmu, wanted, owed);
            if !self.plants(Mistake::LinkedWithoutSync) {
                // The guest flushes nothing when it links a table where no entry was present before (65855ed8b034).
                self.sync_children(host, slots, mmu, (table, level - 1), owed);
            }
            mmu.shadow_pages.link(&self.tables, table, sptep);
        }
        Sptep::new(table, at.gva.index(1).into(), 1)
    }

    /// The key of the shadow page below an entry of a table of `level`: for the guest's next table, or for a part of
    /// its large page.
    fn child_key(&self, path: &GuestPath, level: u8) -> SpKey {
        let (paging, stolen) = (self.vm.paging(), self.vm.stolen());
        let guest_mode = paging.is_nested();
        if level <= path.leaf_level {
            // A large page of the guest may span a low stolen bit, and so several aliases of a gfn.
            let (gfn, alias) = stolen.split(path.gpa);
            let gfn = gfn.align_down(pages_of_entry(level));
            return SpKey { access: path.rights, guest_mode, ..SpKey::direct(gfn, alias, level - 1) };
        }
        let step = path.steps[usize::from(level)];
        let gfn = self.policy().table_gfn(stolen, paging, step.pointer);
        let alias = self.policy().indirect_alias(stolen, step.pointer);
        let access = self.policy().child_access(step.rights, step.own);
        SpKey { gfn, alias, level: level - 1, direct: false, access, guest_mode }
    }

    /// The shadow page for `key`, synchronised and write-tracked (`kvm_mmu_get_page()`).
    fn shadow_page(&self, host: &Host, slots: &Memslots, mmu: &mut Locked, key: SpKey, owed: &mut FlushOwed) -> u32 {
        let (table, new) = mmu.shadow_pages.find_or_alloc(self.policy(), key);
        if key.direct {
            return table;
        }
        if new {
            self.account(host, slots, mmu, &key, owed);
        } else if mmu.shadow_pages.is_unsync(table) {
            self.sync_page(host, slots, mmu, table, owed);
        }
        table
    }

    /// Maps the other entries of the guest's table that are plain memory (`FNAME(pte_prefetch)()`).
    fn prefetch_gptes(&self, host: &Host, slots: &Memslots, mmu: &mut Locked, around: Sptep) {
        let key = *mmu.shadow_pages.key(around.table);
        if key.direct {
            return self.prefetch(host, mmu, slots, around);
        }
        let (paging, stolen) = (self.vm.paging(), self.vm.stolen());
        for index in (0..gpa_model::limits::GPTES as u8).filter(|&index| u16::from(index) != around.index) {
            let at = Sptep::new(around.table, index.into(), 1);
            let Some(gpte) = self.read_guest_pte(host, slots, key.gfn, index, 1) else { continue };
            if self.tables.get(at).is_present() {
                continue;
            }
            let gfn = self.policy().prefetch_gfn(stolen, paging, gpte.address());
            if self.policy().warns_of_gpte(stolen, gpte.address(), gfn, gpte.is_present()) {
                self.warn("an entry of the guest with a stolen bit");
            }
            let odd = gpte.is_reserved(self.guest_reserved(paging)) || mmu.attributes.is_changing(gfn, 1);
            if !gpte.is_present() || odd {
                continue;
            }
            let Some(slot) = slots.find(gfn) else { continue };
            let plain = !slot.invalid && !slot.flags.readonly && !slot.flags.log_dirty && !self.hides(slot);
            let allowed = key.access.intersect(gpte.rights());
            let rights = allowed.intersect(self.unasked_rights(slot, gfn, Alias::NONE));
            if let (true, true, Some(hva)) = (plain, rights.contains(Rights::R), slot.hva_of(gfn)) {
                let Ok(pfn) = host.pfn_nowait(hva) else { continue };
                let leaf = Leaf { pfn, rights, level: Level::Page4K, host_writable: true, young: false };
                mmu.shadow_pages.set_gfn(at, gfn);
                self.set_leaf(mmu, at, gfn, Alias::NONE, Entry::leaf(leaf));
                host.release(pfn);
            }
        }
    }

    /// Whether a memslot is hidden from accesses through the guest's tables (`kvm_is_visible_memslot()`).
    fn hides(&self, slot: &Memslot) -> bool {
        slot.id.is_internal() && !slot.invalid && !self.policy().shows_private(self.vm.paging().is_nested())
    }

    /// Records a warning (`WARN_ON()`).
    fn warn(&self, of: &'static str) {
        *self.warning.lock() = Some(of);
    }
}
