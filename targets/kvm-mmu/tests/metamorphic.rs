//! Metamorphic checks: two programs, or two VMs, that must behave alike because nothing but names or the way to flush differs.
//! No reference model says here what is right, so these hold for mistakes that the model might share.
//!
//! Each check is also shown to fail on mutants that break just this.

#![expect(clippy::disallowed_types, reason = "the model says which ops mean something; it judges nothing here")]

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile, readdress};
use gpa_model::limits::{DIRTY_RING, FRAMES};
use gpa_model::{
    BackendMode, Exit, Flush, FlushBackend, GfnIndexed, Gpa, Gpte, GpteFlags, GuestPaging, Host, Level, Mmu, Model, Op,
    Program, SlotChange, Span, Spte, StolenMask, VcpuSet, VmConfig,
};
use gpa_oracles::{Lockstep, Signature};
use kvm_mmu::mutants;
use kvm_mmu::{Corrected, KvmMmu};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::collections::BTreeSet;

const PROGRAMS: usize = 4_000;

/// A translation that a TLB may still hold: alias number, frame, what it was.
type Stale = (usize, usize, u64);

/// How to get the MMU that a check is about.
type Make<'a> = &'a dyn Fn() -> Box<dyn Mmu>;

/// One VM, driven op by op. The model only says which ops mean something.
struct Run {
    vm: VmConfig,
    model: Model,
    host: Host,
    mode: BackendMode,
    flush: FlushBackend,
    mmu: Box<dyn Mmu>,
    tables: Vec<[Option<Spte>; FRAMES]>,
    stale: BTreeSet<Stale>,
}

impl Run {
    fn new(make: Make<'_>, vm: &VmConfig) -> Self {
        let mut mmu = make();
        mmu.reset(vm);
        Self {
            vm: *vm,
            model: Model::new(vm),
            host: Host::new(vm),
            mode: vm.backend(),
            flush: FlushBackend::default(),
            mmu,
            tables: vec![[None; FRAMES]; vm.stolen().alias_count()],
            stale: BTreeSet::new(),
        }
    }

    /// Carry out `op`; `None` if it means nothing here.
    fn step(&mut self, op: &Op) -> Option<Exit> {
        if !self.model.accepts(&self.host, op) {
            return None;
        }
        if let Op::Backend(mode) = op {
            self.mode = *mode;
        }
        self.host.apply(op);
        self.flush.begin_op(self.mode);
        let exit = self.mmu.step(&self.host, &mut self.flush, op);
        self.host.settle(op, &exit);
        self.model.step(&self.host, op, &exit);
        self.look();
        Some(exit)
    }

    /// Read the tables again, and keep what was there and has not been flushed since.
    fn look(&mut self) {
        for alias in 0..self.tables.len() {
            let mut now = [None; FRAMES];
            self.mmu.walk_window(self.vm.gpa(0, alias), self.vm.stride(), &mut |frame, spte| now[frame] = Some(spte));
            let before = std::mem::replace(&mut self.tables[alias], now);
            for (frame, before) in before.into_iter().enumerate().filter(|&(frame, before)| before != now[frame]) {
                self.stale.extend(before.map(|spte| (alias, frame, spte.raw())));
            }
        }
        let tables = &self.tables;
        let covered = |old: Spte, now: Spte| {
            now.pfn() == old.pfn() && now.rights().contains(old.rights()) && now.level() >= old.level()
        };
        let shown = |&(alias, frame, raw): &Stale| {
            Spte::from_raw(raw).zip(tables[alias][frame]).is_some_and(|(old, now)| covered(old, now))
        };
        self.stale.retain(|stale| !shown(stale));
        for flush in self.flush.log() {
            match *flush {
                Flush::All { vcpus } if vcpus == VcpuSet::ALL => self.stale.clear(),
                Flush::Range { gpa, pages, ok: true } => {
                    let (vm, flushed) = (self.vm, Span { start: gpa, pages });
                    self.stale.retain(|&(alias, frame, raw)| {
                        let level = Spte::from_raw(raw).map_or(Level::Page4K, Spte::level);
                        !flushed.covers(Span::of_leaf(vm.gpa(frame, alias), level))
                    });
                }
                Flush::All { .. } | Flush::Range { .. } => {}
            }
        }
    }

    /// What the rmap and the dirty log are keyed by, and the names of the translations in the rmap.
    fn keys(&self) -> Vec<(&'static str, u64, Option<Gpa>)> {
        let mut keys = Vec::new();
        self.mmu.inspect(&mut |key| match key {
            GfnIndexed::Rmap { gfn, gpa, .. } => keys.push((key.table(), gfn, Some(gpa))),
            GfnIndexed::DirtyLog(gfn) | GfnIndexed::Mmio(gfn) | GfnIndexed::AsyncPf(gfn) => {
                keys.push((key.table(), gfn, None));
            }
            GfnIndexed::ShadowRmap { gfn, .. } | GfnIndexed::ShadowLeaf { gfn, .. } => {
                keys.push((key.table(), gfn, None));
            }
            GfnIndexed::ShadowPage { .. } | GfnIndexed::NxSplit { .. } => {}
            GfnIndexed::Table { .. } | GfnIndexed::Retired { .. } => {}
        });
        keys.sort_unstable();
        keys
    }
}

