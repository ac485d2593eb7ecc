//! A guest that runs under the page tables of an MMU: what a real page walker finds in them, and what a real TLB keeps.
//!
//! The MMU's tables, in long-mode format, become the guest's, so that each GPA that they translate is a linear address of the
//! guest. The guest changes entries itself, by stores at CPL 3, and invalidates the TLB by `INVLPG`, or by a load of CR3, at
//! CPL 0. This module does not depend on a particular MMU.
//!
//! ```text
//! WALKED_GFN  the tables     PAGE_GFN  the pages they lead to; the identity of each is its number
//! ```
//!
//! On shadow paging, accesses use KVM's shadow of the tables as well as the TLB. `INVLPG` and loads of CR3 bring both up to
//! date; before that neither need be.

use super::requests::{self, Request};
use super::vcpu::{Outcome, Vcpu};
use super::{assembly, layout, names, page, tables};
use crate::error::{Doing, MachineError};
use crate::host::memory::{HUGE_PAGES, PAGE_BYTES, Pages};
use crate::host::watchdog::Watchdog;
use crate::kvm::fingerprint::{self, Fingerprint};
use crate::kvm::ioctl::{Region, delete_region, set_region};
use crate::kvm::stats::Stats;
use crate::kvm::witness::Witness;
use gpa_model::limits::OPS;
use gpa_model::{Access, Gpa, Pfn};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs};
use kvm_ioctls::VmFd;

/// Entries of a table.
pub const ENTRIES: usize = PAGE_BYTES / size_of::<u64>();
/// How many tables there can be.
pub const TABLES: usize = 512;
/// How many pages there can be.
pub const PAGES: usize = 512;

const WALKED_GFN: u64 = layout::TABLE_GFN + HUGE_PAGES as u64;
const PAGE_GFN: u64 = WALKED_GFN + TABLES as u64;
const _: () = assert!(TABLES <= ENTRIES);

const OWN_SLOT: u32 = 0;
const TABLE_SLOT: u32 = 1;
const WALKED_SLOT: u32 = 2;
const PAGE_SLOT: u32 = 3;

/// The window in which the guest maps the tables.
const WINDOW: usize = 0;
const CODE_PAGE: usize = layout::SPIN_PAGE;
const LIST_PAGE: usize = layout::SPIN_PAGE + 1;
/// Addresses in one list; a 0 ends it.
const LIST: usize = ENTRIES - 1;
/// The offset in a page of writes.
const WORD: usize = PAGE_BYTES / 2;

/// The VM. It must stay on the thread that opened it.
#[derive(Debug)]
pub struct Walker {
    // Declared, and so dropped, before the memory it uses.
    vcpu: Vcpu,
    stats: Option<Stats>,
    fd: VmFd,
    own: Pages,
    #[expect(dead_code, reason = "the guest's tables for its own addresses, held for as long as it runs")]
    tables: Pages,
    walked: Pages,
    pages: Pages,
    watchdog: Watchdog,
    fingerprint: Fingerprint,
    accesses: u64,
    /// The value of the last write.
    value: u64,
}

impl Walker {
    /// The address of table number `n`; `None` if there is no room.
    pub fn table(n: usize) -> Option<u64> {
        (n < TABLES).then(|| Gpa::from_page(WALKED_GFN + n as u64).raw())
    }

    /// The address of the page whose identity is `pfn`; `None` if there is no room.
    pub fn page(pfn: Pfn) -> Option<u64> {
        ((pfn.raw() as usize) < PAGES).then(|| Gpa::from_page(PAGE_GFN + u64::from(pfn.raw())).raw())
    }

