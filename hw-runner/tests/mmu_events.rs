//! MMU events in a trace of version 3: they print and parse back, malformed ones are refused with their place,
//! and each law that depends on them objects to a falsified trace.

use gpa_model::{Flush, GfnIndexed, Gpa, Level, Pfn, Rights, Spte, VcpuSet};
use gpa_oracles::{Lockstep, Violation, report};
use hw_runner::trace::{Trace, parse, print};
use hw_runner::{MmuEvent, Replay};

/// A recording of the kernel with the corrected patches in the lab, less some of its shadow pages.
const WATCHED: &str = "\
gpafuzz-trace 3
cpu AuthenticAMD
kernel 6.12.117
module kvm_amd
parameters tdp_mmu=N
paging tdp-rmap
maxphyaddr 48
capabilities readonly-mem zap-slot
realisation native
native yes
witness accesses=255 pf_fixed=10
samples 1
vm stolen=40 vcpus=1 base=0x1e0 flush=works
slot 0 create gfn=0x1e0 pages=2 hva=0x0 log-dirty
  => done
v0 write 0x1e1@1
  => memory 2
  :: spte 0x1e1@1 2 rwx 4K
v0 read 0x1e1
  => memory 2
  :: spte 0x1e1 2 rwx 4K
dirty-clear 0 gfn=0x1e0 pages=2
  => done
  :: flush 0x1e0 2
  :: flush 0x100001e0 2
  :: spte 0x1e1 2 r-x 4K
  :: spte 0x1e1@1 2 r-x 4K
v0 write 0x1e1
  => memory 2
  :: spte 0x1e1 2 rwx 4K
unmap hva=0x1 pages=1
  => done
  :: flush all
  :: spte 0x1e1 none
  :: spte 0x1e1@1 none
v0 read 0x1e1@1
  => memory 65
  :: spte 0x1e1@1 65 rwx 4K
v0 read 0x1e4@1
  => mmio 0x1e4@1
  :: page 0x0 0x10000000 1
  :: page 0x0 0x0 1
  :: page 0x0 0x0 2
  :: mmio 0x1e4
  :: rmap 0x1e1 0x100001e1 4K
";

fn watched() -> Trace {
    parse(WATCHED).unwrap_or_else(|e| panic!("{e}"))
}

fn judge(trace: &Trace) -> (String, Option<Violation>, Lockstep) {
    let (mut run, mut replay) = (Lockstep::default(), Replay::default());
    replay.load(trace.clone());
    let (report, violation) = report(&mut run, &mut replay, &trace.program, "trace");
    (report, violation, run)
}

#[test]
fn mmu_events_are_judged_and_shown() {
    assert_eq!(print(&watched()), WATCHED);
    let (report, violation, run) = judge(&watched());
    assert!(violation.is_none(), "{report}");
    for law in [
        "gfn_unalias/spte",
        "gfn_unalias/keyed",
        "private_slot/alias-unmapped",
        "alias_flush/stale-page",
        "alias_flush/stale-write",
        "structure/rmap",
        "structure/unique",
    ] {
        let tally = run.tallies().find(|(oracle, clause, _)| format!("{oracle}/{}", clause.name) == law);
        assert!(tally.is_some_and(|(_, _, tally)| tally.checked > 0), "{law} was not checked\n{report}");
    }
    insta::assert_snapshot!(report);
}

/// The positive control: change one line, and the oracle of the broken law objects.
#[test]
fn oracles_object_to_falsified_mmu_events() {
    let alias_flush = "  :: flush 0x100001e0 2\n";
    let rmap = "  :: rmap 0x1e1 0x100001e1 4K\n";
    let cases = [
        ("gfn_unalias/spte", "  :: spte 0x1e1@1 65 rwx 4K\n", "  :: spte 0x1e1@1 2 rwx 4K\n"),
        ("gfn_unalias/spte", "  :: spte 0x1e1@1 none\n", ""),
        ("gfn_unalias/keyed", "  :: mmio 0x1e4\n", "  :: mmio 0x100001e4\n"),
        ("private_slot/alias-unmapped", "  => mmio 0x1e4@1\n", "  => mmio 0x1e4@1\n  :: spte 0x1e4@1 5 r-x 4K\n"),
        ("alias_flush/stale-write", alias_flush, ""),
        ("alias_flush/stale-write", alias_flush, "  :: flush 0x100001e0 2 failed\n"),
        ("alias_flush/stale-page", "  :: flush all\n", ""),
        ("dirty_log/write-protected", "  :: spte 0x1e1 2 r-x 4K\n", ""),
        ("structure/rmap", rmap, ""),
        ("structure/rmap", rmap, "  :: rmap 0x1e1 0x100001e1 4K\n  :: rmap 0x1e1 0x100001e1 4K\n"),
        ("structure/rmap", rmap, "  :: rmap 0x1e1 0x100001e1 4K\n  :: rmap 0x1e0 0x1e0 4K\n"),
        ("structure/unique", "  :: page 0x0 0x0 1\n", "  :: page 0x0 0x0 1\n  :: page 0x0 0x0 1\n"),
    ];
    for (law, truth, lie) in cases {
        let text = WATCHED.replacen(truth, lie, 1);
        assert_ne!(text, WATCHED, "{truth}");
        let (report, violation, _) = judge(&parse(&text).unwrap_or_else(|e| panic!("{e}")));
        let signature = violation.unwrap_or_else(|| panic!("no oracle objects to {lie:?}\n{report}")).signature;
        assert_eq!(format!("{}/{}", signature.oracle, signature.clause), law, "{truth:?} -> {lie:?}\n{report}");
    }
}

