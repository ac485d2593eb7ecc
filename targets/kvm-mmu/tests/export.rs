//! Exported tables, walked as the manuals say hardware walks them, translate what the MMU says they do: in every format, at
//! either depth, for every alias.

#![expect(clippy::disallowed_types, reason = "the test judges, not the target")]

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::limits::FRAMES;
use gpa_model::{FlushBackend, Gpa, Host, Levels, Mmu, Model, Pfn, Program, Rights, VmConfig};
use kvm_mmu::{Corrected, Ept, EptNoAd, ExportError, Format, KvmMmu, Npt, Placement};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::collections::BTreeMap;

/// Address bits of the processor that walks.
const MAXPHYADDR: u8 = 46;
const PROGRAMS: usize = 3_000;

/// Tables high up, pages of the guest above them; both far from the numbers that the MMU calls them by.
struct Above;

const TABLES: u64 = 0x3_0000_0000;
const PAGES: u64 = 0x1200_0000_0000;

impl Placement for Above {
    fn table(&self, table: u32) -> u64 {
        Gpa::new(TABLES).add_pages(table.into()).raw()
    }

    fn page(&self, pfn: Pfn) -> u64 {
        Gpa::new(PAGES).add_pages(pfn.raw().into()).raw()
    }
}

/// The tables by their addresses, and where a walk begins.
struct Memory {
    tables: BTreeMap<u64, Vec<u64>>,
    root: u64,
}

/// A walk by a format's rules: where it leads and what it allows, or nothing if it faults.
type Walk = fn(&Memory, u64, u8) -> Option<(u64, Rights)>;

/// Bits 45:12 of an entry.
fn address(entry: u64) -> u64 {
    entry & ((1 << MAXPHYADDR) - Gpa::from_page(1).raw())
}

/// The entries on the way to the page of `gpa`, and where in the leaf's page it lies; no place if the walk ends before a leaf.
fn entries(memory: &Memory, gpa: u64, levels: u8) -> (Vec<u64>, Option<u64>) {
    let mut table = memory.root;
    let mut entries = Vec::new();
    for level in (1..=levels).rev() {
        let index = Gpa::new(gpa).page() >> (9 * (level - 1)) & 0x1ff;
        let entry = memory.tables[&table][index as usize];
        entries.push(entry);
        // The lowest three bits: rights in EPT, present, writable and user in NPT. Without any there is no next table.
        if entry & 7 == 0 {
            break;
        }
        // Bit 7 of an entry above the lowest level: it maps a large page.
        if level == 1 || entry >> 7 & 1 != 0 {
            let large = Gpa::from_page(1 << (9 * (level - 1))).raw();
            return (entries, Some(gpa & (large - 1)));
        }
        table = address(entry);
        if !memory.tables.contains_key(&table) {
            break;
        }
    }
    (entries, None)
}

/// SDM vol. 3C, 29.3.2: a walk has the rights that every entry has; write without read is a misconfiguration.
fn walk_ept(memory: &Memory, gpa: u64, levels: u8) -> Option<(u64, Rights)> {
    let (entries, within) = entries(memory, gpa, levels);
    let rights = entries.iter().fold(7, |rights, entry| rights & entry);
    let (leaf, within) = (entries.last()?, within?);
    if rights == 0 || rights & 3 == 2 {
        return None;
    }
    assert_eq!(leaf >> 3 & 7, 6, "the memory type of {gpa:#x} is write-back");
    Some((address(*leaf) + within, Rights::from_bits(rights as u8)))
}

/// APM vol. 2, 5.3 and 15.25: present, writable and user by every entry, executable unless one forbids it.
fn walk_npt(memory: &Memory, gpa: u64, levels: u8) -> Option<(u64, Rights)> {
    let (entries, within) = entries(memory, gpa, levels);
    let granted = entries.iter().fold(7, |granted, entry| granted & entry);
    let forbidden = entries.iter().fold(0, |forbidden, entry| forbidden | entry >> 63);
    let (leaf, within) = (entries.last()?, within?);
    // Bit 51 is no address bit of this processor: reserved, and so an MMIO entry faults.
    if granted & 5 != 5 || leaf >> 51 & 1 != 0 {
        return None;
    }
    let rights = [(Rights::R, true), (Rights::W, granted & 2 != 0), (Rights::X, forbidden == 0)];
    let rights = rights.into_iter().filter(|(_, granted)| *granted);
    Some((address(*leaf) + within, rights.fold(Rights::NONE, |all, (right, _)| all.union(right))))
}

