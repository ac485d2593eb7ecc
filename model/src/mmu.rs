//! The [`Mmu`] trait: the whole of what an implementation under test provides, and the answers it gives.

mod capabilities;
mod exit;
mod flush;
mod gfn_indexed;
mod settle;
mod spte;

pub use capabilities::Capabilities;
pub use exit::{Exit, Fault};
pub use flush::{Flush, FlushBackend, RangeFlushFailed, Sample, TlbEvent, VcpuSet};
pub use gfn_indexed::GfnIndexed;
pub use spte::Spte;

use crate::addr::Gpa;
use crate::host::Host;
use crate::limits::FRAMES;
use crate::program::{Op, VmConfig};

/// What an implementation itself says is wrong with an op: a kernel that warns, or dies of it. That is a violation whatever the
/// oracles say, and explains what they would.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// What makes it the same as another, such as `warn-make_spte`.
    pub clause: &'static str,
    /// What was said.
    pub text: String,
}

/// A second-stage MMU under test. Three methods are enough; the others let a target show more, or run faster.
///
/// `step` sees only ops that the reference model accepts and [`Mmu::supports`] allows, after the [`Host`] has changed.
pub trait Mmu {
    /// Be `vm` from now on, with no memslot and nothing mapped, whatever was before; even a panic in the middle of an op.
    fn reset(&mut self, vm: &VmConfig);

    /// Carry out one op. Flushes are asked of `flush`.
    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit;

    /// What the tables say about `gpa`: no fault, no TLB, no side effect.
    fn walk(&self, gpa: Gpa) -> Option<Spte>;

    /// What [`Mmu::walk`] finds for the frames of the window, which begins at `gpa` and has one in every `stride` pages: each frame
    /// that is mapped, once.
    fn walk_window(&self, gpa: Gpa, stride: u64, visit: &mut dyn FnMut(usize, Spte)) {
        for frame in 0..FRAMES {
            if let Some(spte) = self.walk(gpa.add_pages(frame as u64 * stride)) {
                visit(frame, spte);
            }
        }
    }

    /// Report everything kept by gfn.
    fn inspect(&self, _visit: &mut dyn FnMut(GfnIndexed)) {}

    /// What the last op made the implementation warn of, as the kernel does in its log. A guest must not be able to.
    fn warning(&self) -> Option<&'static str> {
        None
    }

    /// What it itself says was wrong with the last op, or, at the `end` of a program, with the end of its VM.
    fn alarm(&self, _end: bool) -> Option<&Alarm> {
        None
    }

    /// Whether the target can carry out `op` at all. An op it cannot is skipped, for the model too, and counted.
    fn supports(&self, _op: &Op) -> bool {
        true
    }

    /// Whether it can be such a VM at all. In one that it cannot, every op is skipped. Few targets know of a shared bit.
    fn supports_vm(&self, vm: &VmConfig) -> bool {
        !vm.shared_private()
    }

    /// What oracles can see here.
    fn capabilities(&self) -> Capabilities {
        Capabilities { tables: true, flushes: true, ..Capabilities::EXITS }
    }
}

/// Any MMU, where which one is not known before the program runs.
impl Mmu for Box<dyn Mmu> {
    fn reset(&mut self, vm: &VmConfig) {
        (**self).reset(vm);
    }

    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        (**self).step(host, flush, op)
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        (**self).walk(gpa)
    }

    fn walk_window(&self, gpa: Gpa, stride: u64, visit: &mut dyn FnMut(usize, Spte)) {
        (**self).walk_window(gpa, stride, visit);
    }

    fn inspect(&self, visit: &mut dyn FnMut(GfnIndexed)) {
        (**self).inspect(visit);
    }

    fn warning(&self) -> Option<&'static str> {
        (**self).warning()
    }

    fn alarm(&self, end: bool) -> Option<&Alarm> {
        (**self).alarm(end)
    }

    fn supports(&self, op: &Op) -> bool {
        (**self).supports(op)
    }

    fn supports_vm(&self, vm: &VmConfig) -> bool {
        (**self).supports_vm(vm)
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
}
