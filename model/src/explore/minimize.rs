//! Making a program small while it still shows the same thing. It knows no oracle: the caller says what "the same" is.

use crate::addr::{Gfn, StolenMask};
use crate::explore::generate::readdress;
use crate::program::{Access, BackendMode, HostPageRange, Op, Program, SlotChange, VmConfig, VmOption};

/// What a minimisation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minimized {
    /// The smallest program found that still shows it.
    pub program: Program,
    /// Ops before.
    pub ops_before: usize,
    /// How often the predicate was asked.
    pub executions: usize,
}

/// Delta debugging, cheap big steps first: cut runs of ops, halving their length, then simplify what is left, until
/// nothing changes. Deterministic. `same` must hold for `program` itself; if it does not, `program` comes back unchanged.
pub fn minimize(program: &Program, mut same: impl FnMut(&Program) -> bool) -> Minimized {
    let mut shrink = Shrink { best: program.clone(), executions: 0, same: &mut same };
    if shrink.tries(program.clone()) {
        while shrink.cut_runs() | shrink.simplify_ops() | shrink.simplify_vm() {}
    }
    Minimized { program: shrink.best, ops_before: program.ops.len(), executions: shrink.executions }
}

struct Shrink<'a> {
    best: Program,
    executions: usize,
    same: &'a mut dyn FnMut(&Program) -> bool,
}

impl Shrink<'_> {
    fn tries(&mut self, candidate: Program) -> bool {
        self.executions += 1;
        let holds = (self.same)(&candidate);
        if holds {
            self.best = candidate;
        }
        holds
    }

    fn cut_runs(&mut self) -> bool {
        let mut changed = false;
        let mut run = self.best.ops.len().next_power_of_two();
        while run > 0 {
            // From the end, because what follows the violation is never needed.
            let mut end = self.best.ops.len();
            while end > 0 {
                let start = end.saturating_sub(run);
                let mut candidate = self.best.clone();
                candidate.ops.drain(start..end);
                changed |= self.tries(candidate);
                end = start;
            }
            run /= 2;
        }
        changed
    }

    fn simplify_ops(&mut self) -> bool {
        let mut changed = false;
        for at in 0..self.best.ops.len() {
            let mut simpler = [None; 6];
            simpler_ops(&self.best.vm, self.best.ops[at], &mut simpler);
            for op in simpler.into_iter().flatten() {
                let mut candidate = self.best.clone();
                candidate.ops[at] = op;
                if self.tries(candidate) {
                    changed = true;
                    break;
                }
            }
        }
        changed
    }

    fn simplify_vm(&mut self) -> bool {
        let vm = self.best.vm;
        let bits = vm.stolen().bits().to_vec();
        let fewer = (0..bits.len()).map(|left_out| {
            let mut kept = bits.clone();
            kept.remove(left_out);
            kept
        });
        let usual = std::iter::once((0..bits.len() as u8).map(|i| 40 + i).collect::<Vec<_>>());
        let masks = fewer.chain(usual).filter_map(|bits| StolenMask::new(&bits).ok());
        let mut candidates: Vec<VmConfig> = masks.filter_map(|mask| vm.with_stolen(mask).ok()).collect();
        candidates.extend((1..vm.vcpus()).filter_map(|vcpus| vm.with_vcpus(vcpus).ok()));
        candidates.extend(vm.with_frames(VmConfig::DEFAULT_BASE, 1));
        if vm.stride() > VmConfig::STRIDE_2M {
            // Eight frames in 2 MiB instead of in 1 GiB.
            let base = Gfn::new(vm.base().raw() / vm.stride() * VmConfig::STRIDE_2M);
            candidates.extend(vm.with_frames(base, VmConfig::STRIDE_2M));
        }
        candidates.push(vm.with_backend(BackendMode::Works));
        candidates.extend(VmOption::ALL.iter().filter_map(|option| option.usual(vm).ok()));
        for new in candidates {
            if new == vm {
                continue;
            }
            let ops = self.best.ops.iter().map(|op| readdress(&vm, &new, *op)).collect();
            if self.tries(Program { vm: new, ops, comment: self.best.comment.clone() }) {
                return true;
            }
        }
        false
    }
}

/// Up to six ops that are strictly simpler than `op`, so that simplifying ends.
fn simpler_ops(vm: &VmConfig, op: Op, out: &mut [Option<Op>; 6]) {
    let stride = vm.stride() as u32;
    match op {
        Op::Access { vcpu, gpa, access } => {
            let mask = vm.stolen();
            let (gfn, alias) = mask.split(gpa);
            if vcpu > 0 {
                out[0] = Some(Op::Access { vcpu: 0, gpa, access });
            }
            if access == Access::Execute {
                out[1] = Some(Op::Access { vcpu, gpa, access: Access::Read });
            }
            let index = mask.alias_index(alias);
            if index > 1 {
                out[2] = Some(Op::Access { vcpu, gpa: mask.join(gfn, mask.alias(1)), access });
            }
            if index > 0 {
                out[3] = Some(Op::Access { vcpu, gpa: mask.join(gfn, mask.alias(0)), access });
            }
        }
        Op::FaultBegin { vcpu, gpa, access } => {
            out[0] = Some(Op::Access { vcpu, gpa, access });
            if access == Access::Execute {
                out[1] = Some(Op::FaultBegin { vcpu, gpa, access: Access::Read });
            }
        }
        Op::SlotBegin { id, change } => out[0] = Some(Op::Slot { id, change }),
        Op::UnmapBegin { range, .. } => out[0] = Some(Op::Unmap { range, by: None }),
        Op::Slot { id, change: SlotChange::Create { gfn, pages, hva, flags } } => {
            let frames = vm.frames_in(pages.into()) as u32;
            let create = |pages, flags| Some(Op::Slot { id, change: SlotChange::Create { gfn, pages, hva, flags } });
            if pages > stride {
                out[0] = create(stride, flags);
                out[1] = create(frames / 2 * stride, flags);
                out[2] = create(pages - stride, flags);
            }
            let mut fewer = flags;
            fewer.readonly = false;
            if flags.readonly {
                out[3] = create(pages, fewer);
            }
            fewer = flags;
            fewer.log_dirty = false;
            if flags.log_dirty {
                out[4] = create(pages, fewer);
            }
        }
        Op::Unmap { range, by } => {
            let rest = range.start.add(stride.into());
            for (slot, start, pages) in [(0, range.start, stride), (1, rest, range.pages - stride)] {
                let shorter = Op::Unmap { range: HostPageRange { start, pages }, by };
                out[slot] = Some(shorter).filter(|_| range.pages > stride);
            }
            out[2] = by.map(|_| Op::Unmap { range, by: None });
        }
        Op::Collapse { range } | Op::ProtNone { range } => out[0] = Some(Op::Unmap { range, by: None }),
        Op::DirtyClear { id, gfn, pages } if pages > stride => {
            out[0] = Some(Op::DirtyClear { id, gfn, pages: stride });
            out[1] = Some(Op::DirtyClear { id, gfn: gfn.add(stride.into()), pages: pages - stride });
            out[2] = Some(Op::DirtyClear { id, gfn, pages: pages - stride });
        }
        _ => {}
    }
}
