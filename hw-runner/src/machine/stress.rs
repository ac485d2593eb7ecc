//! Stress: vCPU threads read and write all the time, while this thread reclaims pages, harvests the dirty log, and deletes,
//! moves and re-flags memslots.
//!
//! Three promises are checked, which hold once a call has returned: no read finds stale content, no write is lost, and the
//! dirty log has every page that was written. The guest checks the first two, see [`crate::guest::spinner`].

mod host;
mod report;
mod vcpus;

pub use report::{StressReport, StressSummary};

use super::Machine;
use crate::error::MachineError;
use crate::guest::spinner::{self, Name};
use crate::kvm::memslots::Backing;
use gpa_model::limits::{HOST_PAGES, VCPUS};
use gpa_model::{BackendMode, Host, Pfn, StolenMask, VmConfig};
use host::Stage;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};
use vcpus::{names, space_of, spin};

/// Pages of each memslot. All memslots lie over the same host pages.
const PAGES: usize = 8;
/// The first frame of each memslot. The first memslot straddles two leaf tables.
const FRAMES_AT: [usize; 2] = [28, 40];
/// How long a vCPU may take to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How many findings are described. A vCPU stops after as many complaints.
const SHOWN: usize = 16;

impl Machine {
    /// Lets `vcpus` vCPUs, from 1 to [`VCPUS`], spin for `duration`.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails. Complaints of the guest are findings in the report, not errors.
    pub fn stress(&mut self, vcpus: usize, duration: Duration) -> Result<StressReport, MachineError> {
        let bits = &self.stealable[..self.stealable.len().min(2)];
        let stolen = StolenMask::new(bits).unwrap_or(StolenMask::NONE);
        let vm = VmConfig::new(stolen, VCPUS as u8, VmConfig::DEFAULT_BASE, BackendMode::Works).unwrap_or_default();
        let play = |stage: &mut Stage<'_>, failed: &AtomicBool| stage.play(Instant::now() + duration, failed);
        self.stress_by(&vm, vcpus.clamp(1, VCPUS), duration, play)
    }

    /// Lets `vcpus` vCPUs spin while `play` runs, which takes about `duration`.
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
        let mut stage = Stage::set(kvm, vcpus, own, memslots, reclaims)?;
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
            report.add(vm, number, &names[number], &spun, spinner::rounds(&self.own, number));
        }
        Ok(report)
    }
}

/// Positive controls: each test breaks one promise on purpose, and expects a finding.
#[cfg(test)]
mod tests {
    use super::host::PAUSE;
    use super::*;
    use crate::error::or_skip;
    use crate::guest::page;
    use gpa_model::FrameSet;
    use std::sync::atomic::Ordering;

    const DURATION: Duration = Duration::from_millis(200);

    /// Stresses one vCPU by `play`; `None` without `/dev/kvm`.
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
            // Until the guest stops. Its window between write and read is a few nanoseconds.
            let end = Instant::now() + GRACE / 2;
            while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                stage.kvm.memory.write_u64(3, page::word_offset(0), 0);
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
            // Until the guest has written to every page twice, however long it waits for a processor.
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
