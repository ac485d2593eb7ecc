//! Where the guest's own tables may lead a program whose tables the hypervisor shadows.
//!
//! A processor may translate by what an entry said at any time since its TLB was emptied (SDM vol. 3A, 4.10), and a
//! hypervisor that shadows the tables is no better: it learns of some writes at once, and of those to leaf tables when the
//! guest empties its TLB. So an access may be led by a mixture of entries, each as it is or as it was since then.
//!
//! A walk reads upper entries before lower ones. An old lower entry was read before it was written over, so each entry above it was
//! there before that: an entry that was linked later leads to the table as it is now (65855ed8b034).
//!
//! What changes without the guest (a page is taken away, or written by another gfn) the guest cannot flush: such an entry may be
//! used until its memslot goes.

use super::stale_gpte::{Readable, WriteTime};
use super::{Allowed, Model, SlotKind};
use crate::addr::{Alias, Gpa};
use crate::frame_set::FrameSet;
use crate::host::Host;
use crate::limits::FRAMES;
use crate::mmu::{Exit, Fault};
use crate::program::{Access, GpteFlags, Gva, Rights};

/// Everywhere that an access may get to.
#[derive(Default)]
struct Reach {
    /// The tables on the way.
    tables: FrameSet,
    /// The pages, each by the address that the tables lead to.
    ends: Vec<Gpa>,
    faults: [bool; Fault::ALL.len()],
    in_flux: bool,
}

impl Reach {
    fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] = true;
    }
}

/// Which combinations of rights a table was reached with: for each of the eight the earliest time at which all entries on some way
/// to it were there, [`NEVER`] if there is no way.
type Ways = [[WriteTime; 8]; FRAMES];

const NEVER: WriteTime = WriteTime::MAX;

impl Model {
    /// Whether the guest's tables can be shadowed at all. A guest that does not know of stolen bits names other frames by them
    /// than the processor would: where there are any it is refused.
    pub fn can_shadow(&self) -> bool {
        self.vm().stolen().gfn_mask() == 0 || self.vm().paging().strips_stolen_bits()
    }

    /// What an access through the guest's tables may come to.
    pub(super) fn expect_guest_access(
        &mut self,
        host: &Host,
        (vcpu, root): (u8, Gpa),
        gva: Gva,
        access: Access,
    ) -> Allowed {
        if !self.can_shadow() {
            return Allowed { refused: true, ..Allowed::default() };
        }
        let reach = self.reach(host, vcpu, root, gva, access);
        self.shadowed = self.shadowed.union(reach.tables);
        let now = self.guest_walk(host, root, gva, access).end;
        let mut allowed = now.map_or_else(|_| Allowed::default(), |gpa| self.expect_end(host, gpa, access));
        allowed.guest_fault = now.err();
        for gpa in reach.ends.iter().filter(|gpa| now != Ok(**gpa)) {
            let end = self.expect_end(host, *gpa, access);
            let exits = [end.memory.map(Exit::Memory), end.emulated.map(Exit::Emulated), end.mmio.map(Exit::Mmio)];
            allowed.elsewhere.extend(exits.into_iter().flatten());
            (allowed.error, allowed.retry) = (allowed.error || end.error, allowed.retry || end.retry);
        }
        let faults = Fault::ALL.into_iter().filter(|fault| reach.faults[*fault as usize]);
        allowed.elsewhere.extend(faults.map(Exit::GuestFault));
        allowed.table_in_flux = reach.in_flux;
        allowed.retry |= reach.in_flux;
        allowed
    }

    /// What an access may come to where the guest's tables lead to `gpa`. An internal slot belongs to the guest: a guest of the guest
    /// finds no memory there.
    fn expect_end(&self, host: &Host, gpa: Gpa, access: Access) -> Allowed {
        match self.vm().locate(gpa) {
            Some((frame, _)) if !self.hides(frame) => self.expect_access(host, gpa, access),
            located => Allowed {
                mmio: Some(gpa),
                error: access == Access::Execute,
                retry: located.is_some_and(|(frame, _)| self.is_in_flux(host, frame)),
                ..Allowed::default()
            },
        }
    }

