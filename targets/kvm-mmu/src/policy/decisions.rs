//! Every decision, each with the right answer as default.

use crate::host::TlbFlush;
use crate::memslots::dirty_ring::DirtyGfn;
use crate::tables::roots::GfnFilter;
use crate::tables::shadow_pages::SpKey;
use gpa_model::{Alias, Gfn, Gpa, GuestPaging, Level, Levels, Rights, SlotChange, SlotId, StolenMask};
use std::fmt::Debug;

/// What becomes of a fault before its page is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AliasFault {
    /// The page is looked up.
    Proceed,
    /// There is no memory for the guest here: user space emulates the access.
    NoSlot,
    /// The slot is being deleted or moved: start again.
    Retry,
}

/// What a policy is told about the memslot of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotSeen {
    /// Its id.
    pub id: SlotId,
    /// Whether it is being deleted or moved.
    pub invalid: bool,
}

/// What a policy is told about a leaf larger than 4 KiB that might map a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LargeSeen {
    /// Whether it would map pages of one memslot only.
    pub inside_slot: bool,
    /// Whether the slot's gfns and hvas are equally far into large pages.
    pub congruent: bool,
    /// Whether the slot logs dirty pages, which it does page by page.
    pub logged: bool,
    /// Whether writes to one of its pages are tracked.
    pub tracked: bool,
    /// Whether all of its pages are of one memory type.
    pub one_type: bool,
    /// Whether small leaves are there because something was executed, which a large one must not be.
    pub split: bool,
    /// Whether its pages are all private or all shared, and stay so.
    pub alike: bool,
    /// Whether what maps some of its pages is being zapped right now.
    pub zapped: bool,
}

/// How the leaves that map a gfn are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// By the rmap. Shadow pages are in a hash, and are recycled (`mmu.c`).
    Rmap,
    /// By walking the tables from each root; a shadow page has one parent and goes with it (`tdp_mmu.c`).
    Tdp,
}

