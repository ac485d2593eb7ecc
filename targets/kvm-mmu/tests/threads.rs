//! vCPUs, the host and user space at the same time, on one [`SecondStage`]: no vCPU reaches a page that was given back, no write
//! is missing from the dirty log, and no page stays held.
//!
//! Each vCPU thread has a TLB, which a flush empties before it returns. With the standard library's threads this is a stress
//! test; under `--cfg shuttle` a scheduler tries interleavings one by one from a seed, and must also find what the mutants of
//! the races get wrong.

use gpa_model::RangeFlushFailed;
use gpa_model::limits::DIRTY_RING_MIN;
use gpa_model::{
    Access, BackendMode, FrameSet, Gfn, Gpa, HostPage, HostPageRange, Pfn, Rights, SlotChange, SlotFlags, SlotId, Spte,
    StolenMask, VcpuSet, VmConfig,
};
use kvm_mmu::{Corrected, DirectMirror, DirtyGfn, HasPolicy, HostPages, PfnError, SecondStage, TlbFlush};

#[cfg(not(shuttle))]
use std::{sync, thread};

#[cfg(shuttle)]
use shuttle::{sync, thread};

use sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use sync::{Arc, Mutex};

const PAGES: usize = 2;
const VCPUS: usize = 2;
const ALIASES: usize = 2;
const SLOT: SlotId = SlotId::user(0);
const BASE: Gfn = VmConfig::DEFAULT_BASE;

/// What one run found wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    /// A vCPU reached a page that the host had given away.
    StalePage,
    /// A write is in no log.
    LostWrite,
    /// Pages are held though every fault has ended, or were let go of too often.
    Held,
}

type Tlb = [[Option<Spte>; ALIASES]; PAGES];

/// The machine around the MMU: TLBs, host pages, and what was written.
struct Machine<P: HasPolicy> {
    mmu: SecondStage<P>,
    tlbs: [Mutex<Tlb>; VCPUS],
    /// The page behind each hva; the slot maps frame n to hva n.
    pages: [AtomicU64; PAGES],
    next: AtomicU64,
    /// References to pages.
    held: AtomicI64,
    /// Whether user space was told that the slot is gone.
    deleted: AtomicBool,
    /// How often each frame was written through a TLB, and how much of that was so when the log was last cleared of it.
    written: [AtomicU64; PAGES],
    harvested: [AtomicU64; PAGES],
    /// Accesses that a TLB or the tables answered, and faults.
    answered: AtomicU64,
    faults: AtomicU64,
    wrong: Mutex<Option<Wrong>>,
}

impl<P: HasPolicy> HostPages for Machine<P> {
    fn pfn(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        self.held.fetch_add(1, SeqCst);
        Ok(Pfn::new(self.pages[hva.page() as usize].load(SeqCst) as u32))
    }

    fn release(&self, _: Pfn) {
        self.held.fetch_sub(1, SeqCst);
    }
}

/// The flush back-end of one thread.
struct Ipi<'a, P: HasPolicy>(&'a Machine<P>);

impl<P: HasPolicy> TlbFlush for Ipi<'_, P> {
    fn has_range(&self) -> bool {
        true
    }

    fn range(&mut self, gpa: Gpa, pages: u64) -> Result<(), RangeFlushFailed> {
        for tlb in &self.0.tlbs {
            let mut tlb = tlb.lock().unwrap();
            for page in 0..pages {
                if let Some((frame, alias)) = locate(gpa.add_pages(page)) {
                    tlb[frame][alias] = None;
                }
            }
        }
        Ok(())
    }

    fn on(&mut self, vcpus: VcpuSet) {
        for vcpu in vcpus.iter().filter(|&vcpu| usize::from(vcpu) < VCPUS) {
            *self.0.tlbs[usize::from(vcpu)].lock().unwrap() = Tlb::default();
        }
    }
}

fn vm() -> VmConfig {
    VmConfig::new(StolenMask::new(&[40]).unwrap(), VCPUS as u8, BASE, BackendMode::Works).unwrap()
}

