//! The tables of `kvm-mmu` as the page tables of a guest: a real page walker and a real TLB judge them.
//!
//! Every name of every frame must lead to the page that the model entitles it to, or nowhere; and once the flushes of an op are
//! done, each as an `INVLPG` or a load of CR3, no name may lead to what was there before. The control leaves out one `INVLPG`.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::limits::FRAMES;
use gpa_model::{Entitled, Flush, FlushBackend, Gpa, Host, Mmu, Model, Pfn, Program, Rights, Spte, Vm};
use hw_runner::Walker;
use hw_runner::walker::ENTRIES;
use kvm_mmu::{Corrected, KvmMmu, Npt, Placement};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::cell::Cell;
use std::collections::BTreeMap;

const PROGRAMS: u64 = 150;
/// An address bit that entries for MMIO set for a processor that does not have it.
const MMIO_BIT: u8 = 51;

/// Everything where the guest has room for it.
#[derive(Default)]
struct InGuest {
    full: Cell<bool>,
}

impl InGuest {
    fn place(&self, address: Option<u64>) -> u64 {
        address.unwrap_or_else(|| {
            self.full.set(true);
            0
        })
    }
}

impl Placement for InGuest {
    fn table(&self, table: u32) -> u64 {
        self.place(Walker::table(table as usize))
    }

    fn page(&self, pfn: Pfn) -> u64 {
        self.place(Walker::page(pfn))
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Names that led to a page, by reads and by writes.
    reached: u64,
    /// Names that led nowhere.
    absent: u64,
    /// Names that led to another page before an op, or to one at all, and were looked at once it was flushed.
    flushed: u64,
    /// Names whose invalidation was left out, and how many of them led to the old page.
    forgotten: u64,
    stale: u64,
    /// Programs that had to be left early, because the guest has no room for more tables or pages.
    unsupported: u64,
}

/// An MMU, and a guest that runs under its tables.
struct Pair {
    walker: Walker,
    mmu: KvmMmu<Corrected, Npt>,
    /// What the guest's memory holds, as far as it was written.
    memory: BTreeMap<u64, [u64; ENTRIES]>,
    /// Whether one invalidation of each op is left out.
    forgetful: bool,
    counts: Counts,
}

impl Pair {
    fn run(&mut self, program: &Program) {
        let vm = &program.vm;
        let (mut model, mut host, mut flush) = (Model::new(vm), Host::new(vm), FlushBackend::default());
        self.mmu.reset(vm);
        let Some(tables) = self.export() else { return self.counts.unsupported += 1 };
        self.memory.extend(tables.iter().copied());
        self.walker.load(&tables).expect("the guest's tables");
        for op in &program.ops {
            if !model.accepts(&host, op) {
                continue;
            }
            let before = self.translations(vm);
            host.apply(op);
            flush.begin_op(vm.backend());
            let exit = self.mmu.step(&host, &mut flush, op);
            model.step(&host, op, &exit);
            let Some(tables) = self.export() else { return self.counts.unsupported += 1 };
            self.store(&tables);
            let after = self.translations(vm);
            let gone = before.iter().zip(&after).filter(|((_, old), (_, new))| old.is_some() && old != new);
            let gone: Vec<_> = gone.map(|(old, new)| (old.0, old.1, new.1)).collect();
            self.flush(vm, flush.log(), &gone);
        }
        self.walker.reload().expect("a load of cr3");
        self.judge_all(&model, &host, vm);
    }

    /// The tables as they are now, if the guest has room for them.
    fn export(&self) -> Option<Vec<(u64, [u64; ENTRIES])>> {
        let (place, mut tables) = (InGuest::default(), Vec::new());
        let maxphyaddr = self.walker.fingerprint().maxphyaddr;
        self.mmu.export(maxphyaddr, &place, |address, table| tables.push((address, *table))).expect("legal tables");
        (!place.full.get()).then_some(tables)
    }

    /// Every name of every frame, and where it leads by software.
    fn translations(&self, vm: &Vm) -> Vec<(Gpa, Option<Spte>)> {
        let names = (0..vm.stolen().alias_count()).flat_map(|alias| (0..FRAMES).map(move |frame| (frame, alias)));
        names.map(|(frame, alias)| vm.gpa(frame, alias)).map(|gpa| (gpa, self.mmu.walk(gpa))).collect()
    }

    /// Have the guest store what differs from its memory.
    fn store(&mut self, tables: &[(u64, [u64; ENTRIES])]) {
        let mut stores = Vec::new();
        for (address, table) in tables {
            let known = self.memory.entry(*address).or_insert([0; ENTRIES]);
            let differs = (0..ENTRIES).filter(|&index| known[index] != table[index]);
            stores.extend(differs.map(|index| (address + (index * size_of::<u64>()) as u64, table[index])));
            *known = *table;
        }
        self.walker.store(&stores).expect("stores");
    }

