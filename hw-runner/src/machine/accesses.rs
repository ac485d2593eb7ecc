//! Guest accesses. Consecutive accesses of one vCPU, between two actions of the host, make one list, which costs at most one exit.
//!
//! Entering and leaving a guest dominates the time of a program. Each vCPU keeps its own order. The lists of several vCPUs run
//! in the order of their first accesses; any order is right, because no access changes what another one is entitled to find.

use super::Machine;
use crate::error::MachineError;
use crate::guest::names::{self, Entry};
use crate::guest::page;
use crate::guest::requests::Request;
use crate::guest::vcpu::Outcome;
use crate::kvm::address_space::AddressSpace;
use crate::kvm::alias_method::AliasMethod;
use crate::kvm::ioeventfd::Signalled;
use gpa_model::limits::{HOST_PAGES, VCPUS};
use gpa_model::{Access, Exit, Fault, Gpa, Pfn, VmConfig};

/// The accesses that have not run yet.
#[derive(Debug, Default)]
pub(super) struct Batches {
    of: [Batch; VCPUS],
    /// The vCPUs with such accesses, in the order of their turns.
    turns: Vec<u8>,
}

/// The accesses of one vCPU.
#[derive(Debug, Default)]
struct Batch {
    space: AddressSpace,
    requests: Vec<Request>,
    /// The op number of each request.
    ops: Vec<usize>,
    /// The frame of each request.
    frames: Vec<usize>,
    outcomes: Vec<Outcome>,
    /// If the last request is a write that may signal an ioeventfd: the address that must signal, and one that
    /// must not.
    ioeventfds: Option<[Gpa; 2]>,
}

impl Batches {
    /// Drops all of them.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        self.of.iter_mut().for_each(Batch::clear);
    }
}

impl Batch {
    fn clear(&mut self) {
        self.requests.clear();
        self.ops.clear();
        self.frames.clear();
        self.ioeventfds = None;
    }
}

/// One access, as the guest makes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) frame: usize,
    pub(super) space: AddressSpace,
}

impl Machine {
    /// The guest access of op number `at`; `None` if the VM has no such address.
    pub(super) fn ask(&mut self, vm: &VmConfig, at: usize, gpa: Gpa, access: Access) -> Option<Asked> {
        let (frame, alias) = vm.locate(gpa)?;
        let alias = vm.stolen().alias_index(alias);
        self.values += 1;
        // Each write has a value of its own, so that a word of an earlier program cannot pass for it. Each op
        // has a word of its own in each page, so that no write hides another.
        let word = if self.fingerprint.alias_method == AliasMethod::Ioeventfds { 0 } else { at };
        let entry = Entry::of(self.fingerprint.alias_method, alias, access);
        let page = names::name_by(entry, vm, self.window, alias, frame);
        let offset = page::word_offset(word);
        let request = Request { access, page, offset, value: self.values };
        Some(Asked { request, frame, space: self.fingerprint.alias_method.address_space(alias) })
    }

    /// Adds op number `at` to the list of `vcpu`.
    pub(super) fn enqueue(
        &mut self,
        vm: &VmConfig,
        at: usize,
        vcpu: u8,
        gpa: Gpa,
        access: Access,
        observations: &mut [Option<Exit>],
    ) -> Result<(), MachineError> {
        let Some(Asked { request, frame, space }) = self.ask(vm, at, gpa, access) else { return Ok(()) };
        if self.batches.of[usize::from(vcpu)].space != space {
            self.run_batch(vm, vcpu, observations)?;
        }
        let batch = &mut self.batches.of[usize::from(vcpu)];
        if batch.requests.is_empty() {
            self.batches.turns.push(vcpu);
        }
        batch.space = space;
        batch.requests.push(request);
        batch.ops.push(at);
        batch.frames.push(frame);
        // While a memslot change is open an access may be retried for ever, and debugfs is read after each
        // access: both run alone.
        let mut alone = self.open_change.is_some() || self.mmu_watch.is_watching();
        if access == Access::Write && self.fingerprint.alias_method == AliasMethod::Ioeventfds {
            // All such writes share one word, so each ends its list.
            batch.ioeventfds = Some(ioeventfd_gpas(vm, gpa, request.offset));
            alone = true;
        }
        if alone { self.run_batches(vm, observations) } else { Ok(()) }
    }

    /// Runs all lists, and records what the guest found.
    pub(super) fn run_batches(&mut self, vm: &VmConfig, observations: &mut [Option<Exit>]) -> Result<(), MachineError> {
        for turn in 0..self.batches.turns.len() {
            self.run_batch(vm, self.batches.turns[turn], observations)?;
        }
        self.batches.turns.clear();
        Ok(())
    }