fn agrees<F: Format>(walk: Walk) {
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let generator = Generator::new(Profile::default());
    let mut program = Program::default();
    let mut mmu = KvmMmu::<Corrected, F>::new(&VmConfig::default());
    let (mut walked, mut five, mut unnoticed) = (0, 0, 0);
    for _ in 0..PROGRAMS {
        generator.program(&mut choices, &mut program);
        run(&mut mmu, &program);
        let mut tables = BTreeMap::new();
        let put = |address, page: &[u64; 512]| assert!(tables.insert(address, page.to_vec()).is_none());
        let root = mmu.export(MAXPHYADDR, &Above, put).unwrap();
        let memory = Memory { tables, root };
        let vm = &program.vm;
        for alias in 0..vm.stolen().alias_count() {
            for frame in 0..FRAMES {
                let gpa = vm.gpa(frame, alias);
                let hardware = walk(&memory, gpa.raw(), vm.levels().count());
                let software = mmu.walk(gpa).map(|spte| (Above.page(spte.pfn()), spte.rights()));
                // A write through an entry whose dirty bit is clear is noticed: hardware allows it all the same.
                if let (Some((page, rights)), Some((other, less))) = (hardware, software)
                    && rights != less
                {
                    assert_eq!((page, rights), (other, less.union(Rights::W)), "{gpa:?} of {program:?}");
                    unnoticed += 1;
                    continue;
                }
                assert_eq!(hardware, software, "{gpa:?} of {program:?}");
                walked += u32::from(hardware.is_some());
                five += u32::from(hardware.is_some() && vm.levels() == Levels::Five);
            }
        }
    }
    assert!(walked > 2_000 && five > 200, "{walked} translations, {five} of them of five levels: too few to tell");
    assert_eq!(unnoticed > 0, F::PML, "{unnoticed} writes that the processor logs");
}

fn run(mmu: &mut impl Mmu, program: &Program) {
    let (mut model, mut host, mut flush) = (Model::new(&program.vm), Host::new(&program.vm), FlushBackend::default());
    mmu.reset(&program.vm);
    for op in &program.ops {
        if model.accepts(&host, op) {
            host.apply(op);
            flush.begin_op(program.vm.backend());
            let exit = mmu.step(&host, &mut flush, op);
            model.step(&host, op, &exit);
        }
    }
}

#[test]
fn ept_is_what_hardware_walks() {
    agrees::<Ept>(walk_ept);
}

#[test]
fn ept_without_accessed_and_dirty_bits_is_what_hardware_walks() {
    agrees::<EptNoAd>(walk_ept);
}

#[test]
fn npt_is_what_hardware_walks() {
    agrees::<Npt>(walk_npt);
}

#[test]
fn a_placement_that_hardware_would_refuse_is_refused() {
    struct At(u64, u64);
    impl Placement for At {
        fn table(&self, table: u32) -> u64 {
            Gpa::new(self.0).add_pages(table.into()).raw()
        }

        fn page(&self, _: Pfn) -> u64 {
            self.1
        }
    }
    let program = gpa_model::text::parse(
        "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
         slot 0 create gfn=0x1e0 pages=1 hva=0\nv0 read 0x1e0@1\n",
    );
    let mut mmu = KvmMmu::<Corrected, Npt>::new(&VmConfig::default());
    run(&mut mmu, &program.unwrap());
    let export = |tables, page| mmu.export(MAXPHYADDR, &At(tables, page), |_, _| {}).map_err(|error| error.to_string());
    let (low, high) = (Gpa::from_page(1).raw(), 1 << MAXPHYADDR);
    assert_eq!(export(low, low), Ok(low));
    insta::assert_snapshot!(export(low + 8, low).unwrap_err(), @"expected a page-aligned physical address, found 0x2008");
    insta::assert_snapshot!(
        export(low, high).unwrap_err(),
        @"expected bits 0x400000000000 of entry 480 of table 3 to be clear; use lower addresses"
    );
    insta::assert_snapshot!(
        export(high, low).unwrap_err(),
        @"expected bits 0x400000000000 of entry 2 of table 0 to be clear; use lower addresses"
    );
    assert_eq!(mmu.export(MAXPHYADDR, &At(low, 7), |_, _| {}), Err(ExportError::Unaligned(7)));
}