/// The same thing said with other names: the alias with number `i` is called `names[i]`.
struct Renaming<'a> {
    vm: VmConfig,
    names: &'a [usize],
}

impl Renaming<'_> {
    fn gpa(&self, gpa: Gpa) -> Gpa {
        let stolen = self.vm.stolen();
        let (gfn, alias) = stolen.split(gpa);
        stolen.join(gfn, stolen.alias(self.names[stolen.alias_index(alias)]))
    }

    fn op(&self, op: Op) -> Op {
        match op {
            Op::Access { vcpu, gpa, access } => Op::Access { vcpu, gpa: self.gpa(gpa), access },
            Op::FaultBegin { vcpu, gpa, access } => Op::FaultBegin { vcpu, gpa: self.gpa(gpa), access },
            Op::Prefault { vcpu, gpa } => Op::Prefault { vcpu, gpa: self.gpa(gpa) },
            Op::SlotAliased { id, gpa, pages, hva } => Op::SlotAliased { id, gpa: self.gpa(gpa), pages, hva },
            Op::WriteGpte { vcpu, gpa, index, gpte } => {
                let gpte = Gpte::new(self.gpa(gpte.gpa()), gpte.flags());
                Op::WriteGpte { vcpu, gpa: self.gpa(gpa), index, gpte }
            }
            Op::GuestWalk { vcpu, root, gva, access } => Op::GuestWalk { vcpu, root: self.gpa(root), gva, access },
            Op::GuestAccess { vcpu, root, gva, access } => Op::GuestAccess { vcpu, root: self.gpa(root), gva, access },
            Op::Translate { vcpu, table, leaf } => Op::Translate { vcpu, table: self.gpa(table), leaf: self.gpa(leaf) },
            _ => op,
        }
    }

    /// What `op` ended in. A guest's own tables lead to base names, whatever name they are given.
    fn exit(&self, op: &Op, exit: Exit) -> Exit {
        match (op, exit) {
            (Op::GuestAccess { .. }, _) => exit,
            (_, Exit::Mmio(gpa)) => Exit::Mmio(self.gpa(gpa)),
            (_, Exit::PageReady(gpa)) => Exit::PageReady(self.gpa(gpa)),
            _ => exit,
        }
    }
}