    /// Opens `/dev/kvm` and creates the VM.
    ///
    /// # Errors
    /// A [`MachineError`] if there is no usable KVM.
    pub fn open() -> Result<Self, MachineError> {
        let kvm = crate::kvm::ioctl::open()?;
        let fd = crate::kvm::ioctl::create_vm(&kvm, 0)?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).doing("get the supported CPUID")?;
        let fingerprint = fingerprint::read(&fd, &cpuid)?;
        let doing = "map memory for the guest";
        let (own, tables) = (Pages::huge().doing(doing)?, Pages::huge().doing(doing)?);
        let (walked, pages) = (Pages::new(TABLES).doing(doing)?, Pages::new(PAGES).doing(doing)?);
        requests::load_code(&own);
        requests::write_code(&own, CODE_PAGE, assembly::privileged());
        tables::write_tables(&tables);
        names::write_window_over(&tables, WINDOW, WALKED_GFN);
        for page in 0..PAGES {
            page::stamp(&pages, page, Pfn::new(page as u32));
        }
        let slots = [
            (OWN_SLOT, layout::OWN_GFN, &own),
            (TABLE_SLOT, layout::TABLE_GFN, &tables),
            (WALKED_SLOT, WALKED_GFN, &walked),
            (PAGE_SLOT, PAGE_GFN, &pages),
        ];
        slots.into_iter().try_for_each(|(slot, gfn, memory)| map_whole(&fd, slot, gfn, memory))?;
        let vcpu = Vcpu::new(&fd, &cpuid, 0)?;
        let stats = crate::kvm::ioctl::stats_file(&fd).and_then(Stats::new).ok();
        let watchdog = Watchdog::new().doing("set up the watchdog")?;
        Ok(Self { vcpu, stats, fd, own, tables, walked, pages, watchdog, fingerprint, accesses: 0, value: 0 })
    }

    /// Which KVM this is. [`Walker::witness`] shows whether it runs guests natively.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// KVM's counters now.
    pub fn witness(&self) -> Witness {
        let files: Vec<&Stats> = self.stats.iter().chain(self.vcpu.stats()).collect();
        Witness::read(self.accesses, self.vcpu.exits(), &files)
    }

    /// Uses these tables, each with its address, from now on; the first is the root. Nothing that was cached before stays.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails.
    ///
    /// # Panics
    /// If an address is not one of [`Walker::table`].
    pub fn load(&mut self, tables: &[(u64, [u64; ENTRIES])]) -> Result<(), MachineError> {
        // KVM does not notice writes of user space. Deleting the memslot of the tables zaps their shadow.
        delete_region(&self.fd, WALKED_SLOT).doing("delete the memslot of the tables")?;
        for (address, table) in tables {
            let page = table_number(*address);
            for (index, &entry) in table.iter().enumerate() {
                self.walked.write_u64(page, index * size_of::<u64>(), entry);
            }
        }
        let Some(&(root, _)) = tables.first() else { return Ok(()) };
        let own = layout::OWN_ROOT_ENTRY * size_of::<u64>();
        self.walked.write_u64(table_number(root), own, tables::own_root_entry());
        map_whole(&self.fd, WALKED_SLOT, WALKED_GFN, &self.walked)?;
        self.vcpu.walk_from(Gpa::new(root))?;
        self.reload()
    }

    /// Lets the guest store entries, each at its address, in this order. Does not invalidate anything.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails, or the guest cannot store.
    ///
    /// # Panics
    /// If an address is not in a table.
    pub fn store(&mut self, entries: &[(u64, u64)]) -> Result<(), MachineError> {
        let request = |&(address, value): &(u64, u64)| {
            let gpa = Gpa::new(address);
            let page = names::window_address(WINDOW, table_number(address));
            let offset = (gpa.raw() - Gpa::from_page(gpa.page()).raw()) as usize;
            Request { access: Access::Write, page, offset, value }
        };
        let requests: Vec<Request> = entries.iter().map(request).collect();
        for outcome in self.run(&requests)? {
            if !matches!(outcome, Outcome::Found(_)) {
                return Err(MachineError::Exit(format!("{outcome:?} where it stores an entry")));
            }
        }
        Ok(())
    }

    /// `INVLPG` of each address.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails.
    pub fn invalidate(&mut self, addresses: &[u64]) -> Result<(), MachineError> {
        for list in addresses.chunks(LIST) {
            for (n, address) in list.iter().chain([&0]).enumerate() {
                self.own.write_u64(LIST_PAGE, n * size_of::<u64>(), *address);
            }
            self.privileged(0)?;
        }
        Ok(())
    }

    /// Loads CR3 with its current value.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails.
    pub fn reload(&mut self) -> Result<(), MachineError> {
        self.privileged(assembly::reload())
    }

    /// The page that a read of each address finds; `None` if it faults.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails.
    pub fn read(&mut self, addresses: &[u64]) -> Result<Vec<Option<Pfn>>, MachineError> {
        let request = |&page: &u64| Request { access: Access::Read, page, offset: 0, value: 0 };
        let requests: Vec<Request> = addresses.iter().map(request).collect();
        let page = |outcome| if let Outcome::Found(pfn) = outcome { Some(pfn) } else { None };
        Ok(self.run(&requests)?.into_iter().map(page).collect())
    }

    /// The page that a write to `address` reaches; `None` if it faults.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails.
    pub fn write(&mut self, address: u64) -> Result<Option<Pfn>, MachineError> {
        self.value += 1;
        let request = Request { access: Access::Write, page: address, offset: WORD, value: self.value };
        self.run(&[request])?;
        let reached = (0..PAGES).find(|&page| self.pages.read_u64(page, WORD) == self.value);
        Ok(reached.map(|page| Pfn::new(page as u32)))
    }

    fn run(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, MachineError> {
        let (mut all, mut some) = (Vec::with_capacity(requests.len()), Vec::new());
        for list in requests.chunks(OPS) {
            self.watchdog.arm().doing("arm the watchdog")?;
            self.accesses += list.len() as u64;
            let result = self.vcpu.run(&self.own, &self.watchdog, list, false, &mut some);
            self.watchdog.disarm();
            result?;
            all.append(&mut some);
        }
        Ok(all)
    }

    fn privileged(&mut self, at: u64) -> Result<(), MachineError> {
        let own = layout::own_address;
        let registers =
            kvm_regs { rip: own(CODE_PAGE) + at, rsi: own(LIST_PAGE), ..requests::registers(self.vcpu.number(), 0) };
        self.watchdog.arm().doing("arm the watchdog")?;
        let result = self.vcpu.run_privileged(&registers, &self.watchdog);
        self.watchdog.disarm();
        result
    }
}

