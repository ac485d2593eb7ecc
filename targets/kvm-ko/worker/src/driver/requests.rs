//! What other parts of a kernel ask KVM for: write protection, write tracking, and zapping of frames. A stock kernel knows nothing of
//! aliases, so each name of a frame is asked for by itself.

use super::Stop;
use super::machine::{Machine, odd};
use gpa_model::{Exit, Gfn};
use kvm_ko_worker::kernel::{Failure, Kernel};

impl Machine {
    /// The gfns that the names of `gfn` have in KVM.
    fn names(&self, gfn: Gfn) -> impl Iterator<Item = u64> + use<> {
        let stolen = self.vm.stolen();
        (0..self.memslots.names()).map(move |alias| stolen.join(gfn, stolen.alias(alias)).page())
    }

    /// `kvm_mmu_slot_gfn_write_protect()`. Where there is no memslot there is nothing to protect.
    pub(super) fn write_protect(&mut self, kernel: &Kernel, gfn: Gfn) -> Result<Exit, Stop> {
        for name in self.names(gfn) {
            absent_or(kernel.write_protect(self.fd, 0, name).map(drop), "write-protect")?;
        }
        Ok(Exit::Done)
    }

    /// `kvm_write_track_add_gfn()`, `kvm_write_track_remove_gfn()`.
    pub(super) fn track(&mut self, kernel: &Kernel, gfn: Gfn, on: bool) -> Result<Exit, Stop> {
        if !self.tracks {
            kernel.track_vm(self.fd, true).map_err(odd("track writes"))?;
            self.tracks = true;
        }
        for name in self.names(gfn) {
            absent_or(kernel.track(self.fd, name, on), "track writes")?;
        }
        Ok(Exit::Done)
    }

    /// `kvm_zap_gfn_range()`. KVM goes through all of it at once; what comes back meanwhile goes at the end.
    pub(super) fn begin_zap(&mut self, kernel: &Kernel, gfn: Gfn, pages: u32) -> Result<Exit, Stop> {
        self.zapping = Some((gfn, pages));
        self.zap(kernel)
    }

    /// The same once more.
    pub(super) fn end_zap(&mut self, kernel: &Kernel) -> Result<Exit, Stop> {
        let zapped = self.zap(kernel);
        self.zapping = None;
        zapped
    }

    fn zap(&self, kernel: &Kernel) -> Result<Exit, Stop> {
        if let Some((gfn, pages)) = self.zapping {
            for name in self.names(gfn) {
                kernel.zap_range(self.fd, name, pages.into()).map_err(odd("zap"))?;
            }
        }
        Ok(Exit::Done)
    }
}

/// A private slot has its base name alone, and a hole has no memslot at all.
fn absent_or(result: Result<(), Failure>, doing: &str) -> Result<(), Stop> {
    match result {
        Err(Failure::Errno(libc::ENOENT | libc::EINVAL)) => Ok(()),
        result => result.map_err(odd(doing)),
    }
}