/// How one program does not keep to a law.
type Check = fn(Make<'_>, &mut Lockstep, &Program) -> Result<(), String>;

/// What `check` says against the MMUs of `make`, for each program it says anything against.
fn failures(check: Check, make: Make<'_>) -> impl Iterator<Item = String> {
    let (mut choices, generator) = (FromRng(Xoshiro256PlusPlus::seed_from_u64(7)), Generator::new(Profile::default()));
    let (mut lockstep, mut program) = (Lockstep::default(), Program::default());
    (0..PROGRAMS).filter_map(move |n| {
        generator.program(&mut choices, &mut program);
        // Which tables aliases share depends on which bits they have, and so does what is recycled.
        program.ops.retain(|op| !matches!(op, Op::MmuPages { .. }));
        let why = check(make, &mut lockstep, &program).err()?;
        Some(format!("program {n}: {why}\n{}", gpa_model::text::print(&program)))
    })
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, first: &T, second: &T) -> Result<(), String> {
    if first == second { Ok(()) } else { Err(format!("{what}: {first:?}, but {second:?}")) }
}

/// Whether what `op` writes to a table of the guest means another page where other bits are stolen: a large one may span such a bit, so
/// that one half of it is by an alias, and bit 51 may be one.
fn hangs_on_stolen_bits(vm: &VmConfig, op: &Op) -> bool {
    let Op::WriteGpte { gpte, .. } = op else { return false };
    let (flags, stolen) = (gpte.flags(), vm.stolen());
    let spanned = |bit: &u8| Gpa::new(1 << bit).page() < Level::Page1G.pages();
    flags.contains(GpteFlags::LARGE) && stolen.bits().iter().any(spanned)
        || flags.contains(GpteFlags::BIT51) && stolen.bits().contains(&51)
}

/// What the oracles say about any target.
fn verdict(make: Make<'_>, run: &mut Lockstep, vm: &VmConfig, ops: &[Op]) -> Option<Signature> {
    let program = Program { vm: *vm, ops: ops.to_vec(), comment: Vec::new() };
    run.run(&mut make(), &program).map(|violation| violation.signature)
}

fn with(vm: &VmConfig, stolen: StolenMask, backend: BackendMode) -> VmConfig {
    vm.with_stolen(stolen).expect("fewer stolen bits are legal, too").with_backend(backend)
}

/// A program that uses base names only does the same whether there are stolen bits or not: exits, tables and keys.
fn no_stolen_bits_is_plain_kvm(make: Make<'_>, lockstep: &mut Lockstep, program: &Program) -> Result<(), String> {
    let aliased = program.vm;
    let plain = with(&aliased, StolenMask::NONE, aliased.backend());
    // Where there are stolen bits, tables of a guest that does not know of them are not shadowed.
    let refused = |op: &Op| matches!(op, Op::GuestAccess { .. }) && !aliased.paging().strips_stolen_bits();
    // Readdressed to a VM without aliases, an op has only base names; these mean the same in both.
    let meant = program.ops.iter().filter(|op| !refused(op) && !hangs_on_stolen_bits(&aliased, op));
    let ops: Vec<Op> = meant.map(|op| readdress(&aliased, &plain, *op)).collect();
    let (mut first, mut second) = (Run::new(make, &plain), Run::new(make, &aliased));
    for op in &ops {
        same("exit", &first.step(op), &second.step(op))?;
        same("table", &first.tables[0], &second.tables[0])?;
        for table in &second.tables[1..] {
            same("table of an alias", table, &[None; FRAMES])?;
        }
    }
    same("keys", &first.keys(), &second.keys())?;
    let verdicts = [plain, aliased].map(|vm| verdict(make, lockstep, &vm, &ops));
    same("verdict", &verdicts[0], &verdicts[1])
}

/// Run `ops` under both names and compare everything up to the renaming.
fn alike(make: Make<'_>, lockstep: &mut Lockstep, vm: &VmConfig, ops: &[Op], names: &[usize]) -> Result<(), String> {
    // A guest that does not know of stolen bits tells names apart.
    let knows = vm.paging().strips_stolen_bits();
    let vm = &if knows { *vm } else { vm.with_paging(GuestPaging::Pae) };
    let renaming = Renaming { vm: *vm, names };
    let renamed: Vec<Op> = ops.iter().map(|op| renaming.op(*op)).collect();
    let (mut first, mut second) = (Run::new(make, vm), Run::new(make, vm));
    for (op, other) in ops.iter().zip(&renamed) {
        same("exit", &first.step(op).map(|exit| renaming.exit(op, exit)), &second.step(other))?;
        for (alias, &name) in names.iter().enumerate() {
            same("table", &first.tables[alias], &second.tables[name])?;
        }
    }
    let mut keys = first.keys();
    for (_, _, gpa) in &mut keys {
        *gpa = gpa.map(|gpa| renaming.gpa(gpa));
    }
    keys.sort_unstable();
    same("keys", &keys, &second.keys())?;
    let blind =
        |verdict: Option<Signature>| verdict.map(|signature| (signature.oracle, signature.clause, signature.op));
    let verdicts = [ops, &renamed].map(|ops| blind(verdict(make, lockstep, vm, ops)));
    same("verdict", &verdicts[0], &verdicts[1])
}

/// Which of the aliases that carry a stolen bit is used changes nothing but the names in exits and tables.
fn aliases_are_interchangeable(make: Make<'_>, lockstep: &mut Lockstep, program: &Program) -> Result<(), String> {
    let count = program.vm.stolen().alias_count();
    if count < 4 {
        return Ok(());
    }
    let rotated: Vec<usize> = (0..count).map(|i| if i == 0 { 0 } else { i % (count - 1) + 1 }).collect();
    let reversed: Vec<usize> = (0..count).map(|i| if i == 0 { 0 } else { count - i }).collect();
    let means_the_same = |op: &Op| !hangs_on_stolen_bits(&program.vm, op);
    let ops: Vec<Op> = program.ops.iter().copied().filter(means_the_same).collect();
    alike(make, lockstep, &program.vm, &ops, &rotated)?;
    alike(make, lockstep, &program.vm, &ops, &reversed)
}

/// Where there is no private slot, the base name is a name like any other. Memslots are asked for by gfn, so those ops stay
/// as they are, and requests for aliased ones, which must be refused, are left out. So are large pages of the guest: its tables
/// lead to base names, and what a large page covers shares the shadow pages of that name.
fn base_is_a_name_like_any_other(make: Make<'_>, lockstep: &mut Lockstep, program: &Program) -> Result<(), String> {
    let private = |op: &Op| match *op {
        Op::Slot { id, change: SlotChange::Create { .. } }
        | Op::SlotBegin { id, change: SlotChange::Create { .. } } => id.is_internal(),
        Op::SlotAliased { .. } => true,
        _ => false,
    };
    let large = |op: &Op| matches!(op, Op::WriteGpte { gpte, .. } if gpte.flags().contains(GpteFlags::LARGE));
    let ops: Vec<Op> = program.ops.iter().copied().filter(|op| !private(op) && !large(op)).collect();
    let count = program.vm.stolen().alias_count();
    for swap in [1, count - 1].into_iter().filter(|_| count > 1) {
        let names: Vec<usize> = (0..count).map(|i| i ^ swap).collect();
        alike(make, lockstep, &program.vm, &ops, &names)?;
    }
    Ok(())
}

/// A back-end that can only flush everything and one that flushes ranges give the same exits and tables, and after each op a
/// TLB holds no more under the first than under the second.
fn full_and_range_flushes_agree(make: Make<'_>, lockstep: &mut Lockstep, program: &Program) -> Result<(), String> {
    let [full, range] =
        [BackendMode::Absent, BackendMode::Works].map(|mode| with(&program.vm, program.vm.stolen(), mode));
    let ops: Vec<Op> = program.ops.iter().copied().filter(|op| !matches!(op, Op::Backend(_))).collect();
    let (mut first, mut second) = (Run::new(make, &full), Run::new(make, &range));
    for op in &ops {
        same("exit", &first.step(op), &second.step(op))?;
        same("tables", &first.tables, &second.tables)?;
        if let Some(stale) = first.stale.difference(&second.stale).next() {
            return Err(format!("stale: {stale:?} outlives {op:?} only where everything is flushed at once"));
        }
    }
    same("keys", &first.keys(), &second.keys())?;
    let verdicts = [full, range].map(|vm| verdict(make, lockstep, &vm, &ops));
    same("verdict", &verdicts[0], &verdicts[1])
}

/// As long as no vCPU has to wait, rings tell what bitmaps do. Resetting all of them takes more rights away, so who faults while
/// something is in flux may differ, and who finds what the guest's tables said before they changed: programs of whole ops without
/// shadowed tables are compared.
fn rings_and_bitmaps_agree(make: Make<'_>, lockstep: &mut Lockstep, program: &Program) -> Result<(), String> {
    let halves = |op: &Op| {
        matches!(
            op,
            Op::SlotBegin { .. }
                | Op::UnmapBegin { .. }
                | Op::FaultBegin { .. }
                | Op::AttributesBegin { .. }
                | Op::ZapBegin { .. }
        )
    };
    let shadowed = |op: &Op| matches!(op, Op::GuestAccess { .. });
    let ops: Vec<Op> = program.ops.iter().copied().filter(|op| !halves(op) && !shadowed(op)).collect();
    let bitmaps = program.vm.without_dirty_ring();
    let rings = bitmaps.with_dirty_ring(DIRTY_RING).expect("the largest ring is legal");
    let (mut first, mut second) = (Run::new(make, &bitmaps), Run::new(make, &rings));
    for op in &ops {
        let exits = [first.step(op), second.step(op)];
        if exits[1] == Some(Exit::RingFull) {
            return Ok(());
        }
        same("exit", &exits[0], &exits[1])?;
    }
    let verdicts = [bitmaps, rings].map(|vm| verdict(make, lockstep, &vm, &ops));
    same("verdict", &verdicts[0], &verdicts[1])
}

macro_rules! checks {
    ($($test:ident: $check:ident, fails on $($mutant:literal in $what:literal),+;)*) => { $(
        #[test]
        fn $test() {
            let failure = failures($check, &|| Box::new(KvmMmu::<Corrected>::default())).next();
            assert_eq!(failure, None);
            $(fails($check, $mutant, $what);)+
        }
    )* };
}

checks! {
    a_vm_without_stolen_bits_is_plain_kvm: no_stolen_bits_is_plain_kvm,
        fails on "M11-flush-alias-only" in "verdict";
    which_alias_is_used_changes_nothing: aliases_are_interchangeable,
        fails on "M13-flush-only-all-bits" in "verdict";
    the_base_name_is_a_name_like_any_other: base_is_a_name_like_any_other,
        fails on "M88-age-base-only" in "exit", "M43-rmap-aliased" in "table";
    a_full_and_a_range_flush_agree: full_and_range_flushes_agree,
        fails on "M14-no-range-op-silent" in "stale";
    a_ring_lists_what_a_bitmap_holds: rings_and_bitmaps_agree,
        fails on "B37-ring-without-vcpu" in "exit", "M8U-reset-unflushed" in "verdict";
}

/// Some program must fail on `mutant`, and in `what`.
fn fails(check: Check, mutant: &str, what: &str) {
    let mutant = mutants::named(mutant).unwrap_or_else(|| panic!("no mutant is called {mutant}"));
    let (make, what) = (|| mutant.mmu(), format!(": {what}"));
    assert!(failures(check, &make).any(|why| why.contains(&what)), "{} fails nowhere in {what}", mutant.name);
}
