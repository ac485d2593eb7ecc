//! Mutants: each is the corrected design with one decision made wrongly, to show that the oracles have teeth.
//!
//! M*xy* breaks hunk *x* of the RFC or, from M80 on, a claim of its message; M*x*V to M*x*Z are variants of our own. B*nn* makes a
//! mistake again that Linux once made, with the commit that mended it or the CVE. To add one: a policy that overrides one method, and a line in the table.

use crate::adapter::KvmMmu;
use crate::flush::TlbFlush;
use crate::policy::{AliasFault, Corrected, LargeSeen, Policy, RfcV3, SlotSeen};
use crate::shadow_page::SpKey;
use crate::spte::EptNoAd;
use gpa_model::{Alias, Gfn, Gpa, GuestPaging, Level, Levels, Mmu, SlotChange, SlotId, StolenMask, VcpuSet};

/// What a mutant breaks, and who is meant to notice.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name in the catalogue.
    pub name: &'static str,
    /// The hunk or claim of the RFC that it breaks.
    pub breaks: &'static str,
    /// The oracle meant to catch it, and the clause.
    pub caught_by: (&'static str, &'static str),
    /// Not generic, so that each mutant is compiled once, here.
    make: fn() -> Box<dyn Mmu>,
}

/// A mutant of the catalogue that nobody can tell from the corrected design by what a guest or user space sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equivalent {
    /// Its name in the catalogue.
    pub name: &'static str,
    /// What it changes, and why no law is broken.
    pub why: &'static str,
}

/// The equivalent mutants. Not among them is what cannot be seen yet because this MMU lacks the feature that it breaks.
/// `tests/equivalent.rs` has each as a policy and finds no oracle that objects.
pub const EQUIVALENT: &[Equivalent] = &[
    Equivalent {
        name: "M12-hweight-ge1",
        why: "with one stolen bit everything is flushed instead of two ranges: a TLB that holds less is never wrong",
    },
    Equivalent {
        name: "M17-end-as-count",
        why: "the gfn after the last is taken for the number of pages: that is more than asked for, and a TLB that holds less is \
              never wrong",
    },
    Equivalent {
        name: "M18-xor-instead-of-or",
        why: "the alias of the range is made by XOR: what is flushed is a gfn, which has no stolen bits, and there XOR is OR",
    },
    Equivalent {
        name: "M32-prefetch-blocks-base",
        why: "private slots are not prefetched under the base name either: the page is mapped when it is accessed",
    },
    Equivalent {
        name: "M33-prefetch-blocks-user",
        why: "nothing is prefetched under an alias: the page is mapped when it is accessed",
    },
    Equivalent {
        name: "M34-prefetch-gfn-aliased",
        why: "a neighbour's slot is looked up with the stolen bits: no slot has them, so nothing is prefetched, as in M33",
    },
    Equivalent {
        name: "M51-noslot-fallthrough",
        why: "an alias of a hole goes the way of its base name: that finds no slot either, and ends in the same exit",
    },
    Equivalent {
        name: "M53-return-handled",
        why: "no MMIO entry is made: the next access faults again and ends in the same exit",
    },
];

impl Mutant {
    /// The mutant, ready to run.
    pub fn mmu(&self) -> Box<dyn Mmu> {
        (self.make)()
    }
}

/// The mutant called `name`, or `None` if there is none.
pub fn named(name: &str) -> Option<&'static Mutant> {
    ALL.iter().find(|mutant| mutant.name == name)
}

macro_rules! mutants {
    ($($policy:ident $(on $format:ident)? = $name:literal, $breaks:literal, $oracle:literal / $clause:literal, { $($body:tt)* })*) => {
        $(
            #[doc = concat!($name, ": ", $breaks, ".")]
            #[derive(Clone, Copy, Debug)]
            pub enum $policy {}

            impl Policy for $policy { $($body)* }
        )*

        /// Every mutant, in the order of the catalogue.
        pub static ALL: &[Mutant] = &[
            $(Mutant {
                name: $name,
                breaks: $breaks,
                caught_by: ($oracle, $clause),
                make: {
                    // A closure would be compiled, with the whole MMU, by every crate that looks at the list.
                    #[inline(never)]
                    fn make() -> Box<dyn Mmu> {
                        Box::new(KvmMmu::<$policy $(, $format)?>::default())
                    }
                    make
                },
            },)*
        ];
    };
}

