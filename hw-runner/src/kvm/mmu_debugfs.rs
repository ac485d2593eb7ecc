//! The debugfs file of the lab's kernels that shows KVM's page tables, its structures indexed by gfn, and its flushes.
//!
//! There is a file for each VM. Each line has a kind and hexadecimal numbers:
//!
//! ```text
//! page GFN STOLEN LEVEL               a shadow page, and the stolen bits of its gfn
//! leaf GPA LEVEL PFN RIGHTS SPTE      a leaf that the processor can reach, and the address of the SPTE
//! mmio GPA GFN                        an MMIO SPTE, and the gfn that it stores
//! rmap GFN SPTE                       an entry of the rmap of a gfn
//! flush NUMBER GFN PAGES OK           a TLB flush; 0 pages mean everything
//! flushes COUNT                       the number of flushes so far; only the last ones are listed
//! ```
//!
//! `/proc/self/pagemap` gives the pfns of this process's pages, which are translated to the identities that programs use.

use crate::error::{Doing, MachineError};
use crate::host::memory::{PAGE_BYTES, Pages};
use gpa_model::limits::{FRAMES, HOST_PAGES};
use gpa_model::{Flush, GfnIndexed, Gpa, Level, Pfn, Rights, Span, Spte, VcpuSet, VmConfig};
use kvm_ioctls::VmFd;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// The identity of a page that never belonged to this process.
const STRANGER: Pfn = Pfn::new(u32::MAX);

/// One event in KVM's MMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmuEvent {
    /// After an op: the SPTE of this address changed to this.
    Spte(Gpa, Option<Spte>),
    /// During an op: KVM asked for a flush.
    Flush(Flush),
    /// At the end of a program: KVM has this entry, indexed by gfn.
    Key(GfnIndexed),
}

/// The debugfs file of one VM.
#[derive(Debug)]
pub(crate) struct MmuDebugfs {
    file: File,
    pagemap: File,
    text: String,
    /// How many flushes were read so far.
    flushes: u64,
    /// The identity of each host pfn; the latest counts.
    names: BTreeMap<u64, Pfn>,
    now: BTreeMap<Gpa, Spte>,
}

/// The content of the file now.
#[derive(Default)]
struct Shown {
    leaves: BTreeMap<Gpa, Spte>,
    /// Leaves by the addresses of their SPTEs.
    places: BTreeMap<u64, (Gpa, Level, Rights)>,
    rmap: Vec<(u64, u64)>,
    pages: Vec<GfnIndexed>,
}

impl MmuDebugfs {
    /// The file of `vm`; `None` if this kernel has none.
    pub(crate) fn open(vm: &VmFd) -> Option<Self> {
        let path = format!("/sys/kernel/debug/kvm/{}-{}/mmu_sptes", std::process::id(), vm.as_raw_fd());
        let (file, pagemap) = (File::open(path).ok()?, File::open("/proc/self/pagemap").ok()?);
        let (names, now) = (BTreeMap::new(), BTreeMap::new());
        Some(Self { file, pagemap, text: String::new(), flushes: 0, names, now })
    }

    /// Starts a program: forgets all SPTEs, and all flushes so far.
    pub(crate) fn begin(&mut self) -> Result<(), MachineError> {
        self.names.clear();
        self.now.clear();
        self.read()?;
        let count = self.text.lines().find_map(|line| line.strip_prefix("flushes "));
        self.flushes = count.and_then(|count| u64::from_str_radix(count, 16).ok()).ok_or_else(|| odd("no count"))?;
        Ok(())
    }

    /// Adds the events since the last call to `seen`; at the end of a program, the entries indexed by gfn, too.
    pub(crate) fn look(&mut self, vm: &VmConfig, end: bool, seen: &mut Vec<MmuEvent>) -> Result<(), MachineError> {
        self.read()?;
        let mut shown = Shown::default();
        let text = std::mem::take(&mut self.text);
        for line in text.lines() {
            self.note(vm, line, &mut shown, seen).ok_or_else(|| odd(line))?;
        }
        self.text = text;
        let gone = self.now.keys().filter(|gpa| !shown.leaves.contains_key(gpa)).map(|gpa| MmuEvent::Spte(*gpa, None));
        seen.extend(gone);
        let new = shown.leaves.iter().filter(|(gpa, spte)| self.now.get(gpa) != Some(spte));
        seen.extend(new.map(|(gpa, spte)| MmuEvent::Spte(*gpa, Some(*spte))));
        if end {
            seen.extend(shown.pages.iter().map(|page| MmuEvent::Key(*page)));
            seen.extend(shown.rmap.iter().filter_map(|entry| rmap_key(vm, &shown, *entry)).map(MmuEvent::Key));
        }
        self.now = shown.leaves;
        Ok(())
    }

    fn read(&mut self) -> Result<(), MachineError> {
        self.text.clear();
        self.file.seek(SeekFrom::Start(0)).doing("look into KVM")?;
        self.file.read_to_string(&mut self.text).doing("look into KVM").map(drop)
    }

