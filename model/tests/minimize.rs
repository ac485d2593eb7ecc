//! What the minimiser gives back still shows the thing, needs each of its ops, and is the same every time.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::minimize::minimize;
use gpa_model::{Access, Exit, Host, Model, Op, OpKind, Program, SlotKind};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

fn generated(seed: u64) -> Program {
    let mut program = Program::default();
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(seed));
    Generator::new(Profile::default()).program(&mut choices, &mut program);
    program
}

/// A thing to show: a write through an alias to a slot of some kind, after so many invalidations were accepted.
fn capabilities(program: &Program, kind: SlotKind, unmaps: usize) -> bool {
    let (mut model, mut host) = (Model::new(&program.vm), Host::new(&program.vm));
    let mut seen = 0;
    for op in &program.ops {
        if !model.accepts(&host, op) {
            continue;
        }
        host.apply(op);
        model.step(&host, op, &Exit::Done);
        seen += usize::from(matches!(op.kind(), OpKind::Unmap | OpKind::UnmapEnd));
        if let Op::Access { gpa, access: Access::Write, .. } = *op
            && let Some((frame, alias)) = program.vm.locate(gpa)
            && !alias.is_none()
            && model.slot_kind(frame) == kind
            && seen >= unmaps
        {
            return true;
        }
    }
    false
}

/// Cases that a generated program shows, with what they show.
fn cases() -> Vec<(Program, SlotKind, usize)> {
    let kinds = [SlotKind::Hole, SlotKind::User, SlotKind::Logged, SlotKind::Internal, SlotKind::Invalid];
    let all = (0..600).flat_map(|seed| {
        let program = generated(seed);
        kinds.map(|kind| (program.clone(), kind, seed as usize % 3))
    });
    all.filter(|(program, kind, unmaps)| capabilities(program, *kind, *unmaps)).take(200).collect()
}

#[test]
fn the_result_shows_it_is_legal_and_no_longer() {
    let cases = cases();
    assert!(cases.len() > 100, "only {} cases", cases.len());
    for (program, kind, unmaps) in cases {
        let result = minimize(&program, |candidate| capabilities(candidate, kind, unmaps));
        assert!(capabilities(&result.program, kind, unmaps), "{:?}", result.program);
        assert_eq!(result.program.check(), Ok(()));
        assert_eq!(result.ops_before, program.ops.len());
        assert!(result.program.ops.len() <= program.ops.len());
        // A write needs itself, a slot unless it hits a hole, its begun change if it hits one, and the invalidations.
        let needed = match kind {
            SlotKind::Hole => 1,
            SlotKind::Invalid => 3,
            _ => 2,
        };
        // One more where a slot came to be of its kind by a change, and where it came to its place by one: the minimiser drops
        // ops, it does not merge them.
        let least = needed + unmaps;
        assert!(
            (least..=least + 2).contains(&result.program.ops.len()),
            "{kind:?}, {unmaps}: {:?}",
            result.program.ops
        );
    }
}

#[test]
fn no_op_of_the_result_can_be_left_out() {
    for (program, kind, unmaps) in cases() {
        let result = minimize(&program, |candidate| capabilities(candidate, kind, unmaps)).program;
        for at in 0..result.ops.len() {
            let mut shorter = result.clone();
            shorter.ops.remove(at);
            assert!(!capabilities(&shorter, kind, unmaps), "op {at} is not needed: {:?}", result.ops);
        }
    }
}

#[test]
fn the_same_program_gives_the_same_result_and_a_result_gives_itself() {
    for (program, kind, unmaps) in cases().into_iter().take(60) {
        let mut asked = 0;
        let first = minimize(&program, |candidate| {
            asked += 1;
            capabilities(candidate, kind, unmaps)
        });
        assert_eq!(first.executions, asked);
        assert_eq!(minimize(&program, |candidate| capabilities(candidate, kind, unmaps)), first);
        assert_eq!(minimize(&first.program, |candidate| capabilities(candidate, kind, unmaps)).program, first.program);
    }
}

#[test]
fn a_program_that_does_not_show_it_comes_back_unchanged() {
    let program = generated(1);
    let result = minimize(&program, |_| false);
    assert_eq!((result.program, result.executions), (program, 1));
}

#[test]
fn a_predicate_that_holds_for_all_leaves_no_op() {
    for seed in 0..100 {
        let result = minimize(&generated(seed), |_| true);
        assert_eq!(result.program.ops, []);
    }
}
