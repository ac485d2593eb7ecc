//! The decisions, each with the corrected one as default.

use super::mistake::Mistake;
use crate::host::TlbFlush;
use crate::memslots::dirty_ring::DirtyGfn;
use crate::tables::roots::GfnFilter;
use crate::tables::shadow_pages::SpKey;
use gpa_model::{Alias, Gfn, Gpa, GuestPaging, Level, Levels, Rights, SlotChange, SlotId, StolenMask};
use std::fmt::Debug;

/// How a fault goes on, by its alias and memslot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AliasFault {
    /// Its page is looked up.
    Proceed,
    /// There is no memory for this address: user space emulates the access.
    NoSlot,
    /// The memslot is being deleted or moved: the fault starts again.
    Retry,
}

/// The memslot of a fault, as a policy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotSeen {
    /// Its id.
    pub id: SlotId,
    /// Whether it is being deleted or moved.
    pub invalid: bool,
}

/// A candidate for a large leaf, as a policy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LargeSeen {
    /// Whether it covers pages of one memslot only.
    pub inside_slot: bool,
    /// Whether gfns and hvas of the memslot have the same offset in large pages.
    pub congruent: bool,
    /// Whether the memslot logs dirty pages.
    pub logged: bool,
    /// Whether writes to one of its pages are tracked.
    pub tracked: bool,
    /// Whether all of its pages have one memory type.
    pub one_type: bool,
    /// Whether it was split for an instruction fetch, which a large leaf must not serve.
    pub split: bool,
    /// Whether its pages are all private or all shared, and no change of that is in progress.
    pub alike: bool,
    /// Whether some of its pages are being zapped.
    pub zapped: bool,
}

/// How the leaves of a gfn are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// By the rmap. Shadow pages are found by a hash and can be recycled (`mmu.c`).
    Rmap,
    /// By walks from the roots. A shadow page has one parent and goes with it (`tdp_mmu.c`).
    Tdp,
}

