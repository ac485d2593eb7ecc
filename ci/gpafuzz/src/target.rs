//! A [`Target`]: an implementation under test, ready to be judged, whatever its type.

use gpa_model::generate::Profile;
use gpa_model::{
    Access, Capabilities, Gfn, Gpte, GpteFlags, Gva, HostPage, HostPageRange, Mmu, Op, OpKind, Program, SlotChange,
    SlotFlags, SlotId, StolenMask, VmConfig,
};
use gpa_oracles::{Lockstep, Violation};
use linux_kvm::Function;
use std::fmt;

/// Something that programs can be run on and judged. Object safe, so that campaigns are written once.
pub trait Target {
    /// Run `program` and return the first violation.
    ///
    /// # Errors
    /// If the target itself cannot run any more: not a finding, the end of the campaign.
    fn judge(&mut self, run: &mut Lockstep, program: &Program) -> Result<Option<Violation>, TargetError>;

    /// The same, written down op by op. `name` is shown as the target's.
    ///
    /// # Errors
    /// As [`Target::judge`].
    fn report(
        &mut self,
        run: &mut Lockstep,
        program: &Program,
        name: &str,
    ) -> Result<(String, Option<Violation>), TargetError>;

    /// What programs for it should be made of.
    fn profile(&self) -> Profile;

    /// What oracles can see of it.
    fn capabilities(&self) -> Capabilities;

    /// The only programs it can run, if it cannot run any: it answers from a record.
    fn recorded(&self) -> Option<Vec<Program>> {
        None
    }

    /// Guest accesses carried out so far, if a real guest carries them out.
    fn accesses(&self) -> Option<u64> {
        None
    }

    /// How often a finding has to be seen again before it counts as stable. A race on real hardware may show now and then.
    fn confirmations(&self) -> u32 {
        1
    }

    /// What is known about how they were carried out.
    fn evidence(&self) -> Option<String> {
        None
    }

    /// The blocks of its code that the last program executed, if they can be watched: numbers that mean the same at each run.
    fn blocks(&self) -> &[u32] {
        &[]
    }

    /// The functions that its blocks belong to, in the order of their blocks.
    ///
    /// # Errors
    /// As [`Target::judge`].
    fn functions(&mut self) -> Result<Vec<Function>, TargetError> {
        Ok(Vec::new())
    }

    /// Whether it is as good as new after the last violation. If it has to be started again, which takes seconds, a campaign does
    /// not minimise the program.
    fn survived(&self) -> bool {
        true
    }

    /// The last program with what was observed, as a trace.
    ///
    /// # Errors
    /// Why there is none.
    fn trace(&self) -> Result<String, &'static str> {
        Err("not a real KVM, and so nothing to record")
    }

    /// What the kernel that carries programs out has said, if it is one of its own.
    fn log(&mut self) -> Option<String> {
        None
    }
}

/// What a target did at the last program, as far as it can tell. A race may not show again, and then this is all there is of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunRecord {
    /// [`Target::trace`], if there is one.
    pub trace: Option<String>,
    /// [`Target::log`], if there is one.
    pub log: Option<String>,
    /// [`Target::survived`].
    pub survived: bool,
}

impl RunRecord {
    /// What `target` did.
    pub fn of(target: &mut dyn Target) -> Self {
        Self { trace: target.trace().ok(), log: target.log(), survived: target.survived() }
    }
}

/// Why there is no target, or no target any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// No target has this name.
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// This machine lacks what the target needs.
    Absent {
        /// The target.
        name: &'static str,
        /// What is missing and what to do.
        why: String,
    },
    /// It stopped working.
    Failed(String),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, known } => {
                write!(f, "unknown target: expected one of {}, found `{name}`", known.join(", "))
            }
            Self::Absent { name, why } => write!(f, "target {name} cannot be used here: {why}"),
            Self::Failed(why) => write!(f, "the target stopped working: {why}"),
        }
    }
}

impl std::error::Error for TargetError {}

/// An [`Mmu`] in this process, as a target.
#[derive(Debug, Default)]
pub struct InProcess<M>(M);

impl<M> InProcess<M> {
    /// Judged from now on.
    pub const fn new(mmu: M) -> Self {
        Self(mmu)
    }
}

impl<M: Mmu> Target for InProcess<M> {
    fn judge(&mut self, run: &mut Lockstep, program: &Program) -> Result<Option<Violation>, TargetError> {
        Ok(crate::silence::with_panics_silenced(|| run.run(&mut self.0, program)))
    }

    fn report(
        &mut self,
        run: &mut Lockstep,
        program: &Program,
        name: &str,
    ) -> Result<(String, Option<Violation>), TargetError> {
        Ok(crate::silence::with_panics_silenced(|| gpa_oracles::report(run, &mut self.0, program, name)))
    }

