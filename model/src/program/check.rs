//! Checks that the operands of a program are within limits.

use super::{HostPageRange, Op, Program, SlotChange, VmConfig, VmError};
use crate::addr::{Gfn, Gpa};
use crate::limits::{COMMENT_LINES, FRAMES, GPTES, HOST_PAGES, MMU_PAGES_MIN, NOTIFIER_WINDOWS, OPS};
use std::fmt;

/// Why an op or a program is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramError {
    /// The VM is refused.
    VmConfig(VmError),
    /// An address whose frame is outside the VM's window, or with bits that are neither frame nor stolen.
    Outside(Gpa, VmConfig),
    /// An aliased memslot whose address is a base name.
    NotAliased(Gpa),
    /// A range of guest frames that is empty or leaves the window.
    GfnRange(VmConfig),
    /// A range of host pages that is empty or leaves the host memory.
    HostPageRange(VmConfig),
    /// A gfn, hva or number of pages that falls between the VM's frames.
    OffStride(u64, VmConfig),
    /// A vCPU the VM does not have.
    Vcpu(u8, VmConfig),
    /// A notifier window that does not exist.
    Window(u8),
    /// Fewer shadow pages than [`MMU_PAGES_MIN`].
    MmuPages(u8),
    /// An entry of a guest page table that programs cannot name.
    Gpte(u8),
    /// A guest virtual page with more indices than the walk has levels.
    Gva(VmConfig),
    /// More than [`OPS`] ops.
    Ops,
    /// More than [`COMMENT_LINES`] comment lines.
    Comment,
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = |vm: &VmConfig| (vm.gfn(0), vm.gfn(FRAMES - 1).add(vm.stride() - 1));
        match self {
            Self::VmConfig(error) => error.fmt(f),
            Self::Outside(gpa, vm) => {
                let (low, high) = frames(vm);
                write!(f, "a page of gfn {low} to {high} with stolen bits only; this is {gpa:?}")
            }
            Self::NotAliased(gpa) => write!(f, "an address with a stolen bit; this is {gpa:?}"),
            Self::GfnRange(vm) => {
                let (low, high) = frames(vm);
                let pages = vm.pages_of(FRAMES);
                write!(
                    f,
                    "1 to {pages} pages within gfn {low} to {high}, the frames of this VM (its base and {pages} pages)"
                )
            }
            Self::HostPageRange(vm) => {
                write!(f, "1 or more pages within host pages 0 to {}", vm.hva(HOST_PAGES).page() - 1)
            }
            Self::OffStride(found, vm) => write!(
                f,
                "gfns that lie a multiple of {0} pages (the VM's stride=) above its base, and hvas and page counts that are \
                 multiples of {0}; this is {found:#x}",
                vm.stride()
            ),
            Self::Vcpu(vcpu, vm) => write!(f, "a vCPU below {} (the VM's vcpus=); this is {vcpu}", vm.vcpus()),
            Self::MmuPages(pages) => write!(f, "{MMU_PAGES_MIN} shadow pages or more; this is {pages}"),
            Self::Window(window) => write!(f, "a notifier window below {NOTIFIER_WINDOWS}; this is {window}"),
            Self::Gpte(index) => write!(f, "an entry below {GPTES} (limits::GPTES); this is {index}"),
            Self::Gva(vm) => {
                write!(f, "{} indices below {GPTES}, one for each level of the VM's paging=", vm.paging().levels())
            }
            Self::Ops => write!(f, "at most {OPS} ops (limits::OPS)"),
            Self::Comment => write!(f, "at most {COMMENT_LINES} comment lines (limits::COMMENT_LINES)"),
        }
    }
}

impl std::error::Error for ProgramError {}