/// The same exits without MMU events: clauses that need page tables do not count as checked.
#[test]
fn clauses_that_need_tables_are_unsupported_without_mmu_events() {
    let blind = Trace { seen: Vec::new(), ..watched() };
    let (report, violation, run) = judge(&blind);
    assert!(violation.is_none(), "{report}");
    let needy = run.tallies().filter(|(_, clause, _)| clause.needs_tables || clause.needs_keys);
    assert_eq!(needy.map(|(_, _, tally)| tally.checked).sum::<u64>(), 0, "{report}");
    assert!(print(&blind).starts_with("gpafuzz-trace 2\n"), "older runners can read it");
}

#[test]
fn every_mmu_event_prints_and_parses_back() {
    let mut trace = watched();
    let vm = trace.program.vm;
    let (gpa, alias, level) = (vm.gpa(3, 1), vm.stolen().alias(1), Level::Page2M);
    let spte = |rights| Spte::new(Pfn::new(u32::MAX), rights);
    let (gfn, pfn) = (0x1e3, Pfn::new(7));
    let mut all = vec![
        MmuEvent::Spte(gpa, None),
        MmuEvent::Spte(gpa, spte(Rights::R).map(|spte| spte.at_level(level))),
        MmuEvent::Flush(Flush::All { vcpus: VcpuSet::ALL }),
        MmuEvent::Flush(Flush::Range { gpa, pages: 512, ok: true }),
        MmuEvent::Flush(Flush::Range { gpa, pages: 1, ok: false }),
    ];
    let keys = [
        GfnIndexed::direct_page(gfn, alias, 5),
        GfnIndexed::NxSplit { gfn, alias, level: 1 },
        GfnIndexed::Retired { gfn, pfn, level },
        GfnIndexed::DirtyLog(gfn),
        GfnIndexed::Mmio(gfn),
        GfnIndexed::AsyncPf(gfn),
    ];
    let with_flag = [false, true].into_iter().flat_map(|flag| {
        let rmap = GfnIndexed::Rmap { gfn, gpa: Gpa::from_page(gfn), level, idle: flag };
        [rmap, GfnIndexed::Table { gfn, alias, level: 2, reached: flag }]
    });
    all.extend(keys.into_iter().chain(with_flag).map(MmuEvent::Key));
    trace.seen[1] = all;
    assert_eq!(parse(&print(&trace)), Ok(trace));
}

#[test]
fn hostile_mmu_events_are_refused_with_their_place() {
    let change = |from: &str, to: &str| parse(&WATCHED.replacen(from, to, 1)).expect_err(to).to_string();
    let found = [
        change("gpafuzz-trace 3", "gpafuzz-trace 2"),
        change("gpafuzz-trace 3", "gpafuzz-trace 4"),
        change("slot 0", "  :: flush all\nslot 0"),
        change("  => memory 2\n", ""),
        change(":: flush all", ":: flush"),
        change(":: flush all", ":: flush all of it"),
        change(":: flush 0x1e0 2", ":: flush 0x10000000000000 2"),
        change(":: flush 0x1e0 2", ":: flush 0x1e0 2 perhaps"),
        change(":: spte 0x1e1 2 r-x 4K", ":: spte 0x1e1@2 2 r-x 4K"),
        change(":: spte 0x1e1 2 r-x 4K", ":: spte 0x1e1 4294967296 r-x 4K"),
        change(":: spte 0x1e1 2 r-x 4K", ":: spte 0x1e1 2 --- 4K"),
        change(":: spte 0x1e1 2 r-x 4K", ":: spte 0x1e1 2 r-x 8K"),
        change(":: page 0x0 0x10000000 1", ":: page 0x0 0x8000000 1"),
        change(":: page 0x0 0x10000000 1", ":: page 0x0 0x10000000 0"),
        change(":: page 0x0 0x10000000 1", ":: page 0x0 0x10000000 6"),
        change(":: mmio 0x1e4", ":: nonsense 0x1e4"),
        change(":: mmio 0x1e4", "::"),
    ];
    insta::assert_snapshot!(found.join("\n"));
}