    fn profile(&self) -> Profile {
        profile_of(&self.0)
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

/// What `mmu` can be given, found out by asking for one op of each kind.
pub fn profile_of(mmu: &impl Mmu) -> Profile {
    let vm = VmConfig::default();
    let can_be = |vm: VmConfig| mmu.supports_vm(&vm);
    let (gfn, gpa, hva) = (vm.gfn(0), vm.gpa(0, 0), HostPageRange { start: HostPage::new(0), pages: 1 });
    let whole = |kind| mmu.supports(&sample(kind, gfn, gpa, hva));
    let begun = [
        Op::FaultBegin { vcpu: 0, gpa, access: Access::Read },
        Op::UnmapBegin { window: 0, range: hva },
        Op::SlotBegin { id: SlotId::user(0), change: SlotChange::Delete },
    ];
    let private = Op::Slot { id: SlotId::internal(0), change: SlotChange::Delete };
    let two_bits = StolenMask::new(&[40, 41]).ok().and_then(|stolen| vm.with_stolen(stolen).ok()).unwrap_or(vm);
    let log_dirty = SlotFlags { readonly: false, log_dirty: true };
    let logged = SlotChange::Create { gfn, pages: 1, hva: hva.start, flags: log_dirty };
    let strides = [VmConfig::STRIDE_1G, VmConfig::STRIDE_MIXED, VmConfig::STRIDE_2M, 1];
    let apart = |stride: &u64| vm.with_stolen(StolenMask::NONE).and_then(|vm| vm.with_frames(Gfn::new(0), *stride));
    let translates = |bit: &u8| StolenMask::new(&[*bit]).is_ok_and(|stolen| vm.with_stolen(stolen).is_ok_and(can_be));
    let stolen_high = (StolenMask::LOWEST_BIT..=StolenMask::HIGHEST_BIT).rev().find(translates);
    let windows = begun.iter().all(|op| mmu.supports(op));
    let profile = Profile {
        windows,
        split_faults: !windows && mmu.supports(&begun[0]),
        log_dirty: mmu.supports(&Op::Slot { id: SlotId::user(0), change: logged }),
        stride_max: strides.into_iter().find(|stride| apart(stride).is_ok_and(can_be)).unwrap_or(1),
        stolen_high: stolen_high.unwrap_or(StolenMask::HIGHEST_BIT),
        internal_slots: mmu.supports(&private),
        stolen_bits_max: match stolen_high {
            None => 0,
            Some(_) if can_be(two_bits) => Profile::default().stolen_bits_max,
            Some(_) => 1,
        },
        ..Profile::default()
    };
    profile.only(whole)
}

/// An op of this kind, in one piece where there is a choice.
fn sample(kind: OpKind, gfn: Gfn, gpa: gpa_model::Gpa, range: HostPageRange) -> Op {
    let id = SlotId::user(0);
    let slot = |change| Op::Slot { id, change };
    let access = |access| Op::Access { vcpu: 0, gpa, access };
    match kind {
        OpKind::SlotCreate => slot(SlotChange::Create { gfn, pages: 1, hva: range.start, flags: SlotFlags::default() }),
        OpKind::SlotDelete => slot(SlotChange::Delete),
        OpKind::SlotMove => slot(SlotChange::Move { gfn }),
        OpKind::SlotFlags => slot(SlotChange::Flags(SlotFlags { readonly: false, log_dirty: true })),
        OpKind::SlotAliased => Op::SlotAliased { id, gpa, pages: 1, hva: range.start },
        OpKind::SlotEnd => Op::SlotEnd,
        OpKind::Read => access(Access::Read),
        OpKind::Write => access(Access::Write),
        OpKind::Execute => access(Access::Execute),
        OpKind::FaultBegin => Op::FaultBegin { vcpu: 0, gpa, access: Access::Read },
        OpKind::FaultEnd => Op::FaultEnd { vcpu: 0 },
        OpKind::Prefault => Op::Prefault { vcpu: 0, gpa },
        OpKind::Unmap => Op::Unmap { range, by: None },
        OpKind::UnmapBegin => Op::UnmapBegin { window: 0, range },
        OpKind::UnmapEnd => Op::UnmapEnd { window: 0 },
        OpKind::Collapse => Op::Collapse { range },
        OpKind::PageOut => Op::PageOut { range },
        OpKind::PageIn => Op::PageIn { range },
        OpKind::ProtNone => Op::ProtNone { range },
        OpKind::Age => Op::Age { range },
        OpKind::DirtyGet => Op::DirtyGet { id },
        OpKind::DirtyClear => Op::DirtyClear { id, gfn, pages: 1 },
        OpKind::WriteProtect => Op::WriteProtect { gfn },
        OpKind::WriteTrack => Op::WriteTrack { gfn },
        OpKind::WriteUntrack => Op::WriteUntrack { gfn },
        OpKind::Attributes => Op::Attributes { gfn, pages: 1, private: true },
        OpKind::AttributesEnd => Op::AttributesEnd,
        OpKind::MemoryType => Op::MemoryType { gfn, pages: 1, memory: gpa_model::MemoryType::Uncacheable },
        OpKind::ZapBegin => Op::ZapBegin { gfn, pages: 1, leaves: 1 },
        OpKind::ZapEnd => Op::ZapEnd,
        OpKind::NxRecover => Op::NxRecover,
        OpKind::MmuPages => Op::MmuPages { pages: gpa_model::limits::MMU_PAGES_MIN },
        OpKind::Backend => Op::Backend(gpa_model::BackendMode::Works),
        OpKind::Translate => Op::Translate { vcpu: 0, table: gpa, leaf: gpa },
        OpKind::WriteGpte => Op::WriteGpte { vcpu: 0, gpa, index: 0, gpte: Gpte::new(gpa, GpteFlags::PLAIN) },
        OpKind::GuestWalk => Op::GuestWalk { vcpu: 0, root: gpa, gva: Gva::default(), access: Access::Read },
        OpKind::GuestAccess => Op::GuestAccess { vcpu: 0, root: gpa, gva: Gva::default(), access: Access::Read },
        OpKind::GuestFlush => Op::GuestFlush { vcpu: 0 },
        OpKind::PageReady => Op::PageReady { vcpu: 0 },
        OpKind::AsyncPfClear => Op::AsyncPfClear { vcpu: 0 },
    }
}