/// The page number with its stolen bits, taken for a gfn: the mistake most of these mutants make.
fn raw_gfn(gpa: Gpa) -> Gfn {
    Gfn::new(gpa.page())
}

fn aliased(gfn: Gfn, alias: Alias) -> Gfn {
    Gfn::new(gfn.raw() | alias.raw())
}

mutants! {
    MaskShift = "M01-mask-shift", "mmu.h: the mask is applied in gpa position to a gfn", "gfn_unalias" / "exit", {
        fn unalias(stolen: StolenMask, gpa: Gpa) -> Gfn {
            Gfn::new(gpa.page() & !stolen.gpa_mask())
        }
    }
    UnaliasNoop = "M02-unalias-noop", "mmu.h: stolen bits stay in the gfn", "gfn_unalias" / "exit", {
        fn unalias(_: StolenMask, gpa: Gpa) -> Gfn {
            raw_gfn(gpa)
        }
    }
    UnaliasWide = "M03-unalias-wide", "mmu.h: an ordinary address bit is stripped too", "gfn_unalias" / "spte", {
        fn unalias(stolen: StolenMask, gpa: Gpa) -> Gfn {
            Gfn::new(stolen.split(gpa).0.raw() & !2)
        }
    }
    FlushBaseOnly = "M10-flush-base-only", "flush: the alias range is left out", "alias_flush" / "stale-write", {
        fn flush_range(stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            flush_or_all(tlb, stolen.join(gfn, Alias::NONE), pages);
        }
    }
    FlushAliasOnly = "M11-flush-alias-only", "flush: the base range is left out", "alias_flush" / "stale-write", {
        fn flush_range(stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            let last = stolen.alias_count() - 1;
            flush_or_all(tlb, stolen.join(gfn, stolen.alias(last)), pages);
        }
    }
    FlushOnlyAllBits = "M13-flush-only-all-bits", "flush: with two stolen bits, only none and both", "alias_flush" / "stale-write", {
        fn flush_range(stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if !tlb.has_range() || tlb.range(stolen.join(gfn, Alias::NONE), pages).is_err() {
                return tlb.all();
            }
            flush_or_all(tlb, stolen.join(gfn, stolen.alias(stolen.alias_count() - 1)), pages);
        }
    }
    NoRangeOpSilent = "M14-no-range-op-silent", "flush: nothing is flushed where ranges cannot be", "alias_flush" / "stale-write", {
        fn flush_range(stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if tlb.has_range() {
                Corrected::flush_range(stolen, gfn, pages, tlb);
            }
        }
    }
    FirstErrIgnored = "M15-first-err-ignored", "flush: the error of the first range is ignored", "alias_flush" / "stale-write", {
        fn flush_range(stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if !tlb.has_range() || stolen.alias_count() > 2 {
                return tlb.all();
            }
            let _ignored = tlb.range(stolen.join(gfn, Alias::NONE), pages);
            if stolen.alias_count() == 2 {
                flush_or_all(tlb, stolen.join(gfn, stolen.alias(1)), pages);
            }
        }
    }
    SecondErrIgnored = "M16-second-err-ignored", "flush: the error of the alias range is ignored (gap G1)", "alias_flush" / "stale-write", {
        fn flush_range(stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            RfcV3::flush_range(stolen, gfn, pages, tlb);
        }
    }
    PagesShort = "M1A-pages-short", "flush: the alias range is one page short", "alias_flush" / "stale-write", {
        fn flush_range(stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if !tlb.has_range() || stolen.alias_count() > 2 {
                return tlb.all();
            }
            for alias in stolen.aliases() {
                let pages = if alias.is_none() { pages } else { pages - 1 };
                if tlb.range(stolen.join(gfn, alias), pages).is_err() {
                    return tlb.all();
                }
            }
        }
    }
    NoRound = "M19-no-round", "flush: a large leaf is flushed from the faulting page on", "alias_flush" / "stale-write", {
        fn flushed_for_large(_: Gfn, pages: u64, _: Gfn, gfn: Gfn) -> (Gfn, u64) {
            (gfn, pages)
        }
    }
    FlushOneVcpu = "M1V-flush-one-vcpu", "flush: only one vCPU is reached", "alias_flush" / "stale-page", {
        fn flush_all(tlb: &mut dyn TlbFlush) {
            tlb.on(VcpuSet::one(0));
        }
    }
    CompareOnlyGfn = "M21-compare-only-gfn", "shadow pages: aliases share one", "private_slot" / "alias-unmapped", {
        fn same_shadow_page(existing: &SpKey, wanted: &SpKey) -> bool {
            existing.gfn == wanted.gfn && existing.level == wanted.level
        }
    }
    StolenNotStored = "M22-stolen-not-stored", "shadow pages: the alias is not remembered", "private_slot" / "alias-unmapped", {
        fn stored_key(key: SpKey) -> SpKey {
            SpKey { alias: Alias::NONE, ..key }
        }
    }
    SpGfnIncludesStolen = "M23-spgfn-includes-stolen", "shadow pages: the gfn carries the stolen bits", "gfn_unalias" / "keyed", {
        fn stored_key(key: SpKey) -> SpKey {
            SpKey { gfn: aliased(key.gfn, key.alias), ..key }
        }
    }
    HashBucketOnlyGfn = "M20-hash-bucket-only-gfn", "__kvm_mmu_get_page(): a page is put into the hash by its gfn and looked up by its alias, too", "structure" / "unique", {
        fn bucket_key(key: SpKey) -> SpKey {
            SpKey { alias: Alias::NONE, ..key }
        }
    }
    RoleCompareDropped = "M26-role-compare-dropped", "__kvm_mmu_get_page(): a page of any level serves", "structure" / "rmap", {
        fn same_shadow_page(existing: &SpKey, wanted: &SpKey) -> bool {
            (existing.gfn, existing.alias) == (wanted.gfn, wanted.alias)
        }
    }
    RecycledUnflushed = "M2V-recycled-unflushed", "kvm_mmu_commit_zap_page(): pages are made anew while TLBs still know them", "alias_flush" / "stale-page", {
        fn flushes_recycled() -> bool {
            false
        }
    }
    PrefetchPrivate = "M30-prefetch-private", "prefetch: private slots under an alias", "private_slot" / "alias-unmapped", {
        fn may_prefetch(_: Alias, _: SlotId) -> bool {
            true
        }
    }
    PrefetchOffByOne = "M31-prefetch-off-by-one", "prefetch: the first private slot counts as a user's", "private_slot" / "alias-unmapped", {
        fn may_prefetch(alias: Alias, id: SlotId) -> bool {
            alias.is_none() || !id.is_private() || id == SlotId::private(0)
        }
    }
    PrefetchInInvalidation = "M3V-prefetch-in-invalidation", "prefetch: of pages that are being taken away", "gfn_unalias" / "spte", {
        fn prefetches_in_invalidation() -> bool {
            true
        }
    }
    FourLevels = "M4V-four-levels", "mapping: four levels of tables where an alias needs five", "private_slot" / "alias-unmapped", {
        fn levels(_: Levels) -> Levels {
            Levels::Four
        }
    }
    StolenFromGfn = "M40-stolen-from-gfn", "mapping: shadow pages of an alias are tagged as those of the base name", "structure" / "rmap", {
        fn alias_of(_: StolenMask, _: Gpa) -> Alias {
            Alias::NONE
        }
    }
    WalkByGfn = "M41-walk-by-gfn", "mapping: the tables are walked by the base address", "progress" / "retry", {
        fn walked(stolen: StolenMask, gpa: Gpa) -> Gpa {
            stolen.join(stolen.split(gpa).0, Alias::NONE)
        }
    }
    BaseGfnAliased = "M42-basegfn-aliased", "mapping: the base gfn carries the stolen bits", "gfn_unalias" / "keyed", {
        fn base_gfn(gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    RmapAliased = "M43-rmap-aliased", "mapping: the rmap key carries the stolen bits", "gfn_unalias" / "spte", {
        fn rmap_key(gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    PfnFromRaw = "M44-pfn-from-raw", "mapping: the page is as far into its leaf as the raw frame is", "gfn_unalias" / "exit", {
        fn offset_in_leaf(_: StolenMask, gpa: Gpa, leaf: Gfn) -> u64 {
            gpa.page().wrapping_sub(leaf.raw())
        }
    }
    LargeBeyondSlot = "M4V-large-beyond-slot", "mapping: a large leaf reaches beyond its memslot", "gfn_unalias" / "spte", {
        fn may_map_large(seen: LargeSeen) -> bool {
            Corrected::may_map_large(LargeSeen { inside_slot: true, ..seen })
        }
    }
    LargeIncongruent = "M4W-large-incongruent", "mapping: a large leaf where gfns and hvas are not equally aligned", "gfn_unalias" / "spte", {
        fn may_map_large(seen: LargeSeen) -> bool {
            Corrected::may_map_large(LargeSeen { congruent: true, ..seen })
        }
    }
    LargeWhileLogging = "M4X-large-while-logging", "mapping: a large leaf in a slot that logs", "dirty_log" / "missing", {
        fn may_map_large(seen: LargeSeen) -> bool {
            Corrected::may_map_large(LargeSeen { logged: false, ..seen })
        }
    }
    LargeOverTracked = "M4Y-large-over-tracked", "mapping: a large leaf over a page whose writes are tracked", "gfn_unalias" / "spte", {
        fn may_map_large(seen: LargeSeen) -> bool {
            Corrected::may_map_large(LargeSeen { tracked: false, ..seen })
        }
    }
    LevelBeforeLock = "M4Z-level-before-lock", "mapping: the host's large page is looked at without the lock", "gfn_unalias" / "spte", {
        fn host_level(_: Level, before: Level) -> Level {
            before
        }
    }
    AliasPrivateExposed = "M50-alias-private-exposed", "fault-in: aliases of private slots are memory", "private_slot" / "alias-exit", {
        fn fault_in(_: Alias, slot: Option<SlotSeen>) -> AliasFault {
            Corrected::fault_in(Alias::NONE, slot)
        }
    }
    InvalidAsNoslot = "M52-invalid-as-noslot", "fault-in: an alias of an INVALID slot has no slot (gap G2)", "gfn_unalias" / "exit", {
        fn fault_in(alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            RfcV3::fault_in(alias, slot)
        }
    }
    AppliesToBase = "M54-applies-to-base", "fault-in: private slots are shut off under their base name too", "private_slot" / "base-exit", {
        fn fault_in(alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            match slot {
                Some(slot) if slot.id.is_private() && !slot.invalid => AliasFault::NoSlot,
                _ => Corrected::fault_in(alias, slot),
            }
        }
    }
    SlotIdOffByOne = "M55-slot-id-off-by-one", "fault-in: the first private slot counts as a user's", "private_slot" / "alias-exit", {
        fn fault_in(alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            match slot {
                Some(slot) if slot.id == SlotId::private(0) => Corrected::fault_in(Alias::NONE, Some(slot)),
                _ => Corrected::fault_in(alias, slot),
            }
        }
    }
    VisibleIgnoresInvalid = "M56-visible-ignores-invalid", "fault-in: an INVALID slot is mapped", "gfn_unalias" / "exit", {
        fn fault_in(alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            Corrected::fault_in(alias, slot.map(|slot| SlotSeen { invalid: false, ..slot }))
        }
    }
    NotifierUnchecked = "M5V-notifier-unchecked", "fault-in: what raced with an invalidation is mapped", "gfn_unalias" / "exit", {
        fn checks_notifier() -> bool {
            false
        }
    }
    SlotRaw = "M61-slot-raw", "fault: the memslot is looked up by the raw frame", "gfn_unalias" / "exit", {
        fn slot_gfn(_: StolenMask, gpa: Gpa) -> Gfn {
            raw_gfn(gpa)
        }
    }
    PagetrackRaw = "M62-pagetrack-raw", "fault: write tracking is looked up by the raw frame", "gfn_unalias" / "spte", {
        fn track_key(gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    Pt64Nostrip = "M70-pt64-nostrip", "guest tables: no entry is stripped", "gfn_unalias" / "guest-fault", {
        fn gpte_gfn(_: StolenMask, _: GuestPaging, address: Gpa) -> Gfn {
            raw_gfn(address)
        }
    }
    Pt64StripLeafOnly = "M71-pt64-strip-leaf-only", "guest tables: table pointers are not stripped", "gfn_unalias" / "guest-fault", {
        fn table_gfn(_: StolenMask, _: GuestPaging, table: Gpa) -> Gfn {
            raw_gfn(table)
        }
    }
    Pt64StripTableOnly = "M72-pt64-strip-table-only", "guest tables: leaves are not stripped", "gfn_unalias" / "translate", {
        fn leaf_gfn(_: StolenMask, _: GuestPaging, leaf: Gpa) -> Gfn {
            raw_gfn(leaf)
        }
    }
    Pt32Strip = "M73-pt32-strip", "guest tables: 32-bit entries lose address bits", "gfn_unalias" / "translate", {
        fn gpte_gfn(stolen: StolenMask, paging: GuestPaging, address: Gpa) -> Gfn {
            let strips = paging == GuestPaging::Legacy;
            Corrected::gpte_gfn(stolen, if strips { GuestPaging::Pae } else { paging }, address)
        }
    }
    EptStrip = "M74-ept-strip", "guest tables: those of a nested EPT are unaliased", "gfn_unalias" / "translate", {
        fn gpte_gfn(stolen: StolenMask, paging: GuestPaging, address: Gpa) -> Gfn {
            let strips = paging == GuestPaging::NestedEpt;
            Corrected::gpte_gfn(stolen, if strips { GuestPaging::FourLevel } else { paging }, address)
        }
    }
    StolenBitsReserved = "M7V-stolen-bits-reserved", "guest tables: a stolen bit above MAXPHYADDR is reserved (gap G8)", "gfn_unalias" / "guest-fault", {
        fn reserved_gpa_bits(stolen: StolenMask, maxphyaddr: u8) -> u64 {
            RfcV3::reserved_gpa_bits(stolen, maxphyaddr)
        }
    }
    DirtyByRaw = "M80-dirty-by-raw", "claim: the dirty log is kept by gfn", "dirty_log" / "missing", {
        fn dirty_key(gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    WrprotFirstOnly = "M81-wrprot-first-spte-only", "claim: write-protection reaches every alias", "dirty_log" / "write-protected", {
        fn write_protected(len: usize) -> usize {
            len.min(1)
        }
    }
    MtrrByRaw = "M83-mtrr-by-raw", "claim: memory types are looked up by gfn (gap G5)", "large_leaf" / "memory-type", {
        fn memory_type_gfn(_: StolenMask, gpa: Gpa) -> Gfn {
            raw_gfn(gpa)
        }
    }
    MtrrWithoutZap = "M83V-mtrr-without-zap", "claim: what maps frames goes when their memory type changes", "large_leaf" / "memory-type", {
        fn zaps_for_memory_type() -> bool {
            false
        }
    }
    UnmapFirstOnly = "M87-unmap-first-spte-only", "claim: unmapping reaches every alias", "gfn_unalias" / "spte", {
        fn zapped(len: usize) -> usize {
            len.min(1)
        }
    }
    AgeBaseOnly = "M88-age-base-only", "claim: ageing reaches every alias", "gfn_unalias" / "age", {
        fn ages(alias: Alias) -> bool {
            alias.is_none()
        }
    }
    IdleUnflushed on EptNoAd = "M88V-idle-unflushed", "claim: what ageing took the rights from may still be in a TLB", "alias_flush" / "stale-page", {
        fn flushes_idle() -> bool {
            false
        }
    }
    FastpfDirtyRaw = "M89-fastpf-dirty-raw", "claim: a fast page fault logs by gfn", "dirty_log" / "missing", {
        fn fast_dirty_key(gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    PmlRaw = "M8A-pml-raw", "claim: addresses logged by the processor are unaliased (gap G6)", "dirty_log" / "missing", {
        fn pml_gfn(_: StolenMask, gpa: Gpa) -> Gfn {
            raw_gfn(gpa)
        }
    }
    PmlNotDrained = "M8V-pml-not-drained", "claim: the log holds what the processor has logged", "dirty_log" / "missing", {
        fn drains_pml() -> bool {
            false
        }
    }
    SmallZappedOnly = "M8W-large-not-zapped", "claim: unmapping reaches leaves of every size", "gfn_unalias" / "spte", {
        fn zaps_large() -> bool {
            false
        }
    }
    FastpfLarge = "M8X-fastpf-large", "claim: a large leaf is not made writable where writes are logged", "dirty_log" / "missing", {
        fn keeps_large_protected() -> bool {
            false
        }
    }
    PmlLarge = "M8Y-pml-large", "claim: no dirty bit of a large leaf logs writes", "dirty_log" / "missing", {
        fn protects_large_for_pml() -> bool {
            false
        }
    }
    CollapseUnflushed = "M8Z-collapse-unflushed", "claim: what makes room for large leaves is flushed", "alias_flush" / "stale-page", {
        fn flushes_collapsed() -> bool {
            false
        }
    }
    FlushWrongStart = "B04-flush-wrong-start", "history: the flushed range begins too late (574c3c55e969)", "alias_flush" / "stale-write", {
        fn flush_range(stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            Corrected::flush_range(stolen, gfn.add(1), pages, tlb);
        }
    }
    FlushOnePage = "B06-flush-one-page", "history: one page is flushed of a large leaf (9ffe9265375c)", "alias_flush" / "stale-write", {
        fn flushed_for_large(_: Gfn, _: u64, _: Gfn, gfn: Gfn) -> (Gfn, u64) {
            (gfn, 1)
        }
    }
    FlushFromTable = "B06V-flush-from-table", "history: a large leaf is flushed from the first frame of its table on (1b2dc7360463)", "alias_flush" / "stale-write", {
        fn flushed_for_large(_: Gfn, pages: u64, table: Gfn, _: Gfn) -> (Gfn, u64) {
            (table, pages)
        }
    }
    ObsoleteSlots = "B15-obsolete-slots", "history: a fault is resolved against memslots that are gone (a955cad84cda)", "gfn_unalias" / "exit", {
        fn checks_slots() -> bool {
            false
        }
    }
    InvalidIsMmio = "B17-invalid-is-mmio", "history: an INVALID slot is taken for no slot (e0c378684b65)", "gfn_unalias" / "exit", {
        fn fault_in(alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            Corrected::fault_in(alias, slot.filter(|slot| !slot.invalid))
        }
    }
    MoveWithoutZap = "B20-move-without-zap", "history: a slot moves without an INVALID step (CVE-2013-4592)", "gfn_unalias" / "spte", {
        fn zaps_for(change: &SlotChange) -> bool {
            !matches!(change, SlotChange::Move { .. })
        }
    }
    MappableNotZappable = "B22-mappable-not-zappable", "history: frames above a bound are mapped but never zapped (86931ff7207b)", "gfn_unalias" / "spte", {
        fn can_zap(gfn: Gfn) -> bool {
            gfn.raw() < 0x200
        }
    }
    MmioGenerationOverlap = "B23-mmio-generation-overlap", "history: a bit of the MMIO generation is lost (56871d444bc4)", "gfn_unalias" / "exit", {
        fn mmio_generation(generation: u64) -> u64 {
            generation & !2
        }
    }
    MmioCachedInFlux = "B24-mmio-cached-in-flux", "history: MMIO is cached while memslots change (ddfd1730fd82)", "gfn_unalias" / "exit", {
        fn caches_mmio(_: bool) -> bool {
            true
        }

        fn mmio_is_current(made: u64, now: u64, _: bool) -> bool {
            made == now || made + 1 == now
        }
    }
    MmioWrapIgnored = "B25-mmio-wrap-ignored", "history: MMIO entries survive the wrap of the generation (152482580a1b)", "gfn_unalias" / "exit", {
        fn drops_mmio_on_wrap() -> bool {
            false
        }

        fn mmio_is_current(made: u64, now: u64, in_flux: bool) -> bool {
            made >= now && !in_flux
        }
    }
    RemoveKeyDiffers = "B27-remove-key-differs", "history: an rmap entry is looked for under another gfn than it was put under (CVE-2026-46113)", "structure" / "rmap", {
        fn remove_key(gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    WrprotSkipsReadonly = "B31-wrprot-skips-readonly", "history: write-protection skips what is read-only but may be made writable without the lock (7c8a4742c4ab)", "gfn_unalias" / "exit", {
        fn skips_readonly() -> bool {
            true
        }
    }
    WalkRootLevel = "B33-walk-root-level", "history: the walk of a nested EPT begins at a wrong level (CVE-2017-12188)", "gfn_unalias" / "guest-fault", {
        fn walk_levels(paging: GuestPaging) -> u8 {
            if paging == GuestPaging::NestedEpt { paging.levels() + 1 } else { paging.levels() }
        }
    }
    ClearOffByOne = "B34-clear-off-by-one", "history: the log forgets one page more than it was asked for", "dirty_log" / "missing", {
        fn cleared(pages: u64) -> u64 {
            pages + 1
        }
    }
    NarrowSeq = "B38-narrow-mmu-seq", "history: the snapshot of mmu_seq has 31 bits (ba6e3fe25543)", "progress" / "retry", {
        fn snapshot(mmu_seq: u64) -> u64 {
            mmu_seq & 0x7fff_ffff
        }
    }
    PrivateNotInvalidated = "B40-private-not-invalidated", "history: invalidations leave private slots out (878940b33d76)", "gfn_unalias" / "spte", {
        fn invalidates(id: SlotId) -> bool {
            !id.is_private()
        }
    }
    LargeWhileAttributesChange = "B47-large-while-changing", "history: a large leaf is made over frames whose attributes are changing (9129633d568e)", "gfn_unalias" / "spte", {
        fn sees_changing_attributes() -> bool {
            false
        }
    }
    AttributesIgnored = "B47V-attributes-ignored", "history: a large leaf has private and shared frames", "large_leaf" / "attributes", {
        fn may_map_large(seen: LargeSeen) -> bool {
            Corrected::may_map_large(LargeSeen { alike: true, ..seen })
        }
    }
    AttributesWithoutZap = "B47W-attributes-without-zap", "history: what maps frames stays when their attributes change", "large_leaf" / "attributes", {
        fn zaps_for_attributes() -> bool {
            false
        }
    }
    PrefaultWrongRoot = "B49V-prefault-wrong-root", "history: asked for an alias, the base name is mapped (aa2024c01a9a)", "progress" / "mapped", {
        fn prefaulted(stolen: StolenMask, gpa: Gpa) -> Gpa {
            stolen.join(stolen.split(gpa).0, Alias::NONE)
        }
    }
    AliasedSlotAccepted = "B49-aliased-slot-accepted", "history: a memslot at an aliased frame is accepted (2c3412e99973, gap G7)", "gfn_unalias" / "exit", {
        fn refuses_aliased_slots() -> bool {
            false
        }
    }
}

/// One range if that works, everything otherwise.
fn flush_or_all(tlb: &mut dyn TlbFlush, gpa: Gpa, pages: u64) {
    if !tlb.has_range() || tlb.range(gpa, pages).is_err() {
        tlb.all();
    }
}
