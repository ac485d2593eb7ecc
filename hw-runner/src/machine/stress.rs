//! Stress: vCPU threads that never stop reading and writing, while this thread takes pages away, harvests the dirty log, and
//! deletes, moves and re-flags memslots under them.
//!
//! What is judged is what a call promises when it returns: no read finds what was there before, no write is lost, no page that
//! was written is missing in the log. The guest judges the first two by itself, see [`crate::spinner`].

use super::Machine;
use crate::address_space::AddressSpace;
use crate::alias_method::AliasMethod;
use crate::error::{Doing, MachineError};
use crate::guest::{self, Entry};
use crate::memory::Pages;
use crate::memslots::{Backing, Memslots};
use crate::reclaim::{Driven, ReclaimTable, keeps_pages};
use crate::spinner::{self, COMPLAINT_PORT, Complaint, HOLE, Name};
use crate::vcpu::Vcpu;
use crate::watchdog::Watchdog;
use gpa_model::limits::{HOST_PAGES, VCPUS};
use gpa_model::text::print_gpa;
use gpa_model::{
    Access, BackendMode, FrameSet, Host, HostPage, Pfn, Reclaim, SlotChange, SlotFlags, SlotId, StolenMask, VmConfig,
};
use kvm_ioctls::VcpuExit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Pages of each of the slots, which all lie over the same host pages.
const PAGES: usize = 8;
/// Where the slots begin: the first straddles the edge of a leaf table.
const FRAMES_AT: [usize; 2] = [28, 40];
/// Where the second slot goes when it moves.
const AWAY: usize = 52;
/// How long the guests get to write between two looks at what they publish.
const PAUSE: Duration = Duration::from_micros(200);
/// How long a vCPU may take to come out once it is told to.
const GRACE: Duration = Duration::from_secs(10);
/// Findings that are put into words; after so many complaints a vCPU stops.
const SHOWN: usize = 16;
/// The identity of the first page. Those of a page are this far apart.
const FIRST_IDENTITY: u32 = 1000;
const LOGGED: SlotFlags = SlotFlags { readonly: false, log_dirty: true };

/// What the host does in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Take pages away.
    Unmap(Reclaim),
    /// Clear the dirty log, and see whether it has what is written after that.
    Harvest,
    /// Delete a slot and create it again.
    Recreate,
    /// Move a slot away and back.
    Move,
    /// Switch logging off and on.
    Relog,
}

impl Round {
    const fn name(self) -> &'static str {
        match self {
            Self::Unmap(reclaim) => reclaim.name(),
            Self::Harvest => "harvest",
            Self::Recreate => "recreate",
            Self::Move => "move",
            Self::Relog => "relog",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct StressReport {
    /// Each kind of round, with how often it was done.
    pub rounds: Vec<(&'static str, u64)>,
    /// How often each vCPU went through all names.
    pub laps: Vec<u64>,
    /// Guest accesses.
    pub accesses: u64,
    /// Exits for holes.
    pub exits: u64,
    /// Entries that found a host page out of reach for a moment, and were repeated.
    pub repeated: u64,
    /// Frames that were certainly written between a clearing of the log and a look at it.
    pub harvested: u64,
    /// What the guest complained of, and which frames the log missed.
    pub findings: u64,
    /// The first of them, in words.
    pub shown: Vec<String>,
}

impl StressReport {
    fn find(&mut self, what: String) {
        self.findings += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(what);
        }
    }
}

/// How one vCPU fared.
#[derive(Debug, Default)]
struct Spun {
    exits: u64,
    repeated: u64,
    complaints: Vec<Complaint>,
}

/// The host's side, while vCPUs run.
struct Stage<'a> {
    kvm: Backing<'a>,
    vm: &'a VmConfig,
    vcpus: usize,
    own: &'a Pages,
    memslots: &'a mut Memslots,
    reclaims: &'a mut ReclaimTable,
    /// The identity that each page bears.
    identities: [u32; PAGES],
    /// Rounds so far.
    turn: usize,
    report: StressReport,
}

impl Machine {
    /// Let `vcpus` vCPUs, at least one and at most [`VCPUS`], spin for `duration`.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails. That the guest complains is no error: it stands in the report.
    pub fn stress(&mut self, vcpus: usize, duration: Duration) -> Result<StressReport, MachineError> {
        let bits = &self.stealable[..self.stealable.len().min(2)];
        let stolen = StolenMask::new(bits).unwrap_or(StolenMask::NONE);
        let vm = VmConfig::new(stolen, VCPUS as u8, VmConfig::DEFAULT_BASE, BackendMode::Works).unwrap_or_default();
        let play = |stage: &mut Stage<'_>, failed: &AtomicBool| stage.play(Instant::now() + duration, failed);
        self.stress_by(&vm, vcpus.clamp(1, VCPUS), duration, play)
    }