/// The number of the table at `address`.
fn table_number(address: u64) -> usize {
    let table = Gpa::new(address).page().wrapping_sub(WALKED_GFN) as usize;
    assert!(table < TABLES, "{address:#x} is in no table");
    table
}

fn map_whole(fd: &VmFd, slot: u32, gfn: u64, memory: &Pages) -> Result<(), MachineError> {
    let region = Region { slot, flags: 0, gpa: Gpa::from_page(gfn), mapping: 0, page: 0, pages: memory.len() };
    set_region(fd, memory, region).doing("set a memslot of the guest's own")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::or_skip;

    fn walker() -> Option<Walker> {
        or_skip(Walker::open())
    }

    /// Present, writable, user.
    const LINK: u64 = 7;
    /// A linear address and its alias, made by bit 40: two root entries, so two leaf tables.
    const NAMES: [u64; 2] = [0x1e_1000, 0x100_001e_1000];
    /// Their entry in the leaf tables.
    const INDEX: usize = 0x1e1;

    fn table(n: usize) -> u64 {
        Walker::table(n).expect("room")
    }

    fn leaf(pfn: u32) -> u64 {
        Walker::page(Pfn::new(pfn)).expect("room") | LINK
    }

    /// The root, and three tables for each name; both names lead to page `pfn`.
    fn tables(pfn: u32) -> Vec<(u64, [u64; ENTRIES])> {
        let empty = [0; ENTRIES];
        let mut tables: Vec<_> = (0..7).map(|n| (table(n), empty)).collect();
        for (name, first) in [(0, 1), (2, 4)] {
            tables[0].1[name] = table(first) | LINK;
            tables[first].1[0] = table(first + 1) | LINK;
            tables[first + 1].1[0] = table(first + 2) | LINK;
            tables[first + 2].1[INDEX] = leaf(pfn);
        }
        tables
    }

    /// Stores `entry` as the leaf of both names.
    fn replace(walker: &mut Walker, entry: u64) {
        let at = |n: usize| table(n) + (INDEX * size_of::<u64>()) as u64;
        walker.store(&[(at(3), entry), (at(6), entry)]).expect("stores");
    }

    const ATTEMPTS: u32 = 20;

    fn pages(pfns: [u32; 2]) -> Vec<Option<Pfn>> {
        pfns.map(|pfn| Some(Pfn::new(pfn))).to_vec()
    }

    #[test]
    fn what_is_invalidated_under_each_name_is_gone() {
        let Some(mut walker) = walker() else { return };
        walker.load(&tables(5)).expect("tables");
        assert_eq!(walker.read(&NAMES).expect("reads"), pages([5, 5]));
        replace(&mut walker, leaf(6));
        walker.invalidate(&NAMES).expect("invlpg");
        assert_eq!(walker.read(&NAMES).expect("reads"), pages([6, 6]));
        replace(&mut walker, 0);
        walker.reload().expect("a load of cr3");
        assert_eq!(walker.read(&NAMES).expect("reads"), [None, None]);
    }

    #[test]
    fn entries_grant_what_the_manuals_say() {
        let Some(mut walker) = walker() else { return };
        const WRITABLE: u64 = 2;
        walker.load(&tables(5)).expect("tables");
        replace(&mut walker, leaf(7) & !WRITABLE);
        walker.invalidate(&NAMES).expect("invlpg");
        assert_eq!(walker.read(&NAMES).expect("reads"), pages([7, 7]));
        assert_eq!(walker.write(NAMES[1]).expect("a write"), None);
        replace(&mut walker, leaf(8));
        walker.invalidate(&NAMES).expect("invlpg");
        assert_eq!(walker.write(NAMES[1]).expect("a write"), Some(Pfn::new(8)));
        // An address bit above the processor's MAXPHYADDR is reserved.
        replace(&mut walker, leaf(9) | 1 << 51);
        walker.invalidate(&NAMES).expect("invlpg");
        assert_eq!(walker.read(&NAMES).expect("reads"), [None, None]);
    }

    /// The control: without an `INVLPG` of its own the second name still leads to the old page. A TLB may
    /// forget at any time; a shadow of the tables does not by itself.
    #[test]
    fn what_is_invalidated_under_one_name_is_stale_under_the_other() {
        let Some(mut walker) = walker() else { return };
        let mut stale = 0;
        for _ in 0..ATTEMPTS {
            walker.load(&tables(5)).expect("tables");
            walker.read(&NAMES).expect("reads");
            replace(&mut walker, leaf(6));
            walker.invalidate(&NAMES[..1]).expect("invlpg");
            let found = walker.read(&NAMES).expect("reads");
            assert_eq!(found[0], Some(Pfn::new(6)));
            stale += u32::from(found[1] == Some(Pfn::new(5)));
        }
        println!("stale in {stale} of {ATTEMPTS}");
        assert!(stale > 0 || walker.fingerprint().paging != "shadow");
    }
}
