//! Every mutant, gap and bug of the catalogue is accounted for: it is a mutant here, argued equivalent, shown by a program, or
//! there is a sentence why nobody could see it.
//!
//! To add a mutant of the catalogue, put it into the table of mutants and say so in its line here.

mod common;

use common::{CLEAN, bad_on, judge, programs};
use kvm_mmu::mutants::{self, EQUIVALENT};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What became of an entry of the catalogue.
#[derive(Clone, Copy)]
enum Standing {
    /// It is a mutant, or several.
    Mutant,
    /// It is among the equivalent ones.
    Equivalent,
    /// In this MMU it is the same mistake as another.
    As(&'static str),
    /// A gap of the RFC as posted, which this program of the corpus shows.
    Shown(&'static str),
    /// Nobody could see it, because.
    Unseen(&'static str),
}

use Standing::{As, Equivalent, Mutant, Shown, Unseen};

const CATALOGUE: &[(&str, Standing)] = &[
    ("M01", Mutant),
    ("M02", Mutant),
    ("M03", Mutant),
    ("M04", As("M03")),
    ("M10", Mutant),
    ("M11", Mutant),
    ("M12", Equivalent),
    ("M13", Mutant),
    ("M14", Mutant),
    ("M15", Mutant),
    ("M16", Mutant),
    ("M17", Equivalent),
    ("M18", Equivalent),
    ("M19", Mutant),
    ("M1A", Mutant),
    ("M20", Mutant),
    ("M21", Mutant),
    ("M22", Mutant),
    ("M23", Mutant),
    ("M24", Mutant),
    ("M25", Equivalent),
    ("M26", Mutant),
    ("M30", Mutant),
    ("M31", Mutant),
    ("M32", Equivalent),
    ("M33", Equivalent),
    ("M34", Equivalent),
    ("M40", Mutant),
    ("M41", Mutant),
    ("M42", Mutant),
    ("M43", Mutant),
    ("M44", Mutant),
    ("M50", Mutant),
    ("M51", Equivalent),
    ("M52", Mutant),
    ("M53", Equivalent),
    ("M54", Mutant),
    ("M55", Mutant),
    ("M56", Mutant),
    ("M60", As("M02")),
    ("M61", Mutant),
    ("M62", Mutant),
    ("M63", As("M61")),
    ("M70", Mutant),
    ("M71", Mutant),
    ("M72", Mutant),
    ("M73", Mutant),
    ("M74", Mutant),
    ("M75", Equivalent),
    ("M76", Mutant),
    ("M77", Equivalent),
    ("M78", Mutant),
    ("M80", Mutant),
    ("M81", Mutant),
    ("M82", As("M62")),
    ("M83", Mutant),
    ("M84", Mutant),
    ("M85", Mutant),
    ("M86", Mutant),
    ("M87", Mutant),
    ("M88", Mutant),
    ("M89", Mutant),
    ("M8A", Mutant),
    ("U1", Mutant),
    ("U2", Mutant),
    ("G1", Shown("regressions/G1-dirty-clear-logged")),
    ("G2", Shown("regressions/G2-read")),
    (
        "G3",
        Unseen(
            "whether the slot of a private alias stays set in the fault decides which of two ways leads to the same exit, and \
             how often a retry is asked for that nothing forbids",
        ),
    ),
    ("G4", Mutant),
    ("G5", Shown("seeds/bad_memory_type_looked_up_by_the_raw_frame")),
    ("G6", Shown("regressions/G6-dirty-get")),
    ("G7", Shown("regressions/G7-slot-aliased")),
    ("G8", Shown("seeds/bad_stolen_bit_above_maxphyaddr_is_reserved")),
    ("G9", Unseen("an alias that misses the caches of MMIO addresses takes the slow way to the same exit")),
    ("G10", Shown("seeds/bad_nested_npt_is_stripped")),
    ("G11", Shown("regressions/G11-guest-access")),
    ("B01", Mutant),
    ("B02", Mutant),
    ("B03", As("B02")),
    ("B04", Mutant),
    ("B05", As("M17")),
    ("B06", Mutant),
    ("B07", Mutant),
    ("B08", Unseen("flushes that the guest asks for are not ops: the host owes it none")),
    ("B09", Unseen("there is no APIC virtualisation that a translation could be cached for")),
    ("B10", Mutant),
    ("B11", Mutant),
    ("B12", Mutant),
    (
        "B13",
        Unseen("the mistake was never explained: a device lost pages after a slot was deleted, and nobody knows why"),
    ),
    ("B14", Equivalent),
    ("B15", Mutant),
    ("B16", Unseen("every root here has a shadow page, so there is none to be missed")),
    ("B17", Mutant),
    (
        "B18",
        Unseen("a slot changes under the lock that an invalidation holds, and the model accepts no program that tries"),
    ),
    ("B19", Unseen("an id out of bounds cannot be made: a SlotId is checked, and slots are found by a safe search")),
    ("B20", Mutant),
    ("B21", Unseen("there is no IOMMU whose pins must match the slot")),
    ("B22", Mutant),
    ("B23", Mutant),
    ("B24", Mutant),
    ("B25", Mutant),
    ("B26", Mutant),
    ("B27", Mutant),
    ("B28", Mutant),
    ("B29", Mutant),
    ("B30", Unseen("which shadow pages are out of step changes under the `mmu_lock`, and nobody shares that")),
    ("B31", Mutant),
    ("B32", Unseen("the host changes a page by taking it away; there is no notifier that changes an entry in place")),
    ("B33", Mutant),
    ("B34", Mutant),
    ("B35", Unseen("what is logged too much when logging is switched off is in no log that anybody reads")),
    ("B36", Unseen("how writes are logged is a value of the VM: nothing of it is global")),
    ("B37", Mutant),
    ("B38", Mutant),
    ("B39", Unseen("there is no VMCS that holds the address of the APIC page beside the tables")),
    ("B40", Mutant),
    ("B41", Mutant),
    ("B42", Mutant),
    ("B43", Mutant),
    ("B44", Unseen("the guest's tables are walked and not written, so no accessed bit goes to a wrong page")),
    ("B45", Unseen("the `mmu_lock` has one mode")),
    ("B46", Unseen("no instruction of the guest invalidates a TLB here")),
    ("B47", Mutant),
    (
        "B48",
        Unseen(
            "a guest whose MAXPHYADDR is below the host's is told by the walk in software only; that is G8's and M7V's",
        ),
    ),
    ("B49", Mutant),
];

/// A mutant's place in the catalogue. A last letter from S on counts variants of ours.
fn id(name: &str) -> &str {
    let id = name.split('-').next().unwrap_or(name);
    id.strip_suffix(|letter: char| letter >= 'S').unwrap_or(id)
}

fn standing(of: &str) -> Option<Standing> {
    CATALOGUE.iter().find(|(id, _)| *id == of).map(|(_, standing)| *standing)
}

fn names(of: &str) -> Vec<&'static str> {
    mutants::ALL.iter().map(|mutant| mutant.name).filter(|name| id(name) == of).collect()
}

#[test]
fn everything_in_the_catalogue_is_accounted_for() {
    let mut table = String::new();
    for &(id, standing) in CATALOGUE {
        let mutants = names(id);
        let equivalent = EQUIVALENT.iter().find(|equivalent| self::id(equivalent.name) == id);
        assert_eq!(!mutants.is_empty(), matches!(standing, Mutant), "{id}, and the mutants {mutants:?}");
        assert_eq!(equivalent.is_some(), matches!(standing, Equivalent), "{id}");
        let what = match standing {
            Mutant => format!("mutant {}", mutants.join(", ")),
            Equivalent => format!("equivalent: {}", equivalent.map_or("", |equivalent| equivalent.why)),
            As(other) => {
                assert!(
                    !names(other).is_empty() || matches!(self::standing(other), Some(Equivalent)),
                    "{id} as {other}"
                );
                format!("the same here as {other}")
            }
            Shown(program) => {
                capabilities(id, program);
                format!("shown on rfc-v3 by corpus/{program}.prog")
            }
            Unseen(why) => format!("cannot be seen: {why}"),
        };
        let _ = writeln!(table, "{id:<4} {what}");
    }
    insta::assert_snapshot!("catalogue", format!("all {} are accounted for\n\n{table}", CATALOGUE.len()));
}

/// The program says which gap it is about, the RFC as posted breaks a law by it, and the corrected designs do not.
fn capabilities(gap: &str, path: &str) {
    let (folder, name) = path.split_once('/').expect("a folder and a name");
    let program = programs(folder).into_iter().find(|(found, _)| found == name);
    let (_, program) = program.unwrap_or_else(|| panic!("corpus/{path}.prog is missing"));
    assert!(program.comment.iter().any(|line| line.contains(gap)), "{path} does not name {gap}");
    assert_eq!(bad_on(&program).map(|(target, _)| target), Some("rfc-v3"), "{path}");
    assert!(judge("rfc-v3", &program).1.is_some(), "{path} shows nothing");
    assert!(CLEAN.iter().all(|target| judge(target, &program).1.is_none()), "{path} shows more than {gap}");
}

#[test]
fn each_id_is_listed_once_and_no_mutant_is_outside() {
    let ids: BTreeSet<&str> = CATALOGUE.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), CATALOGUE.len(), "an id is listed twice");
    for mutant in mutants::ALL {
        let id = id(mutant.name);
        // What is our own alone, such as M1V, is a variant of a hunk: two characters are left of it.
        assert!(
            ids.contains(id) || mutant.name.len() > 3 && id.len() == 2,
            "{} is in no place of the catalogue",
            mutant.name
        );
    }
}