/// Frame and number of the alias of `gpa`, if it is in the slot.
fn locate(gpa: Gpa) -> Option<(usize, usize)> {
    let (frame, alias) = vm().locate(gpa)?;
    (frame < PAGES).then_some((frame, vm().stolen().alias_index(alias)))
}

impl<P: HasPolicy> Machine<P> {
    fn new(policy: P, vm: &VmConfig) -> Arc<Self> {
        let machine = Self {
            mmu: SecondStage::with_policy(policy, vm),
            tlbs: Default::default(),
            pages: std::array::from_fn(|page| AtomicU64::new(page as u64 + 1)),
            next: AtomicU64::new(PAGES as u64 + 1),
            held: AtomicI64::new(0),
            deleted: AtomicBool::new(false),
            written: std::array::from_fn(|_| AtomicU64::new(0)),
            harvested: std::array::from_fn(|_| AtomicU64::new(0)),
            answered: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            wrong: Mutex::new(None),
        };
        machine.create();
        Arc::new(machine)
    }

    fn create(&self) {
        let flags = SlotFlags { log_dirty: true, readonly: false };
        let slot = SlotChange::Create { gfn: BASE, pages: PAGES as _, hva: HostPage::new(0), flags };
        self.mmu.set_memslot(SLOT, slot, &mut Ipi(self)).expect("the slot fits");
    }

    fn found(&self, wrong: Wrong) {
        self.wrong.lock().unwrap().get_or_insert(wrong);
    }

    /// One access by a vCPU: through its TLB, by a walk that fills it, or else with a fault.
    fn access(&self, vcpu: usize, frame: usize, alias: usize, access: Access) {
        let (gpa, needed) = (vm().gpa(frame, alias), Rights::needed(access));
        {
            let mut tlb = self.tlbs[vcpu].lock().unwrap();
            let entry = &mut tlb[frame][alias];
            if !entry.is_some_and(|spte| spte.rights().contains(needed)) {
                *entry = self.mmu.walk(gpa);
            }
            if let Some(spte) = entry.filter(|spte| spte.rights().contains(needed)) {
                // Whoever gives the page away, or the slot, empties this TLB before: not while it is locked.
                let page = self.pages[frame].load(SeqCst);
                if u64::from(spte.pfn().raw()) != page || self.deleted.load(SeqCst) {
                    self.found(Wrong::StalePage);
                }
                if access == Access::Write {
                    self.written[frame].fetch_add(1, SeqCst);
                }
                self.answered.fetch_add(1, SeqCst);
                return;
            }
        }
        if self.mmu.is_dirty_ring_full(vcpu as u8) {
            return thread::yield_now();
        }
        self.faults.fetch_add(1, SeqCst);
        self.mmu.access(self, &mut Ipi(self), vcpu as u8, gpa, access);
    }

    /// A vCPU that goes through frames, aliases and kinds of access, or keeps `apart`, to one name of one frame.
    fn vcpu(&self, vcpu: usize, accesses: usize, apart: bool) {
        for n in 0..accesses {
            let access = if n % 3 == 2 { Access::Read } else { Access::Write };
            let (frame, alias) =
                if apart { (vcpu % PAGES, vcpu % ALIASES) } else { (n % PAGES, (n / PAGES + vcpu) % ALIASES) };
            self.access(vcpu, frame, alias, access);
        }
    }

    /// The host takes the page behind `hva` away and puts another there.
    fn replace(&self, hva: usize) {
        let range = HostPageRange { start: HostPage::new(hva as u64), pages: 1 };
        self.mmu.invalidate_begin(range, &mut Ipi(self));
        self.pages[hva].store(self.next.fetch_add(1, SeqCst), SeqCst);
        self.mmu.invalidate_end();
    }

    /// User space takes the log and clears it page by page.
    fn harvest(&self) {
        for frame in self.mmu.dirty_frames(SLOT).iter() {
            self.mmu.clear_dirty_log(SLOT, vm().gfn(frame), 1, &mut Ipi(self));
            self.harvested[frame].store(self.written[frame].load(SeqCst), SeqCst);
        }
    }