    /// Records that the pages of `memory` have the identities `names`, of which there are at most
    /// [`HOST_PAGES`].
    pub(crate) fn learn_names(&mut self, memory: &Pages, names: &[Pfn]) -> Result<(), MachineError> {
        const PRESENT: u64 = 1 << 63;
        const PFN: u64 = (1 << 55) - 1;
        let mut entries = [0; HOST_PAGES * size_of::<u64>()];
        let entries = &mut entries[..names.len() * size_of::<u64>()];
        let first = memory.hva(0, 0) / PAGE_BYTES as u64;
        let read = self.pagemap.read_exact_at(entries, first * size_of::<u64>() as u64);
        read.doing("find the pages behind host memory")?;
        for (entry, name) in entries.chunks_exact(size_of::<u64>()).zip(names) {
            let entry = entry.iter().rev().fold(0, |entry, byte| entry << 8 | u64::from(*byte));
            if entry & PRESENT != 0 {
                self.names.insert(entry & PFN, *name);
            }
        }
        Ok(())
    }

    /// Parses one line; `None` if it is malformed.
    fn note(&mut self, vm: &VmConfig, line: &str, shown: &mut Shown, seen: &mut Vec<MmuEvent>) -> Option<()> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let mut numbers = [0; 5];
        let mut count = 0;
        for word in words {
            *numbers.get_mut(count)? = u64::from_str_radix(word, 16).ok()?;
            count += 1;
        }
        match (kind, &numbers[..count]) {
            ("leaf", &[gpa, level, pfn, rights, place]) => {
                let leaf =
                    Leaf { gpa: Gpa::new(gpa), level: level_of(level)?, pfn, rights: Rights::from_bits(rights as u8) };
                shown.places.insert(place, (leaf.gpa, leaf.level, leaf.rights));
                leaf.names(vm).for_each(|(gpa, pfn)| {
                    let name = self.names.get(&pfn).copied().unwrap_or(STRANGER);
                    if let Some(spte) = Spte::new(name, leaf.rights) {
                        shown.leaves.insert(gpa, spte.at_level(leaf.level));
                    }
                });
            }
            ("page", &[gfn, stolen, level]) => {
                let alias = vm.stolen().split(Gpa::from_page(stolen)).1;
                shown.pages.push(GfnIndexed::direct_page(gfn, alias, level as u8));
            }
            ("mmio", &[gpa, gfn]) if vm.locate(Gpa::new(gpa)).is_some() => shown.pages.push(GfnIndexed::Mmio(gfn)),
            ("mmio", &[_, _]) => {}
            ("rmap", &[gfn, place]) => shown.rmap.push((gfn, place)),
            ("flush", &[number, ..]) if number < self.flushes => {}
            ("flush", &[_, _, 0, _]) => seen.push(MmuEvent::Flush(Flush::All { vcpus: VcpuSet::ALL })),
            ("flush", &[_, gfn, pages, ok]) => {
                seen.push(MmuEvent::Flush(Flush::Range { gpa: Gpa::from_page(gfn), pages, ok: ok != 0 }));
            }
            ("flushes", &[count]) => self.flushes = count,
            _ => return None,
        }
        Some(())
    }
}

struct Leaf {
    gpa: Gpa,
    level: Level,
    pfn: u64,
    rights: Rights,
}

impl Leaf {
    /// The addresses of frames of `vm` that the leaf translates, each with its host pfn.
    fn names(&self, vm: &VmConfig) -> impl Iterator<Item = (Gpa, u64)> {
        let span = Span::of_leaf(self.gpa, self.level);
        let (first, pages, pfn) = (self.gpa.page(), span.pages, self.pfn);
        let one = (pages == 1).then(|| vm.locate(self.gpa).map(|_| self.gpa)).flatten();
        let aliases = if pages == 1 { 0 } else { vm.stolen().alias_count() };
        let all = (0..aliases).flat_map(|alias| (0..FRAMES).map(move |frame| (frame, alias)));
        let many = all.map(|(frame, alias)| vm.gpa(frame, alias));
        one.into_iter().chain(many).filter_map(move |gpa| {
            let offset = gpa.page().checked_sub(first).filter(|offset| *offset < pages)?;
            Some((gpa, pfn + offset))
        })
    }
}

/// The rmap entry, if it concerns frames of `vm`. An entry whose SPTE is in no table is reported under the
/// gfn's base name.
fn rmap_key(vm: &VmConfig, shown: &Shown, (gfn, place): (u64, u64)) -> Option<GfnIndexed> {
    let base = Gpa::from_page(gfn);
    let (gpa, level, rights) = shown.places.get(&place).copied().unwrap_or((base, Level::Page4K, Rights::NONE));
    let ours = vm.locate(gpa).is_some() || vm.locate(base).is_some();
    let lost = !shown.places.contains_key(&place);
    ours.then_some(GfnIndexed::Rmap { gfn, gpa, level, idle: rights.is_none() && !lost })
}

fn level_of(level: u64) -> Option<Level> {
    match level {
        1 => Some(Level::Page4K),
        2 => Some(Level::Page2M),
        3 => Some(Level::Page1G),
        _ => None,
    }
}

fn odd(line: &str) -> MachineError {
    MachineError::Exit(format!("{line:?} where KVM shows its tables"))
}
