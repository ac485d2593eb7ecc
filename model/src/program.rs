//! A [`Program`]: a VM configuration and the ops that are done to it, all of whose operands are within limits.

use crate::addr::Gpa;
use crate::limits::{COMMENT_LINES, FRAMES, NOTIFIER_WINDOWS, OPS};
use crate::op::{Op, SlotChange};
use crate::vm::{Vm, VmError};
use std::fmt;

/// A VM and what is done to it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// The VM.
    pub vm: Vm,
    /// The ops, at most [`OPS`].
    pub ops: Vec<Op>,
    /// What the program shows: the comment at the head of its file, a line each, without the `#`.
    pub comment: Vec<String>,
}

/// Why an op or a program is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramError {
    /// The VM is refused.
    Vm(VmError),
    /// An address whose frame is outside the VM's window, or with bits that are neither frame nor stolen.
    Outside(Gpa, Vm),
    /// An aliased memslot whose address is a base name.
    NotAliased(Gpa),
    /// A range of guest frames that is empty or leaves the window.
    GfnRange(Vm),
    /// A range of host pages that is empty or leaves the host memory.
    HvaRange,
    /// A vCPU the VM does not have.
    Vcpu(u8, Vm),
    /// A notifier window that does not exist.
    Window(u8),
    /// More than [`OPS`] ops.
    Ops,
    /// More than [`COMMENT_LINES`] comment lines.
    Comment,
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = |vm: &Vm| (vm.gfn(0), vm.gfn(FRAMES - 1));
        match self {
            Self::Vm(error) => error.fmt(f),
            Self::Outside(gpa, vm) => {
                let (low, high) = frames(vm);
                write!(f, "a page of gfn {low} to {high} with stolen bits only; this is {gpa:?}")
            }
            Self::NotAliased(gpa) => write!(f, "an address with a stolen bit; this is {gpa:?}"),
            Self::GfnRange(vm) => {
                let (low, high) = frames(vm);
                write!(
                    f,
                    "1 to {FRAMES} pages within gfn {low} to {high}, the frames of this VM (its base and {FRAMES} pages)"
                )
            }
            Self::HvaRange => write!(f, "1 or more pages within host pages 0 to {}", crate::limits::HOST_PAGES - 1),
            Self::Vcpu(vcpu, vm) => write!(f, "a vCPU below {} (the VM's vcpus=); this is {vcpu}", vm.vcpus()),
            Self::Window(window) => write!(f, "a notifier window below {NOTIFIER_WINDOWS}; this is {window}"),
            Self::Ops => write!(f, "at most {OPS} ops (limits::OPS)"),
            Self::Comment => write!(f, "at most {COMMENT_LINES} comment lines (limits::COMMENT_LINES)"),
        }
    }
}

impl std::error::Error for ProgramError {}

impl From<VmError> for ProgramError {
    fn from(error: VmError) -> Self {
        Self::Vm(error)
    }
}

impl Program {
    /// Check that every operand is within limits. Programs that were parsed, decoded or generated are.
    ///
    /// # Errors
    /// The first [`ProgramError`] found.
    pub fn check(&self) -> Result<(), ProgramError> {
        if self.ops.len() > OPS {
            return Err(ProgramError::Ops);
        }
        if self.comment.len() > COMMENT_LINES {
            return Err(ProgramError::Comment);
        }
        self.ops.iter().try_for_each(|op| check_op(&self.vm, op))
    }
}

/// Check the operands of one op against the VM.
///
/// # Errors
/// A [`ProgramError`] that says what would be legal.
pub fn check_op(vm: &Vm, op: &Op) -> Result<(), ProgramError> {
    let gpa_ok = |gpa: Gpa| match vm.locate(gpa) {
        Some((frame, alias)) if vm.stolen().join(vm.gfn(frame), alias) == gpa => Ok(()),
        _ => Err(ProgramError::Outside(gpa, *vm)),
    };
    let vcpu_ok = |vcpu: u8| if vcpu < vm.vcpus() { Ok(()) } else { Err(ProgramError::Vcpu(vcpu, *vm)) };
    let frames_ok = |gfn, pages: u8| match vm.frame(gfn) {
        Some(frame) if pages > 0 && frame + usize::from(pages) <= FRAMES => Ok(()),
        _ => Err(ProgramError::GfnRange(*vm)),
    };
    let window_ok =
        |window: u8| if usize::from(window) < NOTIFIER_WINDOWS { Ok(()) } else { Err(ProgramError::Window(window)) };
    let hva_ok = |range: crate::op::HvaRange| if range.is_legal() { Ok(()) } else { Err(ProgramError::HvaRange) };
    match *op {
        Op::Slot { change, .. } | Op::SlotBegin { change, .. } => match change {
            SlotChange::Create { gfn, pages, hva, .. } => {
                frames_ok(gfn, pages)?;
                hva_ok(crate::op::HvaRange { start: hva, pages })
            }
            SlotChange::Move { gfn } => frames_ok(gfn, 1),
            SlotChange::Delete | SlotChange::Flags(_) => Ok(()),
        },
        Op::Access { vcpu, gpa, .. } | Op::FaultBegin { vcpu, gpa, .. } | Op::Prefault { vcpu, gpa } => {
            vcpu_ok(vcpu).and(gpa_ok(gpa))
        }
        Op::SlotAliased { gpa, pages, hva, .. } => {
            gpa_ok(gpa)?;
            let (gfn, alias) = vm.stolen().split(gpa);
            if alias.is_none() {
                return Err(ProgramError::NotAliased(gpa));
            }
            frames_ok(gfn, pages)?;
            hva_ok(crate::op::HvaRange { start: hva, pages })
        }
        Op::FaultEnd { vcpu } => vcpu_ok(vcpu),
        Op::Unmap { range, .. } | Op::Age { range } => hva_ok(range),
        Op::UnmapBegin { window, range } => window_ok(window).and(hva_ok(range)),
        Op::UnmapEnd { window } => window_ok(window),
        Op::DirtyClear { gfn, pages, .. } => frames_ok(gfn, pages),
        Op::WriteProtect { gfn } | Op::Track { gfn } | Op::Untrack { gfn } => frames_ok(gfn, 1),
        Op::Translate { vcpu, table, leaf } => vcpu_ok(vcpu).and(gpa_ok(table)).and(gpa_ok(leaf)),
        Op::SlotEnd | Op::DirtyGet { .. } | Op::Backend(_) => Ok(()),
    }
}
