//! Where the guest's own tables may lead a program whose tables the hypervisor shadows.
//!
//! A processor may translate by what an entry said at any time since its TLB was emptied (SDM vol. 3A, 4.10), and a
//! hypervisor that shadows the tables is no better: it learns of some writes at once, and of those to leaf tables when the
//! guest empties its TLB. So an access may be led by any mixture of entries, each as it is or as it was since then. What
//! changes behind the guest's back (a page is taken away, or written under another gfn) the guest cannot flush: such an
//! entry may be met until its memslot goes.

use super::{Allowed, Model, SlotKind};
use crate::addr::{Alias, Gpa};
use crate::frame_set::FrameSet;
use crate::host::Host;
use crate::limits::FRAMES;
use crate::mmu::{Exit, Fault};
use crate::program::{Access, Gpte, GpteFlags, Gva, Rights};

/// Everywhere that an access may get to.
#[derive(Default)]
struct Reach {
    /// The tables on the way.
    tables: FrameSet,
    /// By their base names, and by others: a large page of the guest may span a low stolen bit.
    ends: [FrameSet; 2],
    outside: bool,
    faults: [bool; Fault::ALL.len()],
    in_flux: bool,
}

/// Which combinations of rights a table was reached with: one bit for each of the eight.
type Ways = [u8; FRAMES];

impl Model {
    /// Whether the guest's tables can be shadowed at all. A guest that does not know of stolen bits names other frames by them
    /// than the processor would: where there are any it is refused.
    pub fn can_shadow(&self) -> bool {
        self.vm().stolen().gfn_mask() == 0 || self.vm().paging().strips_stolen_bits()
    }

    /// What an access through the guest's tables may come to. Of all the places that it may get to `exit` says which it was.
    pub(super) fn guest_access(
        &mut self,
        host: &Host,
        (vcpu, root): (u8, Gpa),
        gva: Gva,
        access: Access,
        exit: &Exit,
    ) -> Allowed {
        if !self.can_shadow() {
            return Allowed { refused: true, ..Allowed::default() };
        }
        let reach = self.reach(host, vcpu, root, gva, access);
        self.shadowed = self.shadowed.union(reach.tables);
        let now = self.guest_walk(host, root, gva, access).end;
        let mut allowed = self.access_to_one(host, reach.ends, now, access, exit);
        let outside = |gpa: &Gpa| self.vm().locate(*gpa).is_none();
        let told = if let Exit::Mmio(gpa) = exit { Some(*gpa).filter(|_| reach.outside) } else { None };
        if let Some(gpa) = told.or(now.ok()).filter(outside) {
            allowed.mmio = Some(self.vm().stolen().split(gpa).0);
        }
        allowed.guest_fault = match exit {
            Exit::GuestFault(fault) if reach.faults[*fault as usize] => Some(*fault),
            _ => now.err(),
        };
        allowed.table_in_flux = reach.in_flux;
        allowed.retry |= reach.in_flux;
        allowed
    }

    /// What an access to one of `ends` may come to: to that which `exit` speaks of, if there is one, otherwise to that of now.
    fn access_to_one(
        &mut self,
        host: &Host,
        ends: [FrameSet; 2],
        now: Result<Gpa, Fault>,
        access: Access,
        exit: &Exit,
    ) -> Allowed {
        let spoken_of = ends[0].union(ends[1]).iter().filter(|&frame| self.speaks_of(host, frame, exit));
        let taken = spoken_of.fold(FrameSet::EMPTY, |set, frame| set.union(FrameSet::one(frame)));
        // Of a frame that either leads to, an alias is what was met if no memory was.
        let by_alias = |frame| ends[1].contains(frame) && (!ends[0].contains(frame) || matches!(exit, Exit::Mmio(_)));
        match (taken.first(), taken.len()) {
            (Some(frame), 1) => self.access_frame(host, (frame, by_alias(frame)), access, exit),
            (Some(_), _) => {
                // Frames of one page: one of them was written, and nobody can say which.
                let vm = *self.vm();
                taken.iter().fold(Allowed::default(), |admitting, frame| {
                    let allowed = self.access_frame(host, (frame, by_alias(frame)), access, &Exit::Retry);
                    if admitting.admits(&vm, exit) { admitting } else { allowed }
                })
            }
            (None, _) => match now.map(|gpa| self.vm().locate(gpa)) {
                Ok(Some((frame, alias))) => self.access_frame(host, (frame, !alias.is_none()), access, exit),
                _ => Allowed { retry: self.in_flux(host), ..Allowed::default() },
            },
        }
    }

