//! Ops on the guest's own page tables: entries that lead to tables that hold entries, and ways through them.

use super::{Focus, Generator, Sketch};
use crate::addr::Gpa;
use crate::choices::Choices;
use crate::guest_paging::{Gpte, GpteFlags};
use crate::limits::{FRAMES, GPTES};
use crate::op::{Access, Op, OpKind};
use crate::vm::Vm;

impl Generator {
    /// An entry of one of a few tables. Few frames and few indices: entries that lead to tables, or back, come by themselves.
    pub(super) fn write_gpte(&self, choices: &mut impl Choices, vm: &Vm, sketch: &Sketch, focus: &Focus) -> Op {
        let vcpu = (0..vm.vcpus()).find(|&v| !sketch.faults[usize::from(v)]).unwrap_or(0);
        let (gpa, to) = (self.table(choices, vm, sketch, focus), self.table(choices, vm, sketch, focus));
        let index = if choices.chance(1, 2) { 0 } else { choices.below(GPTES as u32) as u8 };
        Op::WriteGpte { vcpu, gpa, index, gpte: Gpte::new(to, Self::gpte_flags(choices)) }
    }

    /// One of the first pages of a slot that can be written, so that entries lead to tables that hold entries.
    fn table(&self, choices: &mut impl Choices, vm: &Vm, sketch: &Sketch, focus: &Focus) -> Gpa {
        match sketch.any_slot(choices, |_, slot| !slot.flags.readonly) {
            Some((_, slot)) if choices.chance(7, 8) => {
                let frame = usize::from(slot.frame) + choices.below(u32::from(slot.frames).min(3)) as usize;
                vm.gpa(frame % FRAMES, Self::alias(choices, vm))
            }
            _ => self.gpa(choices, vm, sketch, focus),
        }
    }

    pub(super) fn gpte_flags(choices: &mut impl Choices) -> GpteFlags {
        let odd = [
            GpteFlags::PRESENT,
            GpteFlags::WRITABLE,
            GpteFlags::USER,
            GpteFlags::NX,
            GpteFlags::LARGE,
            GpteFlags::LARGE,
            GpteFlags::BIT51,
        ];
        if choices.chance(3, 4) {
            return GpteFlags::PLAIN;
        }
        let flag = choices.pick(&odd);
        if GpteFlags::PLAIN.contains(flag) { GpteFlags::PLAIN.minus(flag) } else { GpteFlags::PLAIN.union(flag) }
    }

    /// A way through tables that hold entries, as far as there are any.
    pub(super) fn guest_walk(
        &self,
        choices: &mut impl Choices,
        vm: &Vm,
        sketch: &Sketch,
        focus: &Focus,
        (kind, vcpu, access): (OpKind, u8, Access),
    ) -> Op {
        let root = match sketch.any_table(choices) {
            Some(frame) => vm.gpa(frame, Self::alias(choices, vm)),
            None => self.gpa(choices, vm, sketch, focus),
        };
        let frame = vm.locate(root).map_or(0, |(frame, _)| frame);
        let gva = sketch.any_gva(choices, frame, vm.paging().levels());
        // Only where frames lie side by side does a large page of the guest hold no others.
        if kind == OpKind::GuestAccess && vm.stride() == 1 {
            Op::GuestAccess { vcpu, root, gva, access }
        } else {
            Op::GuestWalk { vcpu, root, gva, access }
        }
    }

    /// What makes shadow pages differ from the guest's tables: an entry on the way of `op` changes, and the access comes again.
    pub(super) fn remap(
        &self,
        choices: &mut impl Choices,
        vm: &Vm,
        sketch: &mut Sketch,
        focus: &Focus,
        op: Op,
        ops: &mut Vec<Op>,
    ) {
        let Op::GuestAccess { vcpu, root, gva, .. } = op else { return };
        let which = choices.below(4);
        let level = if which == 0 { 1 } else { 1 + choices.below(vm.paging().levels().into()) as u8 };
        let way = |level| sketch.table_at(vm, vm.locate(root)?.0, gva, level);
        let Some(table) = way(level) else { return };
        let alias = Self::alias(choices, vm);
        let by = |gva, access| Op::GuestAccess { vcpu, root, gva, access };
        let write = |index, gpte| Op::WriteGpte { vcpu, gpa: vm.gpa(table, alias), index: index % GPTES as u8, gpte };
        let read_only = |to| Gpte::new(to, GpteFlags::PLAIN.minus(GpteFlags::WRITABLE));
        let index = gva.index(level);
        let below = level.checked_sub(1).filter(|below| *below > 0).and_then(way);
        let made = match below {
            _ if which == 0 => {
                // What may only be read stays mapped when the entry leads to no memory any more.
                let (page, hole) = (self.table(choices, vm, sketch, focus), vm.gpa(sketch.any_hole(choices), alias));
                let lost = write(index, Gpte::new(hole, GpteFlags::PLAIN));
                [
                    Some(write(index, read_only(page))),
                    Some(by(gva, Access::Read)),
                    Some(lost),
                    Some(by(gva, Access::Write)),
                ]
            }
            Some(twin) if matches!(which, 1 | 2) => {
                // Another entry leads to the same table, and through it less is allowed.
                let other = index + 1 + choices.below(GPTES as u32 - 1) as u8;
                let through = gva.with_index(level, other);
                let again = by(through, choices.pick(&[Access::Write, Access::Write, Access::Read]));
                let entry = write(other, read_only(vm.gpa(twin, alias)));
                [Some(entry), Some(by(through, Access::Read)), Some(by(gva, Access::Write)), Some(again)]
            }
            _ => {
                let entry = Gpte::new(self.table(choices, vm, sketch, focus), Self::gpte_flags(choices));
                let flush = choices.chance(1, 2).then_some(Op::GuestFlush { vcpu });
                [Some(write(index, entry)), flush, Some(by(gva, choices.pick(&Access::ALL))), None]
            }
        };
        for op in made.into_iter().flatten() {
            sketch.note(vm, &op);
            ops.push(op);
        }
    }

    fn alias(choices: &mut impl Choices, vm: &Vm) -> usize {
        choices.below(vm.stolen().alias_count() as u32) as usize
    }

    /// A table for each level, one leading to the next.
    pub(super) fn tree(
        &self,
        choices: &mut impl Choices,
        vm: &Vm,
        sketch: &mut Sketch,
        focus: &Focus,
        ops: &mut Vec<Op>,
    ) {
        let mut gpa = self.table(choices, vm, sketch, focus);
        for level in (1..=vm.paging().levels()).rev() {
            let to = self.table(choices, vm, sketch, focus);
            let index = choices.below(GPTES as u32) as u8;
            let mut write = |index, to, flags| {
                let op = Op::WriteGpte { vcpu: 0, gpa, index, gpte: Gpte::new(to, flags) };
                sketch.note(vm, &op);
                ops.push(op);
            };
            if level == 1 && choices.chance(1, 4) {
                // Of an entry that is not present no bit means anything.
                write((index + 1) % GPTES as u8, to, GpteFlags::PLAIN.minus(GpteFlags::PRESENT));
            }
            write(index, to, GpteFlags::PLAIN);
            gpa = to;
        }
    }
}
