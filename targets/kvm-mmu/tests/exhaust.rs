//! Exhaustive exploration has teeth: which mutants die within the bounds of the gate, and folding lets none escape.

use gpa_model::exhaust::{Answer, Scope};
use gpa_model::{Exit, Mmu, OpKind};
use gpa_oracles::{Lockstep, Signature};
use kvm_mmu::KvmMmu;
use kvm_mmu::mutants::{self, Mutant, Visitor};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::ControlFlow;

fn scope(frames: usize, slots: usize, aliases: usize, vcpus: u8, kinds: &str) -> Scope {
    let scope = Scope::new(frames, slots, aliases, vcpus).expect("a small scope");
    let kind = |name| OpKind::ALL.into_iter().find(|kind| kind.name() == name).expect("a kind of op");
    if kinds.is_empty() { scope } else { scope.only(&kinds.split(',').map(kind).collect::<Vec<_>>()) }
}

/// The standard scopes but the last, with PML: nothing dies there alone in so few ops.
fn bounds() -> impl Iterator<Item = (Scope, usize)> {
    Scope::standard().into_iter().take(3)
}

/// Judge every program of `scope`; what an oracle objects to is shown with its length and not made longer.
fn explore<M: Mmu>(scope: &Scope, ops: usize, mut objection: impl FnMut(usize, Signature) -> ControlFlow<()>) {
    let (mut run, mut mmu) = (Lockstep::default(), M::new(scope.vm()));
    scope.explore(ops, &mut |program, _| match run.run(&mut mmu, program) {
        None => Answer::Ended(run.last_exit().unwrap_or(Exit::Unsupported)),
        Some(violation) => match objection(program.ops.len(), violation.signature) {
            ControlFlow::Continue(()) => Answer::Cut,
            ControlFlow::Break(()) => Answer::Stop,
        },
    });
}

fn first<M: Mmu>(scope: &Scope, ops: usize) -> Option<(usize, Signature)> {
    let mut found = None;
    explore::<M>(scope, ops, |ops, signature| {
        found = Some((ops, signature));
        ControlFlow::Break(())
    });
    found
}

/// Every way in which a law is broken.
fn all<M: Mmu>(scope: &Scope, ops: usize) -> BTreeSet<Signature> {
    let mut found = BTreeSet::new();
    explore::<M>(scope, ops, |_, signature| {
        found.insert(signature);
        ControlFlow::Continue(())
    });
    found
}

#[test]
fn most_mutants_die_within_the_bounds_of_the_gate() {
    #[derive(Default)]
    struct Deaths {
        table: String,
        dead: usize,
    }
    impl Visitor for Deaths {
        fn visit<M: Mmu + 'static>(&mut self, mutant: &Mutant) {
            let found = bounds().enumerate().find_map(|(at, (scope, ops))| Some((at, first::<M>(&scope, ops)?)));
            let how = match found {
                Some((bound, (ops, signature))) => {
                    self.dead += 1;
                    format!("bound {bound}, {ops} ops  {signature}")
                }
                None => "lives".into(),
            };
            let _ = writeln!(self.table, "{:<30} {how}", mutant.name);
        }
    }
    let mut deaths = Deaths::default();
    mutants::visit_all(&mut deaths);
    let Deaths { table, dead } = deaths;
    insta::assert_snapshot!("deaths", format!("{dead} of {} mutants die\n\n{table}", mutants::ALL.len()));
}

/// The first uses everything that folding renames, for every kind of op; in the second, faults race with everything.
fn tiny() -> [(Scope, usize); 2] {
    let kinds = "slot-create,slot-delete,read,write,fault-begin,fault-end,unmap,dirty-clear,backend";
    [(scope(1, 3, 4, 2, ""), 2), (scope(1, 2, 4, 2, kinds), 3)]
}

#[test]
fn folding_changes_no_verdict_on_any_mutant() {
    struct Compared(usize);
    impl Visitor for Compared {
        fn visit<M: Mmu + 'static>(&mut self, mutant: &Mutant) {
            for (scope, ops) in tiny() {
                let (folded, unfolded) = (all::<M>(&scope, ops), all::<M>(&scope.unfolded(), ops));
                assert_eq!(folded, unfolded, "{}", mutant.name);
                self.0 += usize::from(!folded.is_empty());
            }
        }
    }
    let mut compared = Compared(0);
    mutants::visit_all(&mut compared);
    assert!(compared.0 > mutants::ALL.len() / 2, "only {} comparisons had anything to compare", compared.0);
    for (scope, ops) in tiny() {
        assert_eq!(all::<KvmMmu>(&scope.unfolded(), ops), BTreeSet::new());
    }
}