    /// What an access to `frame` may come to, by an alias or by its base name. A private slot is the guest's own: a guest of the guest
    /// finds no memory there.
    fn access_frame(&mut self, host: &Host, (frame, by_alias): (usize, bool), access: Access, exit: &Exit) -> Allowed {
        if self.hides(frame) {
            let (mmio, error) = (Some(self.vm().gfn(frame)), access == Access::Execute);
            return Allowed { mmio, error, retry: self.in_flux(host), ..Allowed::default() };
        }
        self.access(host, self.vm().gpa(frame, by_alias.into()), access, exit)
    }

    /// Whether who goes by the guest's tables finds no memory at `frame` because what is there is private.
    pub fn hides(&self, frame: usize) -> bool {
        self.vm().paging().is_nested() && self.slot_kind(frame) == SlotKind::Internal
    }

    /// Whether `exit` can be that of an access to `frame`.
    fn speaks_of(&self, host: &Host, frame: usize, exit: &Exit) -> bool {
        match *exit {
            Exit::Memory(pfn) | Exit::Emulated(pfn) => self.hva(frame).is_some_and(|hva| host.pfn(hva) == pfn),
            Exit::Mmio(gpa) => self.vm().locate(gpa).is_some_and(|(at, _)| at == frame),
            Exit::Error => self.is_gone(host, frame),
            _ => false,
        }
    }

    fn reach(&self, host: &Host, vcpu: u8, root: Gpa, gva: Gva, access: Access) -> Reach {
        let (vm, paging) = (self.vm(), self.vm().paging());
        let mut reach = Reach::default();
        let mut ways: Ways = [0; FRAMES];
        match vm.locate(paging.taken(vm.stolen(), paging.root(root))) {
            Some((frame, _)) => ways[frame] = 1 << Rights::RWX.bits(),
            None => reach.faults[Fault::NotPresent as usize] = true,
        }
        for level in (1..=paging.levels()).rev() {
            let mut below: Ways = [0; FRAMES];
            for frame in (0..FRAMES).filter(|&frame| ways[frame] != 0) {
                let Some((hva, in_flux)) = self.table_page(host, vm.gpa(frame, 0)) else {
                    reach.faults[Fault::NotPresent as usize] = true;
                    continue;
                };
                reach.tables = reach.tables.union(FrameSet::one(frame));
                reach.in_flux |= in_flux;
                let index = gva.index(level);
                for gpte in [host.gpte(hva, index)].into_iter().chain(self.stale_at(vcpu, frame, index)) {
                    self.follow(&mut reach, &mut below, (gpte, level), ways[frame], gva, access);
                }
            }
            ways = below;
        }
        reach
    }

    /// Where one entry, read in a table of a level that was reached in `ways`, leads.
    fn follow(
        &self,
        reach: &mut Reach,
        below: &mut Ways,
        (gpte, level): (Gpte, u8),
        ways: u8,
        gva: Gva,
        access: Access,
    ) {
        let (vm, paging) = (self.vm(), self.vm().paging());
        if !gpte.has(GpteFlags::PRESENT) {
            reach.faults[Fault::NotPresent as usize] = true;
            return;
        }
        if paging.is_reserved(vm.stolen(), vm.maxphyaddr(), gpte, level) {
            reach.faults[Fault::Reserved as usize] = true;
            return;
        }
        let to = paging.taken(vm.stolen(), paging.address(gpte, level));
        let is_leaf = level == 1 || gpte.has(GpteFlags::LARGE);
        for rights in (0..8).filter(|bits| ways >> bits & 1 != 0).map(Rights::from_bits) {
            let rights = rights.intersect(paging.rights(gpte));
            let at = if is_leaf { to.add_pages(gva.offset(paging, level)) } else { to };
            match vm.locate(at) {
                _ if is_leaf && !rights.contains(Rights::needed(access)) => {
                    reach.faults[Fault::Protection as usize] = true;
                }
                Some((frame, alias)) if is_leaf => {
                    let ends = &mut reach.ends[usize::from(!alias.is_none())];
                    *ends = ends.union(FrameSet::one(frame));
                }
                Some((frame, Alias::NONE)) => below[frame] |= 1 << rights.bits(),
                None if is_leaf => reach.outside = true,
                _ => reach.faults[Fault::NotPresent as usize] = true,
            }
        }
    }
}
