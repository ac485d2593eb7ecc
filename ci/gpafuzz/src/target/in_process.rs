//! An MMU in this process as a target, and what can be asked of it.

use super::silence::with_panics_silenced;
use super::{Target, TargetError};
use gpa_model::generate::Profile;
use gpa_model::{
    Access, Aliasing, Capabilities, Gfn, Gpte, GpteFlags, Gva, HostPage, HostPageRange, Mmu, Op, OpKind, Program,
    SlotChange, SlotFlags, SlotId, StolenMask, VmConfig,
};
use gpa_oracles::{Lockstep, Violation};

/// Ops of a generated program, at most.
const OPS_MAX: u32 = 200;

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
        Ok(with_panics_silenced(|| run.run(&mut self.0, program)))
    }

    fn report(
        &mut self,
        run: &mut Lockstep,
        program: &Program,
        name: &str,
    ) -> Result<(String, Option<Violation>), TargetError> {
        Ok(with_panics_silenced(|| gpa_oracles::report(run, &mut self.0, program, name)))
    }

    fn profile(&self) -> Profile {
        // A long program costs little here, and reaches what is deep.
        Profile { ops_max: OPS_MAX, ..profile_of(&self.0) }
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
        shared_private: match vm.with_aliasing(Aliasing::SharedPrivate) {
            Ok(vm) if can_be(vm) => 4,
            _ => 0,
        },
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