    /// The frames that rings list and user space had not taken yet.
    fn reap(&self) -> FrameSet {
        let mut taken = FrameSet::EMPTY;
        for vcpu in 0..VCPUS as u8 {
            let frame = |entry: DirtyGfn| FrameSet::one(entry.offset as usize);
            self.mmu.harvest_dirty_ring(vcpu, |entry| taken = taken.union(frame(entry)));
        }
        taken
    }

    /// User space takes what the rings list and gives the entries back.
    fn reset(&self) {
        let taken = self.reap();
        self.mmu.reset_dirty_rings(&mut Ipi(self));
        for frame in taken.iter() {
            self.harvested[frame].store(self.written[frame].load(SeqCst), SeqCst);
        }
    }

    /// User space deletes the slot and creates it again. Its log goes with it.
    fn recreate(&self) {
        self.mmu.set_memslot(SLOT, SlotChange::Delete, &mut Ipi(self)).expect("the slot exists");
        self.deleted.store(true, SeqCst);
        for (harvested, written) in self.harvested.iter().zip(&self.written) {
            harvested.store(written.load(SeqCst), SeqCst);
        }
        self.deleted.store(false, SeqCst);
        self.create();
    }

    /// What was found, once everybody has stopped.
    fn verdict(&self) -> Option<Wrong> {
        let log = self.mmu.dirty_frames(SLOT).union(self.reap());
        let lost = |frame: &usize| self.written[*frame].load(SeqCst) > self.harvested[*frame].load(SeqCst);
        if (0..PAGES).filter(lost).any(|frame| !log.contains(frame)) {
            self.found(Wrong::LostWrite);
        }
        if self.held.load(SeqCst) != 0 {
            self.found(Wrong::Held);
        }
        *self.wrong.lock().unwrap()
    }
}

/// What a host or user space does while the vCPUs run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beside {
    Replace,
    Harvest,
    /// The same with a small ring for each vCPU.
    Rings,
    Recreate,
    /// The same, and everything goes with the slot.
    ZapAll,
    /// Shadow pages are recycled all the time, and pages are replaced.
    Recycle,
    /// All leaves are zapped all the time, one by one, while pages are replaced and the slot is created anew.
    Zap,
    /// The same with a frame and a name of it for each vCPU, so that each root has one leaf, and the one that gives way before
    /// the second leaf has left the root of the first.
    ZapApart,
}

/// vCPUs with `accesses` each, and `rounds` of what happens beside them.
fn run<P: HasPolicy>(policy: P, beside: Beside, accesses: usize, rounds: usize) -> Arc<Machine<P>> {
    let vm = vm().with_slot_zap_all(beside == Beside::ZapAll);
    let rings = if beside == Beside::Rings { vm.with_dirty_ring(DIRTY_RING_MIN).expect("a small ring") } else { vm };
    let machine = Machine::new(policy, &rings);
    let vcpu = |vcpu| {
        let machine = machine.clone();
        thread::spawn(move || machine.vcpu(vcpu, accesses, beside == Beside::ZapApart))
    };
    let vcpus = [vcpu(0), vcpu(1)];
    let zapper = matches!(beside, Beside::Zap | Beside::ZapApart).then(|| {
        let machine = machine.clone();
        thread::spawn(move || {
            for _ in 0..rounds {
                machine.mmu.zap_gfn_range(BASE, PAGES as u64, 1, &mut Ipi(&machine));
            }
        })
    });
    for round in 0..rounds {
        // Let the vCPUs fill their TLBs.
        for _ in 0..25 {
            thread::yield_now();
        }
        match beside {
            Beside::Replace => machine.replace(round % PAGES),
            Beside::Harvest => machine.harvest(),
            Beside::Rings => machine.reset(),
            Beside::Recreate | Beside::ZapAll => machine.recreate(),
            Beside::Recycle => {
                machine.mmu.set_mmu_pages(6, &mut Ipi(&machine));
                machine.replace(round % PAGES);
            }
            Beside::Zap if round % 4 == 3 => machine.recreate(),
            Beside::Zap | Beside::ZapApart => machine.replace(round % PAGES),
        }
    }
    for thread in vcpus.into_iter().chain(zapper) {
        thread.join().expect("a thread ends");
    }
    machine
}

