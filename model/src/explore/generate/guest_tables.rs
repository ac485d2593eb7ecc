//! Ops on the guest's own page tables: entries that lead to tables that hold entries, and ways through them.

use super::expected_state::{ExpectedSlot, ExpectedState};
use super::generator::{Focus, Generator};
use crate::addr::Gpa;
use crate::explore::choices::Choices;
use crate::limits::{FRAMES, GPTES, GUEST_LEVELS};
use crate::program::{Access, Gpte, GpteFlags, Gva, Op, OpKind, SlotChange, SlotFlags, VmConfig};

/// Ops that make an entry on a way another.
type Remapping = [Option<Op>; 7];

const NOTHING: Remapping = [None; 7];

/// A way that an access takes.
#[derive(Clone, Copy)]
struct Way {
    vcpu: u8,
    root: Gpa,
    gva: Gva,
    /// The frames of the tables on it, by their level, as far as it is known to lead.
    tables: [Option<usize>; GUEST_LEVELS + 1],
}

impl Way {
    fn of(vm: &VmConfig, sketch: &ExpectedState, op: Op) -> Option<Self> {
        let Op::GuestAccess { vcpu, root, gva, .. } = op else { return None };
        let (frame, _) = vm.locate(root)?;
        let levels = 1..=vm.paging().levels();
        let at =
            |level: usize| sketch.table_at(vm, frame, gva, level as u8).filter(|_| levels.contains(&(level as u8)));
        Some(Self { vcpu, root, gva, tables: std::array::from_fn(at) })
    }

    fn by(&self, gva: Gva, access: Access) -> Op {
        Op::GuestAccess { vcpu: self.vcpu, root: self.root, gva, access }
    }

    fn write(&self, gpa: Gpa, index: u8, gpte: Gpte) -> Op {
        Op::WriteGpte { vcpu: self.vcpu, gpa, index, gpte }
    }
}

impl Generator {
    /// An entry of one of a few tables. Few frames and few indices: entries that lead to tables, or back, come by themselves.
    pub(super) fn write_gpte(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
    ) -> Op {
        let vcpu = (0..vm.vcpus()).find(|&v| !sketch.faults[usize::from(v)]).unwrap_or(0);
        let (gpa, to) = (self.table(choices, vm, sketch, focus), self.table(choices, vm, sketch, focus));
        let index = if choices.chance(1, 2) { 0 } else { choices.below(GPTES as u32) as u8 };
        Op::WriteGpte { vcpu, gpa, index, gpte: Gpte::new(to, Self::gpte_flags(choices)) }
    }

