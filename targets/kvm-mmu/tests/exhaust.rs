//! Exhaustive exploration has teeth: which mutants die within the bounds of the gate, and folding lets none escape.

use gpa_model::exhaust::{Answer, Scope};
use gpa_model::{Exit, Mmu, OpKind};
use gpa_oracles::{Lockstep, Signature};
use kvm_mmu::mutants;
use kvm_mmu::{Corrected, KvmMmu};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::ControlFlow;

fn scope(frames: usize, slots: usize, aliases: usize, vcpus: u8, kinds: &str) -> Scope {
    let scope = Scope::new(frames, slots, aliases, vcpus).expect("a small scope");
    let kind = |name| OpKind::ALL.into_iter().find(|kind| kind.name() == name).expect("a kind of op");
    if kinds.is_empty() { scope } else { scope.only(&kinds.split(',').map(kind).collect::<Vec<_>>()) }
}

/// The first of the standard scopes; the second, which has every kind of op, with an op less; and at its full length with the kinds
/// by which a mutant dies there. A mutant that lives goes through all of them.
fn bounds() -> [(Scope, usize); 3] {
    use OpKind::{
        Age, Backend, DirtyClear, FaultBegin, FaultEnd, Prefault, Read, SlotCreate, SlotDelete, SlotEnd, SlotFlags,
        Unmap, UnmapBegin, UnmapEnd, Write, WriteProtect, WriteTrack, WriteUntrack,
    };
    let kinds = [
        SlotCreate,
        SlotDelete,
        SlotFlags,
        SlotEnd,
        Read,
        Write,
        Prefault,
        FaultBegin,
        FaultEnd,
        Unmap,
        UnmapBegin,
        UnmapEnd,
        Age,
        DirtyClear,
        WriteProtect,
        WriteTrack,
        WriteUntrack,
        Backend,
    ];
    let [first, (everything, ops), ..] = Scope::standard();
    [first, (everything, ops - 1), (everything.only(&kinds), ops)]
}

/// Judge every program of `scope`; what an oracle objects to is shown with its length and not made longer.
fn explore(
    mmu: &mut Box<dyn Mmu>,
    scope: &Scope,
    ops: usize,
    mut objection: impl FnMut(usize, Signature) -> ControlFlow<()>,
) {
    let mut run = Lockstep::default();
    scope.explore(ops, &mut |program, _| match run.run(mmu, program) {
        None => Answer::Ended(run.last_exit().unwrap_or(Exit::Unsupported)),
        Some(violation) => match objection(program.ops.len(), violation.signature) {
            ControlFlow::Continue(()) => Answer::Cut,
            ControlFlow::Break(()) => Answer::Stop,
        },
    });
}

fn first(mmu: &mut Box<dyn Mmu>, scope: &Scope, ops: usize) -> Option<(usize, Signature)> {
    let mut found = None;
    explore(mmu, scope, ops, |ops, signature| {
        found = Some((ops, signature));
        ControlFlow::Break(())
    });
    found
}

/// Every way in which a law is broken.
fn all(mmu: &mut Box<dyn Mmu>, scope: &Scope, ops: usize) -> BTreeSet<Signature> {
    let mut found = BTreeSet::new();
    explore(mmu, scope, ops, |_, signature| {
        found.insert(signature);
        ControlFlow::Continue(())
    });
    found
}

#[test]
fn most_mutants_die_within_the_bounds_of_the_gate() {
    let (mut table, mut dead) = (String::new(), 0);
    for mutant in mutants::ALL {
        let mut mmu = mutant.mmu();
        let found =
            bounds().into_iter().enumerate().find_map(|(at, (scope, ops))| Some((at, first(&mut mmu, &scope, ops)?)));
        let how = match found {
            Some((bound, (ops, signature))) => {
                dead += 1;
                format!("bound {bound}, {ops} ops  {signature}")
            }
            None => "lives".into(),
        };
        let _ = writeln!(table, "{:<30} {how}", mutant.name);
    }
    insta::assert_snapshot!("deaths", format!("{dead} of {} mutants die\n\n{table}", mutants::ALL.len()));
}

/// Those that need rings, a zap that yields, pages made obsolete or paged out: none of them dies in the scopes before these.
#[test]
fn each_of_the_last_standard_scopes_has_mutants_that_die_there() {
    let [.., rings, yields, obsolete, waits] = Scope::standard();
    let cases = [
        (rings, "M80V-ring-by-raw"),
        (rings, "M8T-reset-by-count"),
        (rings, "M8U-reset-unflushed"),
        (yields, "B01-yield-owing"),
        (yields, "B12-restart-advances"),
        (obsolete, "M2W-obsolete-found"),
        (obsolete, "M2X-obsolete-unflushed"),
        (waits, "M84-apf-dedupe-by-raw"),
        (waits, "M85-apf-ready-drops-alias"),
        (waits, "B42-apf-outlives-vcpu"),
    ];
    for ((scope, ops), name) in cases {
        let mutant = mutants::ALL.iter().find(|mutant| mutant.name == name).expect("a mutant");
        assert!(first(&mut mutant.mmu(), &scope, ops).is_some(), "{name} lives");
    }
}

/// The first uses everything that folding renames, for every kind of op; in the second, faults race with everything; in the
/// third, two frames make a large leaf.
fn tiny() -> [(Scope, usize); 3] {
    let races = "slot-create,slot-delete,read,write,fault-begin,fault-end,unmap,dirty-clear,backend";
    let large = scope(2, 1, 2, 1, "slot-create,slot-flags,read,write,execute,unmap,memory-type,attributes,nx-recover");
    let large = large.with_stride(256).expect("two frames in 2 MiB");
    [(scope(1, 3, 4, 2, ""), 2), (scope(1, 2, 4, 2, races), 3), (large, 3)]
}

#[test]
fn folding_changes_no_verdict_on_any_mutant() {
    let mut compared = 0;
    for mutant in mutants::ALL {
        let mut mmu = mutant.mmu();
        for (scope, ops) in tiny() {
            let (folded, unfolded) = (all(&mut mmu, &scope, ops), all(&mut mmu, &scope.unfolded(), ops));
            assert_eq!(folded, unfolded, "{}", mutant.name);
            compared += usize::from(!folded.is_empty());
        }
    }
    assert!(compared > mutants::ALL.len() / 2, "only {compared} comparisons had anything to compare");
    let mut corrected: Box<dyn Mmu> = Box::new(KvmMmu::<Corrected>::default());
    for (scope, ops) in tiny() {
        assert_eq!(all(&mut corrected, &scope.unfolded(), ops), BTreeSet::new());
    }
}