    /// Let `vcpus` vCPUs spin while `play` does as it pleases, which takes about `duration`.
    fn stress_by(
        &mut self,
        vm: &VmConfig,
        vcpus: usize,
        duration: Duration,
        play: impl FnOnce(&mut Stage<'_>, &AtomicBool) -> Result<(), MachineError>,
    ) -> Result<StressReport, MachineError> {
        self.begin(vm, &Host::default())?;
        let result = self.perform(vm, vcpus, duration, play);
        let cleared = self.memslots.clear(&self.fd);
        self.stamps = [Pfn::new(0); HOST_PAGES];
        if result.is_err() || cleared.is_err() {
            self.recover();
        }
        let report = result?;
        self.accesses += report.accesses;
        cleared.map(|()| report)
    }

    fn perform(
        &mut self,
        vm: &VmConfig,
        vcpus: usize,
        duration: Duration,
        play: impl FnOnce(&mut Stage<'_>, &AtomicBool) -> Result<(), MachineError>,
    ) -> Result<StressReport, MachineError> {
        let alias_method = self.fingerprint.alias_method;
        let names: Vec<Vec<Name>> = (0..vcpus).map(|number| names(vm, self.window, alias_method, number)).collect();
        for ((number, vcpu), names) in self.vcpus.iter_mut().enumerate().zip(&names) {
            spinner::load(&self.own, number, names);
            vcpu.use_tables(self.tables_written)?;
            vcpu.enter_space(space_of(alias_method, number))?;
            vcpu.begin(&spinner::registers(number))?;
        }
        let Self { fd, memory, own, memslots, reclaims, .. } = self;
        let (own, kvm) = (&*own, Backing { fd: &*fd, memory: &*memory, vm });
        let identities = std::array::from_fn(|page| FIRST_IDENTITY + page as u32);
        let (turn, report) = (0, StressReport::default());
        let mut stage = Stage { kvm, vm, vcpus, own, memslots, reclaims, identities, turn, report };
        stage.set()?;
        let failed = AtomicBool::new(false);
        let (spun, hosted) = thread::scope(|scope| {
            let spin = |vcpu| scope.spawn(|| spin(vcpu, own, duration + GRACE, &failed));
            let threads: Vec<_> = self.vcpus[..vcpus].iter_mut().map(spin).collect();
            let hosted = play(&mut stage, &failed);
            (0..vcpus).for_each(|vcpu| spinner::stop(own, vcpu));
            let spun: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
            (spun, hosted)
        });
        let mut report = stage.report;
        hosted?;
        for (number, spun) in spun.into_iter().enumerate() {
            let spun = spun.map_err(|_| MachineError::Exit("a panic of a vCPU's thread".into()))??;
            self.vcpus[number].count_exits(spun.exits);
            self.vcpus[number].restart(0)?;
            note(&mut report, vm, number, &names[number], &spun, spinner::rounds(&self.own, number));
        }
        Ok(report)
    }
}

/// Add what one vCPU did.
fn note(report: &mut StressReport, vm: &VmConfig, vcpu: usize, names: &[Name], spun: &Spun, laps: u64) {
    report.laps.push(laps);
    // A read, a write and a read at each name.
    report.accesses += laps * names.len() as u64 * 3;
    report.exits += spun.exits;
    report.repeated += spun.repeated;
    for complaint in &spun.complaints {
        let (what, name, expected, found) = match *complaint {
            Complaint::Stale { name, expected, found } => ("read identity", name, expected, found),
            Complaint::Lost { name, expected, found } => ("after a write read", name, expected, found),
        };
        let place = names.get(name).map_or_else(|| "?".into(), |name| print_gpa(vm, vm.gpa(name.frame, name.alias)));
        report.find(format!("v{vcpu} at {place}: {what} {found:#x}, expected {expected:#x}"));
    }
}

/// The address space that vCPU `number` spins in: they take turns.
fn space_of(alias_method: AliasMethod, number: usize) -> AddressSpace {
    let spaces = alias_method.address_spaces();
    spaces[number % spaces.len()]
}

/// Every name that vCPU `number` can reach of every frame of the slots, each with another name of the same frame.
fn names(vm: &VmConfig, window: usize, alias_method: AliasMethod, number: usize) -> Vec<Name> {
    let space = space_of(alias_method, number);
    let reached = |alias: &usize| alias_method.address_space(*alias) == space;
    let aliases: Vec<usize> = (0..vm.stolen().alias_count()).filter(reached).collect();
    let others = aliases.iter().cycle().skip(1);
    let frames = FRAMES_AT.into_iter().flat_map(|at| at..at + PAGES);
    let name = |frame| {
        let pairs = aliases.iter().zip(others.clone());
        let address =
            move |alias, access| guest::name_by(Entry::of(alias_method, alias, access), vm, window, alias, frame);
        pairs.map(move |(&alias, &other)| Name {
            frame,
            alias,
            address: address(alias, Access::Write),
            other: address(other, Access::Read),
        })
    };
    frames.flat_map(name).take(spinner::NAMES).collect()
}

/// Let the guest of `vcpu` run until it is told to stop.
fn spin(vcpu: &mut Vcpu, own: &Pages, limit: Duration, failed: &AtomicBool) -> Result<Spun, MachineError> {
    let result = Watchdog::with_limit(limit).doing("set up the watchdog").and_then(|mut watchdog| {
        watchdog.arm().doing("arm the watchdog")?;
        spin_watched(vcpu, own, &watchdog, failed)
    });
    if result.is_err() {
        failed.store(true, Ordering::Relaxed);
    }
    result
}

fn spin_watched(vcpu: &mut Vcpu, own: &Pages, watchdog: &Watchdog, failed: &AtomicBool) -> Result<Spun, MachineError> {
    let mut spun = Spun::default();
    let number = vcpu.number();
    loop {
        match vcpu.fd().run() {
            Ok(VcpuExit::IoOut(guest::DONE_PORT, _)) => break,
            Ok(VcpuExit::IoOut(COMPLAINT_PORT, _)) => spun.complaints.push(spinner::complaint(own, number)),
            Ok(VcpuExit::MmioRead(_, data)) => {
                data.fill(u8::MAX);
                spun.exits += 1;
            }
            Ok(VcpuExit::MmioWrite(..)) => spun.exits += 1,
            // The host page is protected, or not there, for a moment: a driver is at work.
            Err(error) if error.errno() == libc::EFAULT => spun.repeated += 1,
            Ok(VcpuExit::Intr) => {}
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Ok(other) => return Err(MachineError::Exit(format!("{other:?}"))),
            Err(error) => return Err(error).doing("run a vCPU"),
        }
        if spun.complaints.len() >= SHOWN || failed.load(Ordering::Relaxed) {
            // There is nothing more to learn from this one.
            failed.store(true, Ordering::Relaxed);
            break;
        }
        if watchdog.expired() {
            return Err(MachineError::Hung(watchdog.limit()));
        }
    }
    Ok(spun)
}

impl Stage<'_> {
    /// Create the slots and give every page its identity.
    fn set(&mut self) -> Result<(), MachineError> {
        (0..FRAMES_AT.len()).try_for_each(|slot| self.create(slot))?;
        for page in 0..PAGES {
            self.rename(page);
            self.floor_of_page(page, self.identities[page]);
        }
        Ok(())
    }

    /// One round after the other until time is up, or a vCPU has failed.
    fn play(&mut self, end: Instant, failed: &AtomicBool) -> Result<(), MachineError> {
        let mut rounds = Vec::new();
        for reclaim in self.reclaims.available().iter() {
            rounds.extend([Round::Unmap(reclaim), Round::Harvest]);
        }
        rounds.extend([Round::Recreate, Round::Harvest, Round::Move, Round::Harvest, Round::Relog, Round::Harvest]);
        let mut counts = vec![0; rounds.len()];
        while Instant::now() < end && !failed.load(Ordering::Relaxed) {
            let at = self.turn % rounds.len();
            // Another page and another slot each time the list comes round.
            self.round(rounds[at], self.turn / rounds.len())?;
            counts[at] += 1;
            self.turn += 1;
        }
        for (round, count) in rounds.into_iter().zip(counts) {
            match self.report.rounds.iter_mut().find(|(name, _)| *name == round.name()) {
                Some((_, sum)) => *sum += count,
                None => self.report.rounds.push((round.name(), count)),
            }
        }
        Ok(())
    }

    fn round(&mut self, round: Round, turn: usize) -> Result<(), MachineError> {
        let slot = turn % FRAMES_AT.len();
        match round {
            Round::Unmap(reclaim) => self.unmap(reclaim, turn % PAGES),
            Round::Harvest => self.harvest(slot),
            Round::Recreate => self.absent(slot, SlotChange::Delete, None),
            Round::Move => {
                let [_, home] = FRAMES_AT;
                let to = |frame| SlotChange::Move { gfn: self.vm.gfn(frame) };
                self.absent(1, to(AWAY), Some(to(home)))
            }
            Round::Relog => {
                self.change(slot, SlotChange::Flags(SlotFlags::default()))?;
                self.change(slot, SlotChange::Flags(LOGGED))
            }
        }
    }

    /// Take a page away. Where the driver keeps its content, every read and every write counts all the while.
    fn unmap(&mut self, reclaim: Reclaim, page: usize) -> Result<(), MachineError> {
        let keeps = keeps_pages(reclaim, self.kvm.memory);
        if !keeps {
            self.floor_of_page(page, 0);
        }
        let driven = self.reclaims.unmap(Some(reclaim), self.kvm.memory, page, 1).doing("take a host page away")?;
        if !keeps && driven == Driven::Done {
            self.rename(page);
        }
        self.floor_of_page(page, self.identities[page]);
        Ok(())
    }

    /// A slot goes away and comes back. In between there is nothing where it was.
    fn absent(&mut self, slot: usize, away: SlotChange, back: Option<SlotChange>) -> Result<(), MachineError> {
        self.floor_of_slot(slot, 0);
        self.change(slot, away)?;
        self.floor_of_slot(slot, HOLE);
        thread::sleep(PAUSE);
        self.floor_of_slot(slot, 0);
        match back {
            Some(change) => self.change(slot, change)?,
            None => self.create(slot)?,
        }
        // A floor that was here before must not come back: to a guest that slept meanwhile nothing would seem to have changed.
        for page in 0..PAGES {
            self.floor_of_page(page, 0);
            self.rename(page);
            self.floor_of_page(page, self.identities[page]);
        }
        Ok(())
    }

    /// A frame of which two numbers were published one after the other since the log was cleared has been written since: the
    /// second write began after the first was published.
    fn harvest(&mut self, slot: usize) -> Result<(), MachineError> {
        let kvm = self.kvm;
        let (id, first) = (SlotId::user(slot as u8), FRAMES_AT[slot]);
        self.memslots.clear_dirty(kvm, id, self.vm.gfn(first), PAGES as u32)?;
        let looks = [0; 3].map(|_| {
            let look = self.published(first);
            thread::sleep(PAUSE);
            look
        });
        let dirty = self.memslots.dirty(kvm, id)?;
        self.judge_log(first, &looks, dirty);
        Ok(())
    }

    /// Whether `dirty` has what was published twice between the first and the last of `looks`.
    fn judge_log(&mut self, first: usize, looks: &[[[u64; PAGES]; VCPUS]; 3], dirty: FrameSet) {
        for frame in first..first + PAGES {
            let number = |look: usize, vcpu: usize| looks[look][vcpu][frame - first];
            let twice = |vcpu| number(0, vcpu) != number(1, vcpu) && number(1, vcpu) != number(2, vcpu);
            if (0..self.vcpus).any(twice) {
                self.report.harvested += 1;
                if !dirty.contains(frame) {
                    self.report.find(format!("gfn {} was written and is not in the log", self.vm.gfn(frame)));
                }
            }
        }
    }

    fn published(&self, first: usize) -> [[u64; PAGES]; VCPUS] {
        std::array::from_fn(|vcpu| std::array::from_fn(|page| spinner::published(self.own, vcpu, first + page)))
    }

    fn create(&mut self, slot: usize) -> Result<(), MachineError> {
        let gfn = self.vm.gfn(FRAMES_AT[slot]);
        self.change(slot, SlotChange::Create { gfn, pages: PAGES as u32, hva: HostPage::new(0), flags: LOGGED })
    }

    fn change(&mut self, slot: usize, change: SlotChange) -> Result<(), MachineError> {
        self.memslots.change(self.kvm, SlotId::user(slot as u8), change)
    }

    fn floor_of_page(&self, page: usize, floor: u32) {
        FRAMES_AT.iter().for_each(|at| spinner::set_floor(self.own, at + page, floor));
    }

    fn floor_of_slot(&self, slot: usize, floor: u32) {
        (0..PAGES).for_each(|page| spinner::set_floor(self.own, FRAMES_AT[slot] + page, floor));
    }

    /// Give a page an identity that none has had.
    fn rename(&mut self, page: usize) {
        self.identities[page] += PAGES as u32;
        guest::stamp(self.kvm.memory, page, Pfn::new(self.identities[page]));
    }
}

/// Positive controls: what each law forbids is done behind the guest's back, and noticed.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::or_skip;

