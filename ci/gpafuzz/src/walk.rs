//! The tables of `kvm-mmu` as the page tables of a guest: a real page walker and a real TLB judge them.
//!
//! Every name of every frame must lead to the page that the model entitles it to, or nowhere; and once the flushes of an op are
//! done, each as an `INVLPG` or a load of CR3, no name may lead to what was there before. The control leaves out one `INVLPG` of
//! each op: a TLB may forget what it likes, so old pages need not show, but where the processor's tables are shadowed they do.

use gpa_model::generate::Profile;
use gpa_model::limits::FRAMES;
use gpa_model::{Entitled, Flush, FlushBackend, Gpa, Host, Mmu, Model, Pfn, Program, Rights, Spte, VmConfig};
use hw_runner::walker::ENTRIES;
use hw_runner::{MachineError, Walker};
use kvm_mmu::{Corrected, KvmMmu, Npt, Placement};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Programs.
    pub programs: u64,
    /// Those that had to be left early, because the guest has no room for more tables or pages.
    pub cut_short: u64,
    /// Names that led to the page they are entitled to, by a read and a write.
    pub entitled: u64,
    /// Names that led nowhere, as they must.
    pub foreign: u64,
    /// Names that led to another page before an op, or to one at all, and were looked at once it was flushed: none was stale.
    pub flushed: u64,
    /// Names whose `INVLPG` was left out on purpose.
    pub forgotten: u64,
    /// Those of them that went on leading to the old page.
    pub stale: u64,
}

/// What the walker found where the tables or the model say something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// After which op, counted from 1; 0 for the end of the program.
    pub op: usize,
    /// The name; none, if the tables themselves are illegal.
    pub gpa: Option<Gpa>,
    /// Where it led, and where it should have.
    pub why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.op {
            0 => write!(f, "at the end")?,
            op => write!(f, "after op {op}")?,
        }
        self.gpa.map_or(Ok(()), |gpa| write!(f, ", {gpa:?}"))?;
        write!(f, ": {}", self.why)
    }
}

/// What programs can be walked: their GPAs must be canonical linear addresses, and the guest loads its root once.
pub fn profile() -> Profile {
    Profile { stolen_high: 46, stride_max: 1, slot_zap_all: 0, ..Profile::default() }
}

/// The bit that entries for MMIO set, so that the processor takes them for reserved. It must not have it.
pub const MMIO_BIT: u8 = 51;

/// An MMU, and a guest that runs under its tables.
#[derive(Debug)]
pub struct Walk {
    walker: Walker,
    mmu: KvmMmu<Corrected, Npt>,
    /// What the guest's memory holds, as far as it was written.
    memory: BTreeMap<u64, [u64; ENTRIES]>,
    forgetful: bool,
    counts: Counts,
}

/// A table and its address.
type Table = (u64, [u64; ENTRIES]);

/// Where one program is.
struct Place<'a> {
    vm: &'a VmConfig,
    /// The number of the op that was carried out last, from 1.
    op: usize,
}

/// A name that leads elsewhere since the last op.
struct Gone {
    gpa: Gpa,
    old: Option<Pfn>,
    new: Option<Pfn>,
}

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

impl Walk {
    /// Walk tables by `walker`; leave out one invalidation of each op if it is to be `forgetful`.
    pub fn new(walker: Walker, forgetful: bool) -> Self {
        let mmu = KvmMmu::new(&VmConfig::default());
        Self { walker, mmu, memory: BTreeMap::new(), forgetful, counts: Counts::default() }
    }

    /// What was looked at so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The guest.
    pub fn walker(&self) -> &Walker {
        &self.walker
    }

