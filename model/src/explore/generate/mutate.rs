//! Changing programs a little: the mutations of a campaign, and saying a program of another VM.

use super::expected_state::ExpectedState;
use super::generator::Generator;
use super::places::hva_near;
use crate::addr::Gpa;
use crate::explore::choices::Choices;
use crate::limits::{FRAMES, NOTIFIER_WINDOWS, OPS};
use crate::program::{Access, BackendMode, Gpte, HostPageRange, Op, Program, SlotChange, SlotFlags, VmConfig};

impl Generator {
    /// Change `program` a little; `other` may lend a part of itself. The result is within all limits.
    pub fn mutate(&self, choices: &mut impl Choices, program: &mut Program, other: &Program) {
        for _ in 0..=choices.below(3) {
            self.mutate_once(choices, program, other);
        }
    }

    fn mutate_once(&self, choices: &mut impl Choices, program: &mut Program, other: &Program) {
        let len = program.ops.len() as u32;
        let at = if len == 0 { 0 } else { choices.below(len) as usize };
        match choices.below(16) {
            0..=5 if (len as usize) < OPS => {
                let at = choices.below(len + 1) as usize;
                let Program { vm, ops, .. } = program;
                let mut sketch = ExpectedState::of(vm, &ops[..at]);
                let focus = self.focus(choices, vm, &sketch);
                self.extend(choices, vm, &mut sketch, &focus, ops);
                ops.truncate(OPS);
                let added = ops.len() - len as usize;
                ops[at..].rotate_right(added);
            }
            6 | 7 if len > 1 => {
                let run = 1 + choices.below(3) as usize;
                program.ops.drain(at..(at + run).min(len as usize));
            }
            8 if len > 1 => program.ops.swap(at, choices.below(len) as usize),
            9 if len > 0 && (len as usize) < OPS => {
                let op = program.ops[at];
                program.ops.insert(choices.below(len + 1) as usize, op);
            }
            10 | 11 if len > 0 => self.retarget(choices, &program.vm, &mut program.ops[at]),
            12 if len > 0 => self.split(choices, program, at),
            13 if !other.ops.is_empty() => Self::splice(choices, program, other, at),
            14 => self.change_vm(choices, program),
            _ => {
                program.vm = program.vm.with_backend(choices.pick(&BackendMode::ALL));
            }
        }
    }

    /// Point one op at another alias, a neighbouring frame, or another kind of access.
    fn retarget(&self, choices: &mut impl Choices, vm: &VmConfig, op: &mut Op) {
        let which = choices.below(4);
        if let Op::Access { gpa, access, .. } | Op::FaultBegin { gpa, access, .. } = op {
            match which {
                0 => *access = choices.pick(&Access::ALL),
                1 => *gpa = near(choices, vm, *gpa),
                _ => *gpa = other_alias(choices, vm, *gpa),
            }
        } else if let Op::Translate { table, leaf, .. } = op {
            *table = other_alias(choices, vm, *table);
            *leaf = other_alias(choices, vm, *leaf);
        } else if let Op::WriteGpte { gpa, gpte, .. } = op {
            match which {
                0 => *gpte = Gpte::new(gpte.gpa(), Self::gpte_flags(choices)),
                1 => *gpa = other_alias(choices, vm, *gpa),
                _ => *gpte = Gpte::new(other_alias(choices, vm, gpte.gpa()), gpte.flags()),
            }
        } else if let Op::GuestWalk { root, access, .. } | Op::GuestAccess { root, access, .. } = op {
            match which {
                0 => *access = choices.pick(&Access::ALL),
                _ => *root = other_alias(choices, vm, *root),
            }
        } else if let Op::Unmap { range, by } = op {
            *range = hva_near(choices, vm, vm.hva_index(range.start) as u32);
            if which == 0 {
                *by = self.reclaim(choices);
            }
        } else if let Op::UnmapBegin { range, .. }
        | Op::Collapse { range }
        | Op::ProtNone { range }
        | Op::Age { range } = op
        {
            *range = hva_near(choices, vm, vm.hva_index(range.start) as u32);
        }
    }