    fn run_batch(&mut self, vm: &VmConfig, number: u8, observations: &mut [Option<Exit>]) -> Result<(), MachineError> {
        let number = usize::from(number);
        if self.batches.of[number].requests.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batches.of[number]);
        if let Some(gpas) = batch.ioeventfds {
            self.ioeventfds.assign(&self.fd, gpas)?;
        }
        let vcpu = &mut self.vcpus[number];
        let result = vcpu.use_tables(self.tables_written).and_then(|()| {
            vcpu.enter_space(batch.space)?;
            self.accesses += batch.requests.len() as u64;
            vcpu.run(&self.own, &self.watchdog, &batch.requests, self.open_change.is_some(), &mut batch.outcomes)
        });
        if result.is_ok() {
            for (n, &outcome) in batch.outcomes.iter().enumerate() {
                observations[batch.ops[n]] = Some(self.observed(vm, &batch.requests[n], batch.frames[n], outcome));
            }
            self.heed_ioeventfds(vm, number, &batch, observations)?;
        }
        let watched = batch.ops.last().copied();
        batch.clear();
        self.batches.of[number] = batch;
        result?;
        watched.map_or(Ok(()), |at| self.look(vm, at))
    }

    /// Takes the ioeventfds into account. A write that signalled its own one counts as an exit to user space.
    /// An exit despite an ioeventfd, or a signal of another one, is an error.
    fn heed_ioeventfds(
        &mut self,
        vm: &VmConfig,
        vcpu: usize,
        batch: &Batch,
        observations: &mut [Option<Exit>],
    ) -> Result<(), MachineError> {
        let Some([name, _]) = batch.ioeventfds else { return Ok(()) };
        let signalled = self.ioeventfds.signalled(name)?;
        let (Some(&at), Some(&frame)) = (batch.ops.last(), batch.frames.last()) else { return Ok(()) };
        match (signalled, observations[at]) {
            // The guest could read the page right after, so the memslot is read-only, or nothing should have
            // signalled.
            (Signalled::Own, _) if self.memslots.host_page(vm, frame).is_some() => {
                observations[at] = Some(Exit::Mmio(Gpa::from_page(name.page())));
            }
            (Signalled::Nothing, Some(Exit::Mmio(_))) | (Signalled::Wrong, _) => observations[at] = Some(Exit::Error),
            _ => {}
        }
        // KVM emulates such a write, as it does one that exits.
        self.vcpus[vcpu].count_exits(u64::from(signalled != Signalled::Nothing));
        Ok(())
    }

    pub(super) fn observed(&self, vm: &VmConfig, request: &Request, frame: usize, outcome: Outcome) -> Exit {
        match outcome {
            Outcome::Found(pfn) if request.access == Access::Write => self.written(vm, request, frame, pfn),
            Outcome::Found(pfn) => Exit::Memory(pfn),
            Outcome::Exited(gpa) => {
                let page = Gpa::from_page(gpa.page());
                // A trace cannot name an address that no program uses. It is wrong in any case.
                if vm.locate(page).is_some() { Exit::Mmio(page) } else { Exit::Error }
            }
            Outcome::GuestFault => Exit::GuestFault(Fault::NotPresent),
            Outcome::MemoryFault { private } if private != self.memslots.is_private_frame(vm, frame) => {
                Exit::MemoryFault
            }
            Outcome::Failed | Outcome::MemoryFault { .. } => Exit::Error,
            Outcome::Retried => Exit::Retry,
            Outcome::RingFull => Exit::RingFull,
        }
    }

    /// Where a write went: the host looks for its value in the page that it belongs to, then in all others.
    /// `found` is the identity that the guest read right after through the same address.
    fn written(&self, vm: &VmConfig, request: &Request, frame: usize, found: Pfn) -> Exit {
        let holds =
            |page: usize| !self.memory.is_gone(page) && self.memory.read_u64(page, request.offset) == request.value;
        if self.memslots.is_private_frame(vm, frame) {
            // The host cannot read a private page, but the value must not be in any page of the host.
            return if (0..HOST_PAGES).any(holds) { Exit::Error } else { Exit::Memory(found) };
        }
        if let Some(holds) = self.internal_page_holds(vm, frame, request.offset, request.value) {
            return if holds { Exit::Memory(found) } else { Exit::Error };
        }
        match self.memslots.host_page(vm, frame) {
            Some(page) if holds(page) => Exit::Memory(found),
            belongs => match (0..HOST_PAGES).find(|&page| holds(page)) {
                Some(page) => Exit::Memory(self.stamps[page]),
                // The write is lost. If the guest read another page, report that page.
                None if belongs.is_none_or(|page| self.stamps[page] != found) => Exit::Memory(found),
                None => Exit::Error,
            },
        }
    }
}