    /// Carry out `program`, and look at every name that an op sends elsewhere, and in the end at all.
    ///
    /// # Errors
    /// A [`MachineError`] if the guest fails.
    pub fn run(&mut self, program: &Program) -> Result<Option<Wrong>, MachineError> {
        let vm = &program.vm;
        self.counts.programs += 1;
        let (mut model, mut host, mut flush) = (Model::new(vm), Host::new(vm), FlushBackend::default());
        self.mmu.reset(vm);
        let tables = match self.export(0) {
            Ok(Some(tables)) => tables,
            Ok(None) => return self.cut_short(),
            Err(wrong) => return Ok(Some(wrong)),
        };
        self.memory.extend(tables.iter().copied());
        self.walker.load(&tables)?;
        for (at, op) in program.ops.iter().enumerate() {
            if !model.accepts(&host, op) {
                continue;
            }
            let before = self.translations(vm);
            host.apply(op);
            flush.begin_op(vm.backend());
            let exit = self.mmu.step(&host, &mut flush, op);
            model.step(&host, op, &exit);
            let tables = match self.export(at + 1) {
                Ok(Some(tables)) => tables,
                Ok(None) => return self.cut_short(),
                Err(wrong) => return Ok(Some(wrong)),
            };
            self.store(&tables)?;
            let gone: Vec<Gone> = before
                .into_iter()
                .zip(self.translations(vm))
                .filter(|((_, old), (_, new))| old.is_some() && old != new)
                .map(|((gpa, old), (_, new))| Gone { gpa, old: page(old), new: page(new) })
                .collect();
            if let Some(wrong) = self.flush(&Place { vm, op: at + 1 }, flush.log(), &gone)? {
                return Ok(Some(wrong));
            }
        }
        self.walker.reload()?;
        self.judge_all(&model, &host, vm)
    }

    fn cut_short(&mut self) -> Result<Option<Wrong>, MachineError> {
        self.counts.cut_short += 1;
        Ok(None)
    }

    /// The tables as they are now, if the guest has room for them.
    fn export(&self, op: usize) -> Result<Option<Vec<Table>>, Wrong> {
        let (place, mut tables) = (InGuest::default(), Vec::new());
        let maxphyaddr = self.walker.fingerprint().maxphyaddr;
        let exported = self.mmu.export(maxphyaddr, &place, |address, table| tables.push((address, *table)));
        match exported {
            // What there is no room for was placed anywhere.
            _ if place.full.get() => Ok(None),
            // The root stays the first table: no program zaps everything with a memslot.
            Ok(_) => Ok(Some(tables)),
            Err(error) => Err(Wrong { op, gpa: None, why: error.to_string() }),
        }
    }

    /// Every name of every frame, and where it leads by software.
    fn translations(&self, vm: &VmConfig) -> Vec<(Gpa, Option<Spte>)> {
        let names = (0..vm.stolen().alias_count()).flat_map(|alias| (0..FRAMES).map(move |frame| (frame, alias)));
        names.map(|(frame, alias)| vm.gpa(frame, alias)).map(|gpa| (gpa, self.mmu.walk(gpa))).collect()
    }

    /// Have the guest store what differs from its memory.
    fn store(&mut self, tables: &[Table]) -> Result<(), MachineError> {
        let mut stores = Vec::new();
        for (address, table) in tables {
            let known = self.memory.entry(*address).or_insert([0; ENTRIES]);
            let differs = (0..ENTRIES).filter(|&index| known[index] != table[index]);
            stores.extend(differs.map(|index| (address + (index * size_of::<u64>()) as u64, table[index])));
            *known = *table;
        }
        self.walker.store(&stores)
    }