    /// Turn a whole op into its begin here and its end later.
    fn split(&self, choices: &mut impl Choices, program: &mut Program, at: usize) {
        if !self.profile.windows || program.ops.len() >= OPS {
            return;
        }
        let window = choices.below(NOTIFIER_WINDOWS as u32) as u8;
        let (begin, end) = match program.ops[at] {
            Op::Slot { id, change } => (Op::SlotBegin { id, change }, Op::SlotEnd),
            Op::Unmap { range, .. } => (Op::UnmapBegin { window, range }, Op::UnmapEnd { window }),
            Op::Access { vcpu, gpa, access } => (Op::FaultBegin { vcpu, gpa, access }, Op::FaultEnd { vcpu }),
            Op::Attributes { gfn, pages, private } => (Op::AttributesBegin { gfn, pages, private }, Op::AttributesEnd),
            _ => return,
        };
        program.ops[at] = begin;
        let left = (program.ops.len() - at) as u32;
        program.ops.insert(at + 1 + choices.below(left) as usize, end);
    }

    /// Put a run of another program's ops at `at`, readdressed to this VM.
    fn splice(choices: &mut impl Choices, program: &mut Program, other: &Program, at: usize) {
        let from = choices.below(other.ops.len() as u32) as usize;
        let run = 1 + choices.below(8) as usize;
        let room = OPS - program.ops.len();
        let run = &other.ops[from..(from + run.min(room)).min(other.ops.len())];
        let vm = program.vm;
        program.ops.splice(at..at, run.iter().map(|op| readdress(&other.vm, &vm, *op)));
    }

    fn change_vm(&self, choices: &mut impl Choices, program: &mut Program) {
        let old = program.vm;
        let new = self.vm(choices);
        for op in &mut program.ops {
            *op = readdress(&old, &new, *op);
        }
        program.vm = new;
    }
}

fn near(choices: &mut impl Choices, vm: &VmConfig, gpa: Gpa) -> Gpa {
    let Some((frame, alias)) = vm.locate(gpa) else { return gpa };
    let moved = (frame + FRAMES + choices.below(17) as usize - 8) % FRAMES;
    vm.gpa(moved, vm.stolen().alias_index(alias))
}

fn other_alias(choices: &mut impl Choices, vm: &VmConfig, gpa: Gpa) -> Gpa {
    let (gfn, _) = vm.stolen().split(gpa);
    vm.stolen().join(gfn, vm.stolen().alias(choices.below(vm.stolen().alias_count() as u32) as usize))
}