impl From<VmError> for ProgramError {
    fn from(error: VmError) -> Self {
        Self::VmConfig(error)
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
pub fn check_op(vm: &VmConfig, op: &Op) -> Result<(), ProgramError> {
    let on_stride = |pages: u64| match pages & (vm.stride() - 1) {
        0 => Ok(()),
        _ => Err(ProgramError::OffStride(pages, *vm)),
    };
    let gpa_ok = |gpa: Gpa| match vm.locate(gpa) {
        Some((frame, alias)) if vm.stolen().join(vm.gfn(frame), alias) == gpa => Ok(()),
        Some(_) => on_stride(vm.stolen().split(gpa).0.raw()).and(Err(ProgramError::Outside(gpa, *vm))),
        None => Err(ProgramError::Outside(gpa, *vm)),
    };
    let vcpu_ok = |vcpu: u8| if vcpu < vm.vcpus() { Ok(()) } else { Err(ProgramError::Vcpu(vcpu, *vm)) };
    let frames_ok = |gfn: Gfn, pages: u32| match vm.frame(gfn) {
        Some(frame) if pages > 0 && frame + vm.frames_in(pages.into()) <= FRAMES => {
            on_stride(gfn.raw()).and(on_stride(pages.into()))
        }
        _ => Err(ProgramError::GfnRange(*vm)),
    };
    let frame_ok = |gfn: Gfn| frames_ok(gfn, vm.stride() as u32);
    let window_ok =
        |window: u8| if usize::from(window) < NOTIFIER_WINDOWS { Ok(()) } else { Err(ProgramError::Window(window)) };
    let hva_ok = |range: HostPageRange| {
        let inside = range.pages > 0 && range.end() <= vm.hva(HOST_PAGES).page();
        let legal = if inside { Ok(()) } else { Err(ProgramError::HostPageRange(*vm)) };
        legal.and(on_stride(range.start.page())).and(on_stride(range.pages.into()))
    };
    match *op {
        Op::Slot { change, .. } | Op::SlotBegin { change, .. } => match change {
            SlotChange::Create { gfn, pages, hva, .. } => {
                frames_ok(gfn, pages)?;
                hva_ok(HostPageRange { start: hva, pages })
            }
            SlotChange::Move { gfn } => frame_ok(gfn),
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
            hva_ok(HostPageRange { start: hva, pages })
        }
        Op::FaultEnd { vcpu } | Op::GuestFlush { vcpu } | Op::PageReady { vcpu } | Op::AsyncPfClear { vcpu } => {
            vcpu_ok(vcpu)
        }
        Op::Unmap { range, .. }
        | Op::Collapse { range }
        | Op::PageOut { range }
        | Op::ProtNone { range }
        | Op::PageIn { range }
        | Op::Age { range } => hva_ok(range),
        Op::UnmapBegin { window, range } => window_ok(window).and(hva_ok(range)),
        Op::UnmapEnd { window } => window_ok(window),
        Op::DirtyClear { gfn, pages, .. }
        | Op::Attributes { gfn, pages, .. }
        | Op::AttributesBegin { gfn, pages, .. }
        | Op::MemoryType { gfn, pages, .. }
        | Op::ZapBegin { gfn, pages, .. } => frames_ok(gfn, pages),
        Op::WriteProtect { gfn } | Op::WriteTrack { gfn } | Op::WriteUntrack { gfn } => frame_ok(gfn),
        Op::WriteGpte { vcpu, gpa, index, gpte } => {
            vcpu_ok(vcpu).and(gpa_ok(gpa)).and(gpa_ok(gpte.gpa()))?;
            if usize::from(index) < GPTES { Ok(()) } else { Err(ProgramError::Gpte(index)) }
        }
        Op::GuestWalk { vcpu, root, gva, .. } | Op::GuestAccess { vcpu, root, gva, .. } => {
            vcpu_ok(vcpu).and(gpa_ok(root))?;
            if gva == gva.of_levels(vm.paging().levels()) { Ok(()) } else { Err(ProgramError::Gva(*vm)) }
        }
        Op::Translate { vcpu, table, leaf } => vcpu_ok(vcpu).and(gpa_ok(table)).and(gpa_ok(leaf)),
        Op::MmuPages { pages } if pages < MMU_PAGES_MIN => Err(ProgramError::MmuPages(pages)),
        Op::SlotEnd | Op::DirtyGet { .. } | Op::AttributesEnd => Ok(()),
        Op::ZapEnd | Op::NxRecover | Op::MmuPages { .. } | Op::Backend(_) => Ok(()),
    }
}