/// The address of the word at `offset` of the page at `gpa`, and the same word under the next alias.
fn ioeventfd_gpas(vm: &VmConfig, gpa: Gpa, offset: usize) -> [Gpa; 2] {
    let stolen = vm.stolen();
    let (gfn, alias) = stolen.split(gpa);
    let next = (stolen.alias_index(alias) + 1) % stolen.alias_count();
    [gpa, stolen.join(gfn, stolen.alias(next))].map(|page| Gpa::new(page.raw() + offset as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::or_skip;
    use crate::guest::layout;

    /// A write to a hole signals the ioeventfd of its name and no other. A write to memory signals none. A
    /// wrong signal is noticed.
    #[test]
    fn an_ioeventfd_rings_for_one_name() {
        use crate::kvm::ioeventfd::{IoeventfdSet, require};
        let Some(mut machine) = or_skip(Machine::open()) else { return };
        if let Err(error) = require(&machine.fd) {
            return println!("SKIPPED: {error}");
        }
        let head = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n";
        let text = format!("{head}slot 0 create gfn=0x1e0 pages=1 hva=0\nv0 write 0x1e0@1\nv0 write 0x1e4@1\n");
        let program = gpa_model::text::parse(&text).expect("a program");
        let word = |op, frame, alias| Gpa::new(program.vm.gpa(frame, alias).raw() + page::word_offset(op) as u64);
        let mut signalled = |op, frame, expected| {
            let mut ioeventfds = IoeventfdSet::default();
            ioeventfds.assign(&machine.fd, [word(op, frame, 0), word(op, frame, 1)]).expect("eventfds");
            machine.run(&program).expect("a run");
            let signalled = ioeventfds.signalled(word(op, frame, expected)).expect("what rang");
            ioeventfds.deassign_all(&machine.fd).expect("none left");
            signalled
        };
        assert_eq!(signalled(2, 4, 1), Signalled::Own);
        assert_eq!(signalled(2, 4, 0), Signalled::Wrong);
        assert_eq!(signalled(1, 0, 1), Signalled::Nothing);
    }

    /// With guest-ptes, entries of each kind lead to their frame, and a read-only entry forbids writes.
    #[test]
    fn entries_of_every_kind_lead_to_their_frame_and_grant_what_they_say() {
        let Some(mut machine) = or_skip(Machine::open_with(AliasMethod::GuestPtes)) else { return };
        let text =
            "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\nslot 0 create gfn=0x1e0 pages=64 hva=0\n";
        let program = gpa_model::text::parse(text).expect("a program");
        machine.carry_out(&program, &mut [None]).expect("a run");
        // On both sides of gfn 0x200, where a leaf of 2 MiB ends.
        for frame in [0, 31, 32, 63] {
            let page = Outcome::Found(Pfn::new(frame as u32 + 1));
            for (entry, alias) in [(Entry::Small, 0), (Entry::Readonly, 0), (Entry::Large, 1), (Entry::Small, 1)] {
                let address = names::name_by(entry, &program.vm, machine.window, alias, frame);
                let request = |access| Request { access, page: address, offset: page::word_offset(0), value: 7 };
                let requests = [Access::Read, Access::Execute, Access::Write].map(request);
                let mut outcomes = Vec::new();
                let Machine { vcpus, own, watchdog, .. } = &mut machine;
                vcpus[0].run(own, watchdog, &requests, false, &mut outcomes).expect("a list");
                let written = if entry == Entry::Readonly { Outcome::GuestFault } else { page };
                assert_eq!(outcomes, [page, page, written], "{entry:?} of alias {alias} of frame {frame}");
            }
        }
    }

    /// KVM completes a last access that exited with the next list. So such a list costs one exit, not two,
    /// however many follow, and its leftovers are not taken for results of the next list.
    #[test]
    fn a_last_access_that_comes_out_is_completed_with_the_next_list() {
        let Some(mut machine) = or_skip(Machine::open()) else { return };
        let text =
            "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\nslot 0 create gfn=0x1e0 pages=1 hva=0\n";
        let program = gpa_model::text::parse(text).expect("a program");
        machine.carry_out(&program, &mut [None]).expect("a run");
        let offset = page::word_offset(0);
        let request = |access, frame| {
            let page = names::name_by(Entry::Small, &program.vm, machine.window, 1, frame);
            Request { access, page, offset, value: 7 }
        };
        let exited = |offset| Outcome::Exited(Gpa::new(program.vm.gpa(1, 1).raw() + offset as u64));
        let (page, outside, fetch) = (request(Access::Read, 0), request(Access::Write, 1), request(Access::Execute, 1));
        let Machine { vcpus, own, watchdog, .. } = &mut machine;
        let (before, mut outcomes) = (vcpus[0].exits(), Vec::new());
        for _ in 0..layout::REQUESTS {
            for list in [&[outside][..], &[page, outside]] {
                vcpus[0].run(own, watchdog, list, false, &mut outcomes).expect("a list");
                assert_eq!(outcomes.last(), Some(&exited(offset)));
                assert!(outcomes.len() == 1 || outcomes[0] == Outcome::Found(Pfn::new(1)), "{outcomes:?}");
            }
        }
        assert_eq!(vcpus[0].exits() - before, 2 * layout::REQUESTS as u64);
        // A vCPU whose guest died is entered once more, which gives it a root again.
        let before = vcpus[0].exits();
        vcpus[0].run(own, watchdog, &[fetch], false, &mut outcomes).expect("a list");
        assert!(matches!(outcomes[..], [Outcome::GuestFault | Outcome::Failed]), "{outcomes:?}");
        assert_eq!(vcpus[0].exits() - before, 2);
    }
}