    /// Carry out the flushes of an op, and look at the names that lead elsewhere since.
    fn flush(&mut self, place: &Place<'_>, log: &[Flush], gone: &[Gone]) -> Result<Option<Wrong>, MachineError> {
        let forgotten = gone.last().filter(|_| self.forgetful).map(|gone| gone.gpa);
        for flush in log {
            let names = self.translations(place.vm).into_iter().map(|(gpa, _)| gpa);
            let names: Vec<u64> = match *flush {
                Flush::All { .. } if forgotten.is_none() => {
                    self.walker.reload()?;
                    continue;
                }
                Flush::Range { ok: false, .. } => continue,
                Flush::All { .. } => names.map(Gpa::raw).collect(),
                Flush::Range { gpa, pages, .. } => {
                    let within = |name: &Gpa| name.page().checked_sub(gpa.page()).is_some_and(|at| at < pages);
                    names.filter(within).map(Gpa::raw).collect()
                }
            };
            let kept = |name: &u64| forgotten.is_none_or(|gpa| gpa.raw() != *name);
            self.walker.invalidate(&names.into_iter().filter(kept).collect::<Vec<u64>>())?;
        }
        if let Some(wrong) = self.look_again(place, gone, forgotten)? {
            return Ok(Some(wrong));
        }
        if forgotten.is_some() {
            self.walker.reload()?;
        }
        self.warm(place)
    }

    fn look_again(
        &mut self,
        place: &Place<'_>,
        gone: &[Gone],
        forgotten: Option<Gpa>,
    ) -> Result<Option<Wrong>, MachineError> {
        let addresses: Vec<u64> = gone.iter().map(|gone| gone.gpa.raw()).collect();
        let found = self.walker.read(&addresses)?;
        for (&Gone { gpa, old, new }, found) in gone.iter().zip(found) {
            if forgotten == Some(gpa) {
                self.counts.forgotten += 1;
                self.counts.stale += u64::from(found != new && found == old);
            } else if found != new {
                let why = format!("flushed, and leads to {found:?}; it was {old:?} and is {new:?}");
                return Ok(Some(Wrong { op: place.op, gpa: Some(gpa), why }));
            } else {
                self.counts.flushed += 1;
            }
        }
        Ok(None)
    }

    /// Have every name cached that leads to a page, so that the next op finds all that a TLB could hold.
    fn warm(&mut self, place: &Place<'_>) -> Result<Option<Wrong>, MachineError> {
        let present = self.translations(place.vm).into_iter().filter_map(|(gpa, spte)| Some((gpa, page(spte)?)));
        let present: Vec<(Gpa, Pfn)> = present.collect();
        let found = self.walker.read(&present.iter().map(|(gpa, _)| gpa.raw()).collect::<Vec<u64>>())?;
        let wrong = present.into_iter().zip(found).find(|((_, pfn), found)| *found != Some(*pfn));
        Ok(wrong.map(|((gpa, pfn), found)| {
            let why = format!("leads to {found:?}, and the tables say {pfn:?}");
            Wrong { op: place.op, gpa: Some(gpa), why }
        }))
    }

    /// Look at every name, by a read and by a write.
    fn judge_all(&mut self, model: &Model, host: &Host, vm: &VmConfig) -> Result<Option<Wrong>, MachineError> {
        let translations = self.translations(vm);
        let addresses: Vec<u64> = translations.iter().map(|(gpa, _)| gpa.raw()).collect();
        let found = self.walker.read(&addresses)?;
        for ((gpa, spte), found) in translations.into_iter().zip(found) {
            let wrong = |why| Ok(Some(Wrong { op: 0, gpa: Some(gpa), why }));
            if found != page(spte) {
                return wrong(format!("leads to {found:?}, and the tables say {spte:?}"));
            }
            let (Some(spte), Some((frame, alias))) = (spte, vm.locate(gpa)) else {
                self.counts.foreign += 1;
                continue;
            };
            let writable = spte.rights().contains(Rights::W).then_some(spte.pfn());
            let written = self.walker.write(gpa.raw())?;
            let entitled = model.entitled(host, frame, alias);
            if !matches!(entitled, Entitled::Memory(pfn, _) if found == Some(pfn)) || written != writable {
                return wrong(format!(
                    "leads to {found:?}, a write to {written:?}, and it is entitled to {entitled:?}"
                ));
            }
            self.counts.entitled += 1;
        }
        Ok(None)
    }
}

fn page(spte: Option<Spte>) -> Option<Pfn> {
    spte.map(Spte::pfn)
}