    const DURATION: Duration = Duration::from_millis(200);

    /// Stress of one vCPU by `play`; `None` where there is no `/dev/kvm`.
    fn stress(play: impl FnOnce(&mut Stage<'_>, &AtomicBool) -> Result<(), MachineError>) -> Option<StressReport> {
        let mut machine = or_skip(Machine::open())?;
        Some(machine.stress_by(&VmConfig::default(), 1, DURATION, play).expect("a report"))
    }

    #[test]
    fn a_page_that_is_not_what_it_should_be_is_complained_of() {
        let Some(report) = stress(|stage, _| {
            stage.floor_of_page(3, 77);
            thread::sleep(DURATION);
            Ok(())
        }) else {
            return;
        };
        assert!(report.findings > 0);
        assert!(report.shown[0].contains("read identity 0x3f3, expected 0x4d"), "{:?}", report.shown);
    }

    #[test]
    fn a_write_that_is_undone_is_complained_of() {
        let Some(report) = stress(|stage, failed| {
            // Until the guest has had enough; it is between its write and its read for a few nanoseconds at a time.
            let end = Instant::now() + GRACE / 2;
            while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                stage.kvm.memory.write_u64(3, guest::word_offset(0), 0);
            }
            Ok(())
        }) else {
            return;
        };
        assert!(report.shown.iter().any(|shown| shown.contains("after a write read 0x0")), "{:?}", report.shown);
    }