/// The same op said of another VM: same frame numbers, host block numbers, alias numbers and vCPUs as far as the VM has them.
pub fn readdress(from: &VmConfig, to: &VmConfig, op: Op) -> Op {
    let pages = |pages: u32| to.pages_of(from.frames_in(pages.into())) as u32;
    let hva = |hva| to.hva(from.hva_index(hva));
    let range = |range: HostPageRange| HostPageRange { start: hva(range.start), pages: pages(range.pages) };
    let gfn = |gfn| to.gfn(from.frame(gfn).unwrap_or(0));
    let gpa = |gpa| {
        let Some((frame, alias)) = from.locate(gpa) else { return to.gpa(0, 0) };
        to.gpa(frame, from.stolen().alias_index(alias) % to.stolen().alias_count())
    };
    let vcpu = |vcpu: u8| vcpu % to.vcpus();
    let change = |change| match change {
        SlotChange::Create { gfn: at, pages: p, hva: h, flags } => {
            SlotChange::Create { gfn: gfn(at), pages: pages(p), hva: hva(h), flags }
        }
        SlotChange::Move { gfn: at } => SlotChange::Move { gfn: gfn(at) },
        SlotChange::Delete | SlotChange::Flags(_) => change,
    };
    match op {
        Op::Slot { id, change: c } => Op::Slot { id, change: change(c) },
        Op::SlotBegin { id, change: c } => Op::SlotBegin { id, change: change(c) },
        Op::Access { vcpu: v, gpa: at, access } => Op::Access { vcpu: vcpu(v), gpa: gpa(at), access },
        Op::FaultBegin { vcpu: v, gpa: at, access } => Op::FaultBegin { vcpu: vcpu(v), gpa: gpa(at), access },
        Op::FaultEnd { vcpu: v } => Op::FaultEnd { vcpu: vcpu(v) },
        Op::Prefault { vcpu: v, gpa: at } => Op::Prefault { vcpu: vcpu(v), gpa: gpa(at) },
        Op::DirtyClear { id, gfn: at, pages: p } => Op::DirtyClear { id, gfn: gfn(at), pages: pages(p) },
        Op::Attributes { gfn: at, pages: p, private } => Op::Attributes { gfn: gfn(at), pages: pages(p), private },
        Op::AttributesBegin { gfn: at, pages: p, private } => {
            Op::AttributesBegin { gfn: gfn(at), pages: pages(p), private }
        }
        Op::MemoryType { gfn: at, pages: p, memory } => Op::MemoryType { gfn: gfn(at), pages: pages(p), memory },
        Op::WriteProtect { gfn: at } => Op::WriteProtect { gfn: gfn(at) },
        Op::WriteTrack { gfn: at } => Op::WriteTrack { gfn: gfn(at) },
        Op::WriteUntrack { gfn: at } => Op::WriteUntrack { gfn: gfn(at) },
        Op::SlotAliased { id, gpa: at, pages: p, hva: h } => {
            let (at, (gfn, alias), pages, hva) = (gpa(at), to.stolen().split(gpa(at)), pages(p), hva(h));
            // A VM without that alias can only be asked for the base name.
            let change = SlotChange::Create { gfn, pages, hva, flags: SlotFlags::default() };
            if alias.is_none() { Op::Slot { id, change } } else { Op::SlotAliased { id, gpa: at, pages, hva } }
        }
        Op::Translate { vcpu: v, table, leaf } => Op::Translate { vcpu: vcpu(v), table: gpa(table), leaf: gpa(leaf) },
        Op::WriteGpte { vcpu: v, gpa: at, index, gpte } => {
            Op::WriteGpte { vcpu: vcpu(v), gpa: gpa(at), index, gpte: Gpte::new(gpa(gpte.gpa()), gpte.flags()) }
        }
        Op::GuestWalk { vcpu: v, root, gva, access } => {
            Op::GuestWalk { vcpu: vcpu(v), root: gpa(root), gva: gva.of_levels(to.paging().levels()), access }
        }
        Op::GuestAccess { vcpu: v, root, gva, access } => {
            Op::GuestAccess { vcpu: vcpu(v), root: gpa(root), gva: gva.of_levels(to.paging().levels()), access }
        }
        Op::GuestFlush { vcpu: v } => Op::GuestFlush { vcpu: vcpu(v) },
        Op::PageReady { vcpu: v } => Op::PageReady { vcpu: vcpu(v) },
        Op::AsyncPfClear { vcpu: v } => Op::AsyncPfClear { vcpu: vcpu(v) },
        Op::Unmap { range: r, by } => Op::Unmap { range: range(r), by },
        Op::UnmapBegin { window, range: r } => Op::UnmapBegin { window, range: range(r) },
        Op::Collapse { range: r } => Op::Collapse { range: range(r) },
        Op::PageOut { range: r } => Op::PageOut { range: range(r) },
        Op::ProtNone { range: r } => Op::ProtNone { range: range(r) },
        Op::PageIn { range: r } => Op::PageIn { range: range(r) },
        Op::Age { range: r } => Op::Age { range: range(r) },
        Op::SlotEnd | Op::UnmapEnd { .. } | Op::DirtyGet { .. } | Op::AttributesEnd => op,
        Op::ZapBegin { gfn: at, pages: p, leaves } => Op::ZapBegin { gfn: gfn(at), pages: pages(p), leaves },
        Op::ZapEnd | Op::NxRecover | Op::MmuPages { .. } | Op::Backend(_) => op,
    }
}