/// The decisions of an MMU. Each default is the corrected one.
pub trait Policy: Debug + Send + Sync + 'static {
    /// The MMU that the decisions are for.
    fn family(&self) -> Family {
        Family::Rmap
    }

    /// Whether the MMU makes the mistake `of`. Only a mutant does.
    fn plants(&self, _of: Mistake) -> bool {
        false
    }

    /// The number of table levels of a VM that asks for `wanted`.
    fn levels(&self, wanted: Levels) -> Levels {
        wanted
    }

    /// The gfn of a faulting address (`vcpu_gpa_to_gfn_unalias()`).
    fn unalias(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        stolen.split(gpa).0
    }

    /// The alias of a faulting address, which goes into the shadow pages on its path.
    fn alias_of(&self, stolen: StolenMask, gpa: Gpa) -> Alias {
        stolen.split(gpa).1
    }

    /// The gfn by which the memslot of a fault is looked up.
    fn slot_gfn(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        self.unalias(stolen, gpa)
    }

    /// Flushes `pages` gfns from `gfn` under every alias: a range each, or everything if a range fails. With more than
    /// one stolen bit it flushes everything at once, as in the RFC.
    fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
        if !tlb.has_range() || stolen.alias_count() > 2 {
            return tlb.all();
        }
        for alias in stolen.aliases() {
            if tlb.range(stolen.join(gfn, alias), pages).is_err() {
                return tlb.all();
            }
        }
    }

    /// Flushes everything.
    fn flush_all(&self, tlb: &mut dyn TlbFlush) {
        tlb.all();
    }

    /// The alias in the key of a shadow page for the guest's table at `pointer`: none, since a guest table is one table
    /// under all aliases (`kvm_mmu_get_page()`, which wraps `__kvm_mmu_get_page()` in the RFC).
    fn indirect_alias(&self, _stolen: StolenMask, _pointer: Gpa) -> Alias {
        Alias::NONE
    }

    /// The access in the key of the shadow page below a guest entry: what all entries on the path allow (`path`), not
    /// what this entry alone allows (`own`).
    fn child_access(&self, path: Rights, _own: Rights) -> Rights {
        path
    }

    /// Whether the shadow page that an entry links is still the `wanted` one. The guest's entry may have changed since
    /// (`kvm_mmu_get_child_sp()`).
    fn reuses_child(&self, existing: &SpKey, wanted: &SpKey) -> bool {
        existing == wanted
    }

    /// The gfn of a guest entry, for comparison with its SPTE (`FNAME(sync_page)()`).
    fn sync_gfn(&self, stolen: StolenMask, paging: GuestPaging, leaf: Gpa) -> Gfn {
        self.leaf_gfn(stolen, paging, leaf)
    }

    /// The gfn that is mapped for a neighbouring guest entry (`FNAME(prefetch_gpte)()`).
    fn prefetch_gfn(&self, stolen: StolenMask, paging: GuestPaging, leaf: Gpa) -> Gfn {
        self.leaf_gfn(stolen, paging, leaf)
    }

    /// Whether to warn about a neighbouring guest entry with address `leaf` that leads to `gfn`. A guest may write
    /// anything; only a stolen bit that is left in a gfn is a bug of the MMU.
    fn warns_of_gpte(&self, stolen: StolenMask, _leaf: Gpa, gfn: Gfn, present: bool) -> bool {
        present && stolen.taints(gfn.raw())
    }

    /// Whether to warn about a fault at guest-virtual address `gva` that leads to `gfn` (`FNAME(fetch)()`).
    fn warns_of_fault(&self, stolen: StolenMask, _gva: Gpa, gfn: Gfn) -> bool {
        stolen.taints(gfn.raw())
    }

    /// Whether a shadow page goes with the memslot that contains its gfn: only an indirect one does. The gfn of a
    /// direct page says nothing about a memslot (58a20a9435aa).
    fn goes_with_slot(&self, key: &SpKey) -> bool {
        !key.direct
    }

    /// Whether internal memslots are visible to accesses through the guest's tables: not to a nested guest
    /// (3a2936dedd20).
    fn shows_private(&self, guest_mode: bool) -> bool {
        !guest_mode
    }

    /// Whether an existing shadow page can be used for `wanted`: gfn, alias and role must match.
    fn same_shadow_page(&self, existing: &SpKey, wanted: &SpKey) -> bool {
        existing == wanted
    }

    /// The key that selects the hash bucket of a new shadow page.
    fn bucket_key(&self, key: SpKey) -> SpKey {
        key
    }

    /// The key that a new shadow page stores.
    fn stored_key(&self, key: SpKey) -> SpKey {
        key
    }

    /// Whether a neighbour in memslot `id` may be prefetched under `alias` (`direct_pte_prefetch_many()`).
    fn may_prefetch(&self, alias: Alias, id: SlotId) -> bool {
        alias.is_none() || !id.is_internal()
    }

    /// The address by which the tables are walked to map a fault.
    fn walked(&self, _stolen: StolenMask, gpa: Gpa) -> Gpa {
        gpa
    }

    /// The key under which an SPTE is added to the rmap.
    fn rmap_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The key under which an SPTE is removed from the rmap, computed from its place. It must equal the key of the
    /// addition.
    fn remove_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// How a fault goes on (`kvm_faultin_pfn()`). An INVALID memslot is checked first, since its SPTEs may still exist;
    /// then an alias of a hole or of an internal memslot.
    fn fault_in(&self, alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
        match slot {
            Some(slot) if slot.invalid => AliasFault::Retry,
            Some(slot) if alias.is_none() || !slot.id.is_internal() => AliasFault::Proceed,
            _ => AliasFault::NoSlot,
        }
    }

    /// The sequence number of invalidations as a fault stores it.
    fn snapshot(&self, mmu_seq: u64) -> u64 {
        mmu_seq
    }

    /// Whether an access without a memslot may get an MMIO entry: not while memslots change.
    fn caches_mmio(&self, in_flux: bool) -> bool {
        !in_flux
    }

    /// The gfn in an MMIO entry (`mark_mmio_spte()`).
    fn mmio_gfn(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The memslot generation in an MMIO entry.
    fn mmio_generation(&self, generation: u64) -> u64 {
        generation
    }

    /// Whether an MMIO entry of generation `made` is current.
    fn mmio_is_current(&self, made: u64, now: u64, in_flux: bool) -> bool {
        made == self.mmio_generation(now) && !in_flux
    }

    /// Whether the mappings of a memslot are zapped when `change` makes it INVALID.
    fn zaps_for(&self, _change: &SlotChange) -> bool {
        true
    }

    /// Whether invalidations reach memslot `id`. Internal memslots count too.
    fn invalidates(&self, _id: SlotId) -> bool {
        true
    }

    /// Whether mappings of `gfn` can be zapped: every gfn that can be mapped can be zapped.
    fn can_zap(&self, _gfn: Gfn) -> bool {
        true
    }

    /// The number of pages that `KVM_CLEAR_DIRTY_LOG` clears if asked for `pages`.
    fn cleared(&self, pages: u64) -> u64 {
        pages
    }

    /// The gfn of an address in the guest's tables: without stolen bits in modes that know of them, unchanged in the
    /// others (`PT_LVL_ADDR_MASK()`).
    fn gpte_gfn(&self, stolen: StolenMask, paging: GuestPaging, address: Gpa) -> Gfn {
        if paging.strips_stolen_bits() { stolen.split(address).0 } else { Gfn::new(address.page()) }
    }

    /// The gfn of a table pointer (`gpte_to_gfn()`) or of the root register.
    fn table_gfn(&self, stolen: StolenMask, paging: GuestPaging, table: Gpa) -> Gfn {
        self.gpte_gfn(stolen, paging, table)
    }

    /// The gfn of a leaf of the guest's tables (`gpte_to_gfn_lvl()`).
    fn leaf_gfn(&self, stolen: StolenMask, paging: GuestPaging, leaf: Gpa) -> Gfn {
        self.gpte_gfn(stolen, paging, leaf)
    }

    /// The number of levels of a walk of the guest's tables.
    fn walk_levels(&self, paging: GuestPaging) -> u8 {
        paging.levels()
    }

    /// The reserved address bits in the guest's tables. Stolen bits are not reserved, even above MAXPHYADDR.
    fn reserved_gpa_bits(&self, stolen: StolenMask, maxphyaddr: u8) -> u64 {
        stolen.reserved_gpa_bits(maxphyaddr)
    }

    /// The gfn that is marked dirty when a writable SPTE is made.
    fn dirty_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The gfn that is marked dirty when a fast page fault makes an SPTE writable.
    fn fast_dirty_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The gfn by which write tracking is looked up.
    fn track_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The address that is mapped when user space asks for `gpa` (`KVM_PRE_FAULT_MEMORY`).
    fn prefaulted(&self, _stolen: StolenMask, gpa: Gpa) -> Gpa {
        gpa
    }

    /// Whether a request to map an alias is refused (8046d29dde17).
    fn refuses_aliased_prefault(&self) -> bool {
        self.family() == Family::Tdp
    }

    /// The addresses that an invalidation of host pages concerns. In a VM with a shared bit these are the shared ones, since private
    /// pages come from a guest_memfd (`kvm_mmu_notifier_invalidate_range_start()`). Otherwise every alias has an hva.
    fn invalidated_names(&self, shared_private: bool) -> GfnFilter {
        if shared_private { GfnFilter::Shared } else { GfnFilter::All }
    }

    /// The addresses that a hole in the guest_memfd concerns, in a VM with a shared bit.
    fn names_of_hole(&self) -> GfnFilter {
        GfnFilter::Private
    }

    /// The addresses that a change of attributes to `private` or shared concerns: in a VM with a shared bit those of the kind that
    /// goes (`kvm_arch_pre_set_memory_attributes()`).
    fn names_of_converted(&self, shared_private: bool, private: bool) -> GfnFilter {
        match (shared_private, private) {
            (false, _) => GfnFilter::All,
            (true, true) => GfnFilter::Shared,
            (true, false) => GfnFilter::Private,
        }
    }

    /// The addresses that the deletion of a memslot concerns, in a VM with a shared bit (`kvm_mmu_zap_memslot()`).
    fn names_of_deleted(&self) -> GfnFilter {
        GfnFilter::All
    }

    /// Whether an owed flush is done before a walk over several roots drops the lock: for earlier roots, or for this
    /// one.
    fn flushes_before_yield(&self, of_earlier_roots: bool, of_this_root: bool) -> bool {
        of_earlier_roots || of_this_root
    }

    /// The gfn at which a walk resumes that dropped the lock before an entry for `pages` gfns from `next`
    /// (`tdp_iter_restart()`).
    fn restarted_at(&self, next: Gfn, _pages: u64) -> Gfn {
        next
    }

    /// Whether an entry of a replaced root that translates addresses before `end` is taken apart: every one is, even
    /// beyond the guest's addresses (524a1e4e381f).
    fn takes_apart(&self, _end: Gpa, _maxphyaddr: u8) -> bool {
        true
    }

    /// The gfn and alias of a software walk (`kvm_tdp_mmu_get_walk()`).
    fn walk_key(&self, stolen: StolenMask, gpa: Gpa) -> (Gfn, Alias) {
        stolen.split(gpa)
    }

    /// Whether a memslot whose gfn carries a stolen bit is refused.
    fn refuses_aliased_slots(&self) -> bool {
        true
    }

    /// The gfn of an address that the processor logged (`vmx_flush_pml_buffer()`).
    fn pml_gfn(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        stolen.split(gpa).0
    }

    /// The gfn whose place in the memslot goes into a dirty ring.
    fn listed_gfn(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// Whether a write of vCPU `_writer` finds a ring when it is drained while `_running`, or no vCPU, runs: it goes to
    /// the writer's ring (CVE-2022-1263).
    fn has_ring(&self, _writer: u8, _running: Option<u8>) -> bool {
        true
    }

    /// Whether an entry continues a run of `pages` pages from `first` in the same memslot.
    fn continues_run(&self, first: DirtyGfn, pages: u64, next: DirtyGfn) -> bool {
        next.slot == first.slot && next.offset == first.offset.wrapping_add(pages)
    }

    /// The gfn that a vCPU waits for after a fault on `gpa`: one for all aliases, so that the guest is told once
    /// (`kvm_find_async_pf_gfn()`).
    fn awaited_gfn(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        self.unalias(stolen, gpa)
    }

    /// The address that is mapped when the page is ready for which the guest faulted on `gpa`
    /// (`kvm_arch_async_page_ready()`).
    fn ready_gpa(&self, _stolen: StolenMask, gpa: Gpa) -> Gpa {
        gpa
    }

    /// The number of SPTEs of a chain of `len` that are write-protected.
    fn write_protected(&self, len: usize) -> usize {
        len
    }

    /// The number of SPTEs of a chain of `len` that are zapped.
    fn zapped(&self, len: usize) -> usize {
        len
    }

    /// Whether a large leaf may map a fault.
    fn may_map_large(&self, seen: LargeSeen) -> bool {
        let alike = seen.one_type && seen.alike;
        let free = !seen.logged && !seen.tracked && !seen.split && !seen.zapped;
        seen.inside_slot && seen.congruent && alike && free
    }

    /// The gfn by which the memory type of a fault is looked up.
    fn memory_type_gfn(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        self.unalias(stolen, gpa)
    }

    /// The size of the host mapping: as it is under the lock (`now`), not as it was at the look-up (`_before`).
    fn host_level(&self, now: Level, _before: Level) -> Level {
        now
    }

    /// The gfn from which the keys of shadow pages and leaves are computed (`base_gfn` in `__direct_map()`).
    fn base_gfn(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The offset of the faulting page in the leaf that begins at `leaf`.
    fn offset_in_leaf(&self, stolen: StolenMask, gpa: Gpa, leaf: Gfn) -> u64 {
        self.unalias(stolen, gpa).raw().wrapping_sub(leaf.raw())
    }

    /// The gfns that a range flush has to cover when a large leaf for `pages` gfns from `leaf` changes because of
    /// `gfn`. Its table begins at `table`.
    fn flushed_for_large(&self, leaf: Gfn, pages: u64, _table: Gfn, _gfn: Gfn) -> (Gfn, u64) {
        (leaf, pages)
    }

    /// Whether ageing reaches SPTEs under `alias`.
    fn ages(&self, _alias: Alias) -> bool {
        true
    }
}