const ALL: [Beside; 8] = [
    Beside::Replace,
    Beside::Harvest,
    Beside::Rings,
    Beside::Recreate,
    Beside::ZapAll,
    Beside::Recycle,
    Beside::Zap,
    Beside::ZapApart,
];

#[cfg(not(shuttle))]
#[test]
fn nothing_is_stale_or_lost_while_threads_run() {
    stress(Corrected);
}

#[cfg(not(shuttle))]
#[test]
fn nothing_is_stale_or_lost_where_roots_come_and_go() {
    stress(DirectMirror);
}

#[cfg(not(shuttle))]
fn stress(policy: impl HasPolicy + Copy) {
    let (accesses, rounds) = if cfg!(miri) { (200, 20) } else { (2_000_000, 20_000) };
    for beside in ALL {
        let machine = run(policy, beside, accesses, rounds);
        assert_eq!(machine.verdict(), None, "{beside:?}");
        assert!(machine.answered.load(SeqCst) > 0 && machine.faults.load(SeqCst) > 0, "{beside:?}: nothing was judged");
    }
}

/// Run interleavings until something is wrong, at most `interleavings`.
#[cfg(shuttle)]
fn explore(policy: impl HasPolicy + Copy, beside: Beside, interleavings: usize) -> Option<Wrong> {
    // Not one that is scheduled: it outlives the interleavings.
    let wrong = Arc::new(std::sync::Mutex::new(None));
    let found = wrong.clone();
    let body = move || {
        if found.lock().unwrap().is_none() {
            *found.lock().unwrap() = run(policy, beside, 12, 2).verdict();
        }
    };
    // Its atomics are larger than a machine's, and so is a table page, which is made on a stack.
    let mut config = shuttle::Config::default();
    config.stack_size = 1 << 20;
    shuttle::Runner::new(shuttle::scheduler::RandomScheduler::new_from_seed(1, interleavings), config).run(body);
    *wrong.lock().unwrap()
}

#[cfg(shuttle)]
#[test]
fn no_interleaving_leaves_anything_stale_or_lost() {
    for beside in ALL {
        assert_eq!(explore(Corrected, beside, 3000), None, "{beside:?}");
        assert_eq!(explore(DirectMirror, beside, 3000), None, "{beside:?}, with roots that come and go");
    }
}

/// The same interleavings find what they are there to find.
#[cfg(shuttle)]
#[test]
fn the_mutants_of_the_races_are_found() {
    let finds = |name, beside| {
        let mutant = kvm_mmu::mutants::named(name).unwrap_or_else(|| panic!("no mutant is called {name}"));
        // The rarest shows once in some ten thousand.
        assert_ne!(explore(mutant.policy, beside, 400_000), None, "{name}");
    };
    finds("M5V-notifier-unchecked", Beside::Replace);
    finds("M5W-stale-not-released", Beside::Replace);
    finds("M87-unmap-first-spte-only", Beside::Replace);
    finds("M87-unmap-first-spte-only", Beside::Recreate);
    finds("M1V-flush-one-vcpu", Beside::Replace);
    finds("M10-flush-base-only", Beside::Harvest);
    finds("M81-wrprot-first-spte-only", Beside::Harvest);
    finds("M89-fastpf-dirty-raw", Beside::Harvest);
    finds("M8U-reset-unflushed", Beside::Rings);
    finds("M2V-recycled-unflushed", Beside::Recycle);
    finds("B07-flush-of-last-root", Beside::Replace);
    finds("B01-yield-owing", Beside::ZapApart);
}