    /// Carry out the flushes of an op, and look at the names that lead elsewhere since: each with what it was and what it is.
    fn flush(&mut self, vm: &Vm, log: &[Flush], gone: &[(Gpa, Option<Spte>, Option<Spte>)]) {
        let forgotten = gone.last().filter(|_| self.forgetful);
        for flush in log {
            let names = self.translations(vm).into_iter().map(|(gpa, _)| gpa);
            let names: Vec<u64> = match *flush {
                Flush::All { .. } if forgotten.is_none() => {
                    self.walker.reload().expect("a load of cr3");
                    continue;
                }
                Flush::Range { ok: false, .. } => continue,
                Flush::All { .. } => names.map(Gpa::raw).collect(),
                Flush::Range { gpa, pages, .. } => {
                    let within = |name: &Gpa| name.page().checked_sub(gpa.page()).is_some_and(|at| at < pages);
                    names.filter(within).map(Gpa::raw).collect()
                }
            };
            let names: Vec<u64> =
                names.into_iter().filter(|name| forgotten.is_none_or(|(gpa, ..)| gpa.raw() != *name)).collect();
            self.walker.invalidate(&names).expect("invlpg");
        }
        let addresses: Vec<u64> = gone.iter().map(|(gpa, ..)| gpa.raw()).collect();
        let found = self.walker.read(&addresses).expect("reads");
        for ((gpa, old, new), found) in gone.iter().zip(found) {
            if forgotten.is_some_and(|(forgotten, ..)| forgotten == gpa) {
                self.counts.forgotten += 1;
                self.counts.stale += u64::from(found != page(*new) && found == page(*old));
            } else {
                assert_eq!(found, page(*new), "{gpa:?} was {old:?}");
                self.counts.flushed += 1;
            }
        }
        if forgotten.is_some() {
            self.walker.reload().expect("a load of cr3");
        }
        self.warm(vm);
    }

    /// Have every name cached that leads to a page, so that the next op finds all that a TLB could hold.
    fn warm(&mut self, vm: &Vm) {
        let present = self.translations(vm).into_iter().filter_map(|(gpa, spte)| Some((gpa.raw(), page(spte)?)));
        let (addresses, pages): (Vec<u64>, Vec<Pfn>) = present.unzip();
        let found = self.walker.read(&addresses).expect("reads");
        assert!(found.iter().copied().eq(pages.into_iter().map(Some)), "{addresses:x?} lead to {found:?}");
    }

    /// Look at every name.
    fn judge_all(&mut self, model: &Model, host: &Host, vm: &Vm) {
        let translations = self.translations(vm);
        let addresses: Vec<u64> = translations.iter().map(|(gpa, _)| gpa.raw()).collect();
        let found = self.walker.read(&addresses).expect("reads");
        for ((gpa, spte), found) in translations.into_iter().zip(found) {
            assert_eq!(found, page(spte), "{gpa:?}");
            let Some(spte) = spte.filter(|_| found.is_some()) else {
                self.counts.absent += 1;
                continue;
            };
            let (frame, alias) = vm.locate(gpa).expect("a name");
            let Entitled::Memory(pfn, _) = model.entitled(host, frame, alias) else {
                panic!("{gpa:?} leads to {found:?}, and is entitled to nothing")
            };
            let writable = spte.rights().contains(Rights::W);
            let written = self.walker.write(gpa.raw()).expect("a write");
            assert_eq!((found, written), (Some(pfn), writable.then_some(pfn)), "{gpa:?}");
            self.counts.reached += 1;
        }
    }
}

fn page(spte: Option<Spte>) -> Option<Pfn> {
    spte.map(Spte::pfn)
}

/// Programs whose GPAs are canonical linear addresses, under a guest that invalidates everything or forgets one name.
fn campaign(forgetful: bool) -> Option<(Walker, Counts)> {
    let walker = match Walker::open() {
        Ok(walker) if walker.fingerprint().maxphyaddr <= MMIO_BIT => walker,
        Ok(_) => {
            println!("SKIPPED: this processor has every address bit, so entries for MMIO do not fault");
            return None;
        }
        Err(error) if error.is_absence() => {
            println!("SKIPPED: {error}");
            return None;
        }
        Err(error) => panic!("/dev/kvm is there, but: {error}"),
    };
    let profile = Profile { stolen_high: 46, strides: false, ..Profile::default() };
    let (generator, mut program) = (Generator::new(profile), Program::default());
    let (mmu, memory) = (KvmMmu::new(&Vm::default()), BTreeMap::new());
    let mut pair = Pair { walker, mmu, memory, forgetful, counts: Counts::default() };
    let before = pair.walker.witness();
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    for _ in 0..PROGRAMS {
        generator.program(&mut choices, &mut program);
        pair.run(&program);
    }
    let after = pair.walker.witness();
    println!("{PROGRAMS} programs: {:?}; {}", pair.counts, after.show_since(&before));
    // Where the guest is emulated as a whole, no page is mapped for it and none of this went through an MMU.
    assert!(after.get("pf_fixed").is_none_or(|fixed| Some(fixed) > before.get("pf_fixed")), "no page was ever mapped");
    Some((pair.walker, pair.counts))
}

#[test]
fn every_name_leads_where_the_model_says_and_flushes_leave_nothing() {
    let Some((_, counts)) = campaign(false) else { return };
    let Counts { reached, absent, flushed, forgotten, stale, unsupported } = counts;
    assert!(reached > 100 && absent > 1_000 && flushed > 100, "too few to tell: {reached}, {absent}, {flushed}");
    assert!(forgotten == 0 && stale == 0 && unsupported < PROGRAMS / 2);
}

/// The control. A TLB may forget whatever it likes, a shadow of the tables does not.
#[test]
fn a_name_that_is_not_invalidated_may_lead_to_the_old_page() {
    let Some((walker, counts)) = campaign(true) else { return };
    assert!(counts.forgotten > 20, "{counts:?}");
    assert!(counts.stale > 0 || walker.fingerprint().paging != "shadow", "{counts:?}");
}