    /// One of the first pages of a slot that can be written, so that entries lead to tables that hold entries.
    fn table(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> Gpa {
        match sketch.any_slot(choices, |_, slot| !slot.flags.readonly) {
            Some((_, slot)) if choices.chance(7, 8) => {
                let frame = usize::from(slot.frame) + choices.below(u32::from(slot.frames).min(3)) as usize;
                vm.gpa(frame % FRAMES, Self::alias(choices, vm))
            }
            _ => self.gpa(choices, vm, sketch, focus),
        }
    }

    /// The last page of a slot that can be written, which is seldom a table.
    fn last_page(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> Gpa {
        match sketch.any_slot(choices, |_, slot| !slot.flags.readonly) {
            Some((_, slot)) => vm.gpa(usize::from(slot.frame + slot.frames - 1) % FRAMES, Self::alias(choices, vm)),
            None => self.gpa(choices, vm, sketch, focus),
        }
    }

    /// At times a page of a private slot, which a guest of the guest must not find.
    fn private_page(choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState) -> Option<Gpa> {
        let (_, slot) = sketch.any_slot(choices, |id, _| id.is_internal())?;
        let nested = vm.paging().is_nested() && choices.chance(1, 2);
        nested.then(|| vm.gpa(slot.frame.into(), 0))
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
        vm: &VmConfig,
        sketch: &ExpectedState,
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
        vm: &VmConfig,
        sketch: &mut ExpectedState,
        focus: &Focus,
        op: Op,
        ops: &mut Vec<Op>,
    ) {
        let Some(way) = Way::of(vm, sketch, op) else { return };
        let made = match choices.below(7) {
            0 => self.lose(choices, vm, sketch, focus, way),
            1 | 2 => self.allow_less(choices, vm, sketch, focus, way),
            3 | 4 => self.rewrite_unseen(choices, vm, sketch, focus, way),
            5 if self.profile.windows => Self::overtake(choices, vm, sketch, way),
            _ => self.rewrite(choices, vm, sketch, focus, way),
        };
        for op in made.into_iter().flatten().filter(|op| self.profile.allows(op.kind())) {
            sketch.note(vm, &op);
            ops.push(op);
        }
    }

    /// What may only be read stays mapped when the entry leads to no memory any more.
    fn lose(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
        way: Way,
    ) -> Remapping {
        let alias = Self::alias(choices, vm);
        let (page, hole) = (self.table(choices, vm, sketch, focus), vm.gpa(sketch.any_hole(choices), alias));
        let Some(leaves) = way.tables[1] else { return NOTHING };
        let write = |gpte| Some(way.write(vm.gpa(leaves, alias), way.gva.index(1), gpte));
        let lost = write(Gpte::new(hole, GpteFlags::PLAIN));
        let [read, again] = [Access::Read, Access::Write].map(|access| Some(way.by(way.gva, access)));
        [write(read_only(page)), read, lost, again, None, None, None]
    }

    /// A fault on a table of leaves is over only after it has been shadowed, and a write to it has put that out of step. In a slot that
    /// is logged a write that nobody is told of is noticed.
    fn overtake(choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, way: Way) -> Remapping {
        let late = (way.vcpu + 1) % vm.vcpus();
        let Some(leaves) = way.tables[1].filter(|_| late != way.vcpu && !sketch.faults[usize::from(late)]) else {
            return NOTHING;
        };
        let (gpa, gfn) = (vm.gpa(leaves, Self::alias(choices, vm)), vm.gfn(leaves));
        let unlogged = |_, slot: &ExpectedSlot| slot.holds(leaves) && !slot.flags.log_dirty;
        let logged = sketch.any_slot(choices, unlogged).map(|(id, slot)| {
            let flags = SlotFlags { log_dirty: true, ..slot.flags };
            Op::Slot { id, change: SlotChange::Flags(flags) }
        });
        [
            logged,
            Some(Op::FaultBegin { vcpu: late, gpa, access: choices.pick(&Access::ALL) }),
            Some(way.by(way.gva, Access::Read)),
            Some(Op::Access { vcpu: way.vcpu, gpa, access: Access::Write }),
            Some(Op::FaultEnd { vcpu: late }),
            Some(Op::WriteProtect { gfn }),
            None,
        ]
    }

    /// Another entry leads to the same table, and through it less is allowed of a page that is none. What an entry itself forbids
    /// tells the shadow pages of its table apart; what those above it forbid shows two levels down.
    fn allow_less(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
        way: Way,
    ) -> Remapping {
        let alias = Self::alias(choices, vm);
        let lowest = vm.paging().levels().min(3);
        let level = lowest + choices.below(u32::from(vm.paging().levels() - lowest) + 1) as u8;
        let page = Gpte::new(self.last_page(choices, vm, sketch, focus), GpteFlags::PLAIN);
        let other = (way.gva.index(level) + 1 + choices.below(GPTES as u32 - 1) as u8) % GPTES as u8;
        let last = choices.pick(&[Access::Write, Access::Write, Access::Read]);
        let tables = way.tables;
        let (Some(table), Some(twin)) = (tables[usize::from(level)], tables[usize::from(level) - 1]) else {
            return NOTHING;
        };
        let through = way.gva.with_index(level, other);
        [
            Some(way.write(vm.gpa(table, alias), other, read_only(vm.gpa(twin, alias)))),
            tables[1].map(|leaves| way.write(vm.gpa(leaves, alias), way.gva.index(1), page)),
            Some(way.by(through, Access::Read)),
            Some(way.by(way.gva, Access::Write)),
            Some(way.by(through, last)),
            None,
            None,
        ]
    }

    /// Nobody is told of writes to a table under a gfn that is not its own: its page is in another memslot, too. The entry leads
    /// to other leaves from then on, and these are changed, of which the guest makes sure.
    fn rewrite_unseen(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
        way: Way,
    ) -> Remapping {
        let [leaves, first, second] = [(); 3].map(|()| self.table(choices, vm, sketch, focus));
        let (id, hole) = (sketch.free_id(choices, false), sketch.any_hole(choices));
        let index = choices.below(GPTES as u32) as u8;
        let Some(hva) = way.tables[2].and_then(|table| sketch.hva_of(vm, table)) else { return NOTHING };
        let (gfn, flags) = (vm.gfn(hole), SlotFlags::default());
        let change = SlotChange::Create { gfn, pages: vm.stride() as u32, hva, flags };
        let entry = |page| way.write(leaves, index, Gpte::new(page, GpteFlags::PLAIN));
        let access = way.by(way.gva.with_index(1, index), Access::Read);
        [
            Some(Op::Slot { id, change }),
            Some(way.write(vm.gpa(hole, 0), way.gva.index(2), Gpte::new(leaves, GpteFlags::PLAIN))),
            Some(entry(first)),
            Some(access),
            Some(entry(second)),
            Some(Op::GuestFlush { vcpu: way.vcpu }),
            Some(access),
        ]
    }

    fn rewrite(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
        way: Way,
    ) -> Remapping {
        let alias = Self::alias(choices, vm);
        let level = 1 + choices.below(vm.paging().levels().into()) as u8;
        let entry = Gpte::new(self.table(choices, vm, sketch, focus), Self::gpte_flags(choices));
        let flush = choices.chance(1, 2).then_some(Op::GuestFlush { vcpu: way.vcpu });
        let again = way.by(way.gva, choices.pick(&Access::ALL));
        let Some(table) = way.tables[usize::from(level)] else { return NOTHING };
        let write = way.write(vm.gpa(table, alias), way.gva.index(level), entry);
        [Some(write), flush, Some(again), None, None, None, None]
    }

    pub(super) fn alias(choices: &mut impl Choices, vm: &VmConfig) -> usize {
        choices.below(vm.stolen().alias_count() as u32) as usize
    }

    /// A table for each level, one leading to the next; the access that goes through all of them.
    pub(super) fn tree(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &mut ExpectedState,
        focus: &Focus,
        ops: &mut Vec<Op>,
    ) -> Op {
        let root = self.table(choices, vm, sketch, focus);
        let (mut gpa, mut indices) = (root, [0; GUEST_LEVELS]);
        let indices = &mut indices[..usize::from(vm.paging().levels())];
        for level in (1..=vm.paging().levels()).rev() {
            let private = if level == 1 { Self::private_page(choices, vm, sketch) } else { None };
            // A table of leaves that is no upper one, too, may come to be out of step.
            let to = private.unwrap_or_else(|| match level {
                2 if choices.chance(1, 2) => self.last_page(choices, vm, sketch, focus),
                _ => self.table(choices, vm, sketch, focus),
            });
            let index = choices.below(GPTES as u32) as u8;
            indices[usize::from(vm.paging().levels() - level)] = index;
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
        Op::GuestAccess { vcpu: 0, root, gva: Gva::new(indices), access: Access::Read }
    }
}

fn read_only(to: Gpa) -> Gpte {
    Gpte::new(to, GpteFlags::PLAIN.minus(GpteFlags::WRITABLE))
}