/// Every decision, each with the right answer as default.
pub trait Policy: Debug + Send + Sync + 'static {
    /// Which MMU the decisions are for.
    fn family(&self) -> Family {
        Family::Rmap
    }

    /// How many levels the tables of a VM have that asks for `wanted`.
    fn levels(&self, wanted: Levels) -> Levels {
        wanted
    }

    /// The frame of a faulting address (`vcpu_gpa_to_gfn_unalias()`).
    fn unalias(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        stolen.split(gpa).0
    }

    /// The alias of a faulting address, for the shadow pages on its path.
    fn alias_of(&self, stolen: StolenMask, gpa: Gpa) -> Alias {
        stolen.split(gpa).1
    }

    /// The frame by which the memslot of a fault is looked up.
    fn slot_gfn(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        self.unalias(stolen, gpa)
    }

    /// Flush `pages` frames from `gfn` under every alias: one range each where that works, everything where it does not.
    /// With more than one stolen bit everything is flushed at once, as in the RFC.
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

    /// Flush everything.
    fn flush_all(&self, tlb: &mut dyn TlbFlush) {
        tlb.all();
    }

    /// The alias that a shadow page for the guest's table at `pointer` is tagged with: none, whatever the guest calls the table
    /// (`kvm_mmu_get_page()`, which wraps `__kvm_mmu_get_page()` in the RFC).
    fn indirect_alias(&self, _stolen: StolenMask, _pointer: Gpa) -> Alias {
        Alias::NONE
    }

    /// What the guest allows in the table below an entry: what all entries on the way do, `path`, and not only that one, `own`.
    fn child_access(&self, path: Rights, _own: Rights) -> Rights {
        path
    }

    /// Whether the shadow page that an entry leads to is the one that is `wanted` there now. The guest's entry may have changed
    /// unnoticed (`kvm_mmu_get_child_sp()`).
    fn reuses_child(&self, existing: &SpKey, wanted: &SpKey) -> bool {
        existing == wanted
    }

    /// Whether the shadow pages below a table are synchronised before that table is linked (65855ed8b034).
    fn syncs_before_link(&self) -> bool {
        true
    }

    /// Whether a present SPTE is dropped before an MMIO entry takes its place (`mmu_set_spte()`).
    fn drops_before_mmio(&self) -> bool {
        true
    }

    /// The frame that an entry of the guest leads to, as it is compared with that of its SPTE (`FNAME(sync_page)()`).
    fn sync_gfn(&self, stolen: StolenMask, paging: GuestPaging, leaf: Gpa) -> Gfn {
        self.leaf_gfn(stolen, paging, leaf)
    }

    /// Whether a read leaves a table of the guest writable that is out of step. To take that right back is to owe a flush.
    fn leaves_unsync_writable(&self) -> bool {
        true
    }

    /// The frame that is mapped for a neighbouring entry of the guest (`FNAME(prefetch_gpte)()`).
    fn prefetch_gfn(&self, stolen: StolenMask, paging: GuestPaging, leaf: Gpa) -> Gfn {
        self.leaf_gfn(stolen, paging, leaf)
    }

    /// Whether to warn of a neighbouring entry that holds `leaf` and leads to `gfn`. What the guest writes is its own affair:
    /// only a stolen bit that is left in a frame number is a mistake of ours.
    fn warns_of_gpte(&self, stolen: StolenMask, _leaf: Gpa, gfn: Gfn, present: bool) -> bool {
        present && stolen.taints(gfn.raw())
    }

    /// Whether to warn of a fault at the guest's virtual address `gva`, which leads to `gfn` (`FNAME(fetch)()`).
    fn warns_of_fault(&self, stolen: StolenMask, _gva: Gpa, gfn: Gfn) -> bool {
        stolen.taints(gfn.raw())
    }

    /// Whether a shadow page whose gfn lies in a memslot goes with it: only if it stands for a table that is there. What one of the
    /// direct kind is for has nothing to do with where its gfn is (58a20a9435aa).
    fn goes_with_slot(&self, key: &SpKey) -> bool {
        !key.direct
    }

    /// Whether private slots are there for who goes by the guest's tables: not for a guest of the guest (3a2936dedd20).
    fn shows_private(&self, guest_mode: bool) -> bool {
        !guest_mode
    }

    /// Whether an existing shadow page serves for `wanted`: gfn, alias and role must all match.
    fn same_shadow_page(&self, existing: &SpKey, wanted: &SpKey) -> bool {
        existing == wanted
    }

    /// The key by which a new shadow page is put into the hash. It is looked up by its own.
    fn bucket_key(&self, key: SpKey) -> SpKey {
        key
    }

    /// What a new shadow page is remembered as.
    fn stored_key(&self, key: SpKey) -> SpKey {
        key
    }

    /// Whether a neighbour in slot `id` may be mapped under `alias` without being asked for (`direct_pte_prefetch_many()`).
    fn may_prefetch(&self, alias: Alias, id: SlotId) -> bool {
        alias.is_none() || !id.is_internal()
    }

    /// Whether to prefetch while pages are being invalidated. Their invalidation may not have reached the neighbours yet.
    fn prefetches_in_invalidation(&self) -> bool {
        false
    }

    /// The address by which the tables are walked to map a fault.
    fn walked(&self, _stolen: StolenMask, gpa: Gpa) -> Gpa {
        gpa
    }

    /// The key under which an SPTE goes into the rmap.
    fn rmap_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The key under which an SPTE is taken out of the rmap again, worked out from where it is. It must be the key it was
    /// put in with.
    fn remove_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// What becomes of a fault, by its alias and memslot (`kvm_faultin_pfn()`): an INVALID slot first, since its SPTEs may
    /// still exist; then an alias of nothing or of a private slot.
    fn fault_in(&self, alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
        match slot {
            Some(slot) if slot.invalid => AliasFault::Retry,
            Some(slot) if alias.is_none() || !slot.id.is_internal() => AliasFault::Proceed,
            _ => AliasFault::NoSlot,
        }
    }

    /// Whether a page that had to be read in is held like one that was there (`hva_to_pfn_remapped()`).
    fn holds_read_in(&self) -> bool {
        true
    }

    /// Whether a page is held from its look-up until it is mapped.
    fn holds_until_mapped(&self) -> bool {
        true
    }

    /// Whether a fault that has to start again lets go of its page, too.
    fn releases_stale(&self) -> bool {
        true
    }

    /// Whether user space is told of a page that nobody can have, and not of a hole (`kvm_handle_error_pfn()`).
    fn tells_no_page(&self) -> bool {
        true
    }

    /// Whether a fault asks the notifier, under the lock, if its page is out of date.
    fn checks_notifier(&self) -> bool {
        true
    }

    /// Whether a fault asks, under the lock, if the memslots are still those it looked its page up in.
    fn checks_slots(&self) -> bool {
        true
    }

    /// The sequence number of invalidations as a fault remembers it.
    fn snapshot(&self, mmu_seq: u64) -> u64 {
        mmu_seq
    }

    /// Whether an access without a slot may be remembered in an MMIO entry; not while the memslots are changing.
    fn caches_mmio(&self, in_flux: bool) -> bool {
        !in_flux
    }

    /// The frame that an MMIO entry remembers (`mark_mmio_spte()`).
    fn mmio_gfn(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The memslot generation as an MMIO entry remembers it.
    fn mmio_generation(&self, generation: u64) -> u64 {
        generation
    }

    /// Whether an MMIO entry of `made` may be believed now.
    fn mmio_is_current(&self, made: u64, now: u64, in_flux: bool) -> bool {
        made == self.mmio_generation(now) && !in_flux
    }

    /// Whether MMIO entries are dropped when the generation wraps.
    fn drops_mmio_on_wrap(&self) -> bool {
        true
    }

    /// Whether what maps a slot is zapped when `change` makes it INVALID.
    fn zaps_for(&self, _change: &SlotChange) -> bool {
        true
    }

    /// Whether invalidations reach slot `id`; private slots too.
    fn invalidates(&self, _id: SlotId) -> bool {
        true
    }

    /// Whether what maps `gfn` can be zapped: whatever can be mapped can.
    fn can_zap(&self, _gfn: Gfn) -> bool {
        true
    }

    /// How many pages `KVM_CLEAR_DIRTY_LOG` forgets when it is asked for `pages`.
    fn cleared(&self, pages: u64) -> u64 {
        pages
    }

    /// The frame an address in the guest's own tables leads to: without stolen bits in the modes that know of them, as it
    /// stands in the others (`PT_LVL_ADDR_MASK()`).
    fn gpte_gfn(&self, stolen: StolenMask, paging: GuestPaging, address: Gpa) -> Gfn {
        if paging.strips_stolen_bits() { stolen.split(address).0 } else { Gfn::new(address.page()) }
    }

    /// The frame a table pointer of the guest leads to (`gpte_to_gfn()`), and CR3 or its like.
    fn table_gfn(&self, stolen: StolenMask, paging: GuestPaging, table: Gpa) -> Gfn {
        self.gpte_gfn(stolen, paging, table)
    }

    /// The frame a leaf of the guest's tables leads to (`gpte_to_gfn_lvl()`).
    fn leaf_gfn(&self, stolen: StolenMask, paging: GuestPaging, leaf: Gpa) -> Gfn {
        self.gpte_gfn(stolen, paging, leaf)
    }

    /// How many levels a walk of the guest's tables goes down.
    fn walk_levels(&self, paging: GuestPaging) -> u8 {
        paging.levels()
    }

    /// The bits of an address in the guest's tables that must be clear. Stolen bits need not be, even above MAXPHYADDR.
    fn reserved_gpa_bits(&self, stolen: StolenMask, maxphyaddr: u8) -> u64 {
        stolen.reserved_gpa_bits(maxphyaddr)
    }

    /// The frame that is marked dirty when a writable SPTE is made.
    fn dirty_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The frame that is marked dirty when a fast page fault makes an SPTE writable.
    fn fast_dirty_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// The frame by which a write is known to be tracked.
    fn track_key(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// Whether write-protection leaves alone what is not writable now. An SPTE that a fast page fault may make writable
    /// again has to lose that, too.
    fn skips_readonly(&self) -> bool {
        false
    }

    /// The address that is mapped when user space asks for `gpa` to be.
    fn prefaulted(&self, _stolen: StolenMask, gpa: Gpa) -> Gpa {
        gpa
    }

    /// Whether user space is refused that asks for an alias to be mapped (8046d29dde17).
    fn refuses_aliased_prefault(&self) -> bool {
        self.family() == Family::Tdp
    }

    /// Which names of its gfns are meant when host pages are invalidated. Here both are behind an hva; where private pages
    /// come from a guest_memfd, as on Linux, their invalidation is another and asks for their names alone.
    fn invalidated_names(&self) -> GfnFilter {
        GfnFilter::All
    }

    /// Whether what the walk of one root owes is still owed after that of the next.
    fn keeps_flush_of_other_roots(&self) -> bool {
        true
    }

    /// Whether what is owed is flushed before a walk of several roots gives the lock up: what it owes for the root it is in, or for
    /// those before.
    fn flushes_before_yield(&self, of_earlier_roots: bool, of_this_root: bool) -> bool {
        of_earlier_roots || of_this_root
    }

    /// Where a walk goes on that gave the lock up before it looked at an entry for `pages` frames from `next`: at the entry
    /// (`tdp_iter_restart()`).
    fn restarted_at(&self, next: Gfn, _pages: u64) -> Gfn {
        next
    }

    /// Whether what hangs from an entry of a retired root is taken apart, which translates the addresses before `end`: all of it,
    /// even if that is more than a guest can address (524a1e4e381f).
    fn takes_apart(&self, _end: Gpa, _maxphyaddr: u8) -> bool {
        true
    }

    /// Whether invalidations reach roots that no vCPU will load again, but whose tables are still there (d62007edf01f).
    fn invalidates_retired_roots(&self) -> bool {
        true
    }

    /// The address by which software walks the tables (`kvm_tdp_mmu_get_walk()`): the frame and the name of a fault.
    fn walk_key(&self, stolen: StolenMask, gpa: Gpa) -> (Gfn, Alias) {
        stolen.split(gpa)
    }

    /// Whether a memslot whose gfn carries a stolen bit is refused.
    fn refuses_aliased_slots(&self) -> bool {
        true
    }

    /// The frame of an address that the processor logged (`vmx_flush_pml_buffer()`).
    fn pml_gfn(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        stolen.split(gpa).0
    }

    /// Whether what the processor logged is taken over before anybody reads the dirty log.
    fn drains_pml(&self) -> bool {
        true
    }

    /// The frame whose place in its memslot a dirty ring lists.
    fn listed_gfn(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// Whether there is a ring for what `_writer` wrote, though it is taken over while `_running` runs, or no vCPU does: the
    /// writer's own, always (CVE-2022-1263).
    fn has_ring(&self, _writer: u8, _running: Option<u8>) -> bool {
        true
    }

    /// Whether a vCPU stays out of the guest while its dirty ring is nearly full.
    fn stops_when_full(&self) -> bool {
        true
    }

    /// Whether a listed page comes right after `pages` pages from `first`, of the same memslot.
    fn continues_run(&self, first: DirtyGfn, pages: u64, next: DirtyGfn) -> bool {
        next.slot == first.slot && next.offset == first.offset.wrapping_add(pages)
    }

    /// The frame that a vCPU waits for which faulted on `gpa`: one for all aliases, so that the guest is told once
    /// (`kvm_find_async_pf_gfn()`).
    fn awaited_gfn(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        self.unalias(stolen, gpa)
    }

    /// The address that is mapped when the page is there which the guest faulted on at `gpa` (`kvm_arch_async_page_ready()`).
    fn ready_gpa(&self, _stolen: StolenMask, gpa: Gpa) -> Gpa {
        gpa
    }

    /// Whether a vCPU that waits for nothing any more forgets pages, too, that have been read in and that it has not taken
    /// (CVE-2024-26976).
    fn cancels_done_work(&self) -> bool {
        true
    }

    /// Whether TLBs are flushed after the dirty rings were reset.
    fn flushes_reset(&self) -> bool {
        true
    }

    /// Whether TLBs are flushed after shadow pages were recycled and before they are made anew.
    fn flushes_recycled(&self) -> bool {
        true
    }

    /// Whether table pages are freed after the flush that makes TLBs forget what was mapped through them.
    fn flushes_before_free(&self) -> bool {
        true
    }

    /// Whether TLBs are flushed when everything that is mapped becomes obsolete.
    fn flushes_obsolete(&self) -> bool {
        true
    }

    /// Whether a shadow page of an older generation serves for a new mapping.
    fn finds_obsolete(&self) -> bool {
        false
    }

    /// How many SPTEs of a chain of `len` are write-protected.
    fn write_protected(&self, len: usize) -> usize {
        len
    }

    /// How many SPTEs of a chain of `len` are zapped.
    fn zapped(&self, len: usize) -> usize {
        len
    }

    /// Whether what ageing took the rights from has to be flushed when it is zapped: ageing flushes nothing.
    fn flushes_idle(&self) -> bool {
        true
    }

    /// Whether a leaf larger than 4 KiB may map a fault, as far as the memslot is concerned.
    fn may_map_large(&self, seen: LargeSeen) -> bool {
        let alike = seen.one_type && seen.alike;
        let free = !seen.logged && !seen.tracked && !seen.split && !seen.zapped;
        seen.inside_slot && seen.congruent && alike && free
    }

    /// The frame by which the memory type of a fault is looked up.
    fn memory_type_gfn(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
        self.unalias(stolen, gpa)
    }

    /// Whether what maps frames goes when they get another memory type.
    fn zaps_for_memory_type(&self) -> bool {
        true
    }

    /// Whether what maps frames goes when they become private or shared.
    fn zaps_for_attributes(&self) -> bool {
        true
    }

    /// Whether a large leaf keeps away from frames whose attributes are changing, though the fault is for another.
    fn sees_changing_attributes(&self) -> bool {
        true
    }

    /// Whether an instruction fetch is mapped small where large leaves must not be executable.
    fn splits_for_execute(&self) -> bool {
        true
    }

    /// Whether a large leaf is executable where none must be.
    fn large_executable(&self) -> bool {
        false
    }

    /// Whether TLBs are flushed after a table was taken away to make room for a large leaf again.
    fn flushes_recovered(&self) -> bool {
        true
    }

    /// Whether a table that is zapped leaves the list of those to recover.
    fn unlists_zapped(&self) -> bool {
        true
    }

    /// How large a host mapping the page is part of: as it is under the lock, or as it was when the page was looked up.
    fn host_level(&self, now: Level, _before: Level) -> Level {
        now
    }

    /// The frame from which those of the shadow pages and leaves for a fault are worked out (`base_gfn` in `__direct_map()`).
    fn base_gfn(&self, gfn: Gfn, _alias: Alias) -> Gfn {
        gfn
    }

    /// How far the faulting page lies above the first of its leaf, which is for `leaf`.
    fn offset_in_leaf(&self, stolen: StolenMask, gpa: Gpa, leaf: Gfn) -> u64 {
        self.unalias(stolen, gpa).raw().wrapping_sub(leaf.raw())
    }

    /// The frames that a range flush has to reach when a large leaf for `pages` frames from `leaf`, which lies in a table for
    /// those from `table`, loses a right or is dropped because of `gfn`: all of the leaf.
    fn flushed_for_large(&self, leaf: Gfn, pages: u64, _table: Gfn, _gfn: Gfn) -> (Gfn, u64) {
        (leaf, pages)
    }

    /// Whether zapping reaches large leaves.
    fn zaps_large(&self) -> bool {
        true
    }

    /// Whether a fast page fault leaves large leaves of logged slots alone.
    fn keeps_large_protected(&self) -> bool {
        true
    }

    /// Whether large leaves are write-protected where small ones have their dirty bits cleared.
    fn protects_large_for_pml(&self) -> bool {
        true
    }

    /// Whether what is zapped to make room for large leaves is flushed.
    fn flushes_collapsed(&self) -> bool {
        true
    }

    /// Whether ageing looks at SPTEs under `alias`.
    fn ages(&self, _alias: Alias) -> bool {
        true
    }
}