    #[test]
    fn a_log_that_forgets_is_a_finding() {
        let Some(report) = stress(|stage, _| {
            // However long the guest has to wait for a processor, it has written to every page twice.
            let (mut looks, end) = ([[[0; PAGES]; VCPUS]; 3], Instant::now() + GRACE / 2);
            for at in 0..looks.len() {
                looks[at] = stage.published(FRAMES_AT[0]);
                let last = looks[at.saturating_sub(1)][0];
                while at > 0 && Instant::now() < end && (0..PAGES).any(|page| looks[at][0][page] == last[page]) {
                    thread::sleep(PAUSE);
                    looks[at] = stage.published(FRAMES_AT[0]);
                }
            }
            stage.judge_log(FRAMES_AT[0], &looks, FrameSet::EMPTY);
            Ok(())
        }) else {
            return;
        };
        assert_eq!((report.harvested, report.findings), (PAGES as u64, PAGES as u64), "{:?}", report.shown);
    }

    #[test]
    fn nothing_is_found_where_all_is_well() {
        let play = |stage: &mut Stage<'_>, failed: &AtomicBool| {
            stage.play(Instant::now() + DURATION, failed)?;
            let end = Instant::now() + GRACE / 2;
            while Instant::now() < end && spinner::rounds(stage.own, 0) == 0 {
                thread::sleep(PAUSE);
            }
            Ok(())
        };
        let Some(report) = stress(play) else { return };
        assert_eq!(report.shown, Vec::<String>::new());
        assert!(report.laps[0] > 0 && report.rounds.iter().any(|(_, count)| *count > 0), "{report:?}");
    }
}