    /// An access through the guest's tables ended in `exit`: what it reached may be in the log.
    pub(super) fn observe_guest_access(
        &mut self,
        host: &Host,
        (vcpu, root): (u8, Gpa),
        gva: Gva,
        access: Access,
        exit: &Exit,
    ) {
        if !self.can_shadow() {
            return;
        }
        let now = self.guest_walk(host, root, gva, access).end.ok();
        let located = |gpa: Gpa| self.vm().locate(gpa).map(|(frame, _)| frame).filter(|frame| !self.hides(*frame));
        let taken = match *exit {
            Exit::Memory(pfn) | Exit::Emulated(pfn) => {
                let ends = self.reach(host, vcpu, root, gva, access).ends;
                let frames = ends.into_iter().filter_map(located);
                let reached = frames.filter(|&frame| self.hva(frame).is_some_and(|hva| host.pfn(hva) == pfn));
                reached.fold(FrameSet::EMPTY, |set, frame| set.union(FrameSet::one(frame)))
            }
            Exit::Mmio(_) | Exit::Error => return,
            _ => now.and_then(located).map_or(FrameSet::EMPTY, FrameSet::one),
        };
        // Of several frames of one page one was written, and nothing says which.
        let known = if taken.len() == 1 { *exit } else { Exit::Retry };
        for frame in taken.iter() {
            let allowed = self.expect_access(host, self.vm().gpa(frame, 0), access);
            if allowed.memory.is_some() || allowed.emulated.is_some() {
                self.log_access(frame, access, &known);
            }
        }
    }

    /// Whether a guest of the guest finds no memory at `frame` because the slot there is internal.
    pub fn hides(&self, frame: usize) -> bool {
        self.vm().paging().is_nested() && self.slot_kind(frame) == SlotKind::Internal
    }

    fn reach(&self, host: &Host, vcpu: u8, root: Gpa, gva: Gva, access: Access) -> Reach {
        let (vm, paging) = (self.vm(), self.vm().paging());
        let mut reach = Reach::default();
        let mut ways: Ways = [[NEVER; 8]; FRAMES];
        let mut tables = FrameSet::EMPTY;
        match vm.locate(paging.taken(vm.stolen(), paging.root(root))) {
            Some((frame, _)) => {
                ways[frame][usize::from(Rights::RWX.bits())] = 0;
                tables = FrameSet::one(frame);
            }
            None => reach.fault(Fault::NotPresent),
        }
        for level in (1..=paging.levels()).rev() {
            let mut below: Ways = [[NEVER; 8]; FRAMES];
            let mut lower = FrameSet::EMPTY;
            for frame in tables.iter() {
                let Some((hva, in_flux)) = self.table_page(host, vm.gpa(frame, 0)) else {
                    reach.fault(Fault::NotPresent);
                    continue;
                };
                reach.tables = reach.tables.union(FrameSet::one(frame));
                reach.in_flux |= in_flux;
                for entry in self.readable(host, vcpu, (frame, hva), gva.index(level)) {
                    lower = lower.union(self.follow(&mut reach, &mut below, (entry, level), &ways[frame], gva, access));
                }
            }
            (ways, tables) = (below, lower);
        }
        reach
    }

    /// Where one entry leads, read in a table of a level that was reached in `ways`. Returns the table, if it is one.
    fn follow(
        &self,
        reach: &mut Reach,
        below: &mut Ways,
        (entry, level): (Readable, u8),
        ways: &[WriteTime; 8],
        gva: Gva,
        access: Access,
    ) -> FrameSet {
        let (vm, paging) = (self.vm(), self.vm().paging());
        let (gpte, mut tables) = (entry.gpte, FrameSet::EMPTY);
        // It was read after all that is above it, and before it was written over.
        let mut ways = (0..8u8).zip(ways).filter(|(_, above)| **above != NEVER && **above < entry.until).peekable();
        if ways.peek().is_none() {
            return tables;
        }
        if !gpte.has(GpteFlags::PRESENT) {
            reach.fault(Fault::NotPresent);
            return tables;
        }
        if paging.is_reserved(vm.stolen(), vm.maxphyaddr(), gpte, level) {
            reach.fault(Fault::Reserved);
            return tables;
        }
        let to = paging.taken(vm.stolen(), paging.address(gpte, level));
        let is_leaf = level == 1 || gpte.has(GpteFlags::LARGE);
        for (rights, above) in ways {
            let rights = Rights::from_bits(rights).intersect(paging.rights(gpte));
            if is_leaf {
                let end = to.add_pages(gva.offset(paging, level));
                match rights.contains(Rights::needed(access)) {
                    true if !reach.ends.contains(&end) => reach.ends.push(end),
                    true => {}
                    false => reach.fault(Fault::Protection),
                }
            } else if let Some((frame, Alias::NONE)) = vm.locate(to) {
                let way = &mut below[frame][usize::from(rights.bits())];
                *way = (*way).min((*above).max(entry.from));
                tables = tables.union(FrameSet::one(frame));
            } else {
                reach.fault(Fault::NotPresent);
            }
        }
        tables
    }
}
