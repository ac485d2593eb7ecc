//! Exhaustive exploration: what it visits, and that folding leaves out renamings only.

use gpa_model::exhaust::{Answer, Explored, Scope, ScopeError, Visit};
use gpa_model::{Exit, Gpa, Gpte, Host, Model, Op, OpKind, Program, SlotChange, SlotId, VmConfig, text};
use std::collections::BTreeSet;

fn scope(frames: usize, slots: usize, aliases: usize, vcpus: u8) -> Scope {
    Scope::new(frames, slots, aliases, vcpus).unwrap()
}

/// Every program visited for the first time, with a target that leaves every fault pending.
fn programs(scope: &Scope, ops: usize) -> Vec<(Program, Visit)> {
    let mut programs = Vec::new();
    let explored = scope.explore(ops, &mut |program, visit| {
        if visit.first {
            programs.push((program.clone(), visit));
        }
        Answer::Ended(exit(program))
    });
    assert!(explored.all);
    programs
}

fn exit(program: &Program) -> Exit {
    if matches!(program.ops.last(), Some(Op::FaultBegin { .. })) { Exit::Pending } else { Exit::Done }
}

/// Kinds of op that between them use every name that folding renames.
const NAMED: [OpKind; 7] = [
    OpKind::SlotCreate,
    OpKind::SlotDelete,
    OpKind::Read,
    OpKind::FaultBegin,
    OpKind::FaultEnd,
    OpKind::UnmapBegin,
    OpKind::UnmapEnd,
];

fn named() -> Scope {
    scope(1, 3, 4, 2).only(&NAMED)
}

#[test]
fn each_program_comes_once_and_shorter_ones_first() {
    let all = programs(&scope(2, 2, 2, 2), 2);
    let distinct: BTreeSet<String> = all.iter().map(|(program, _)| text::print(program)).collect();
    assert_eq!(distinct.len(), all.len());
    assert!(all.is_sorted_by_key(|(program, _)| program.ops.len()));
    assert!(all.iter().is_sorted_by_key(|(program, visit)| (program.ops.len(), visit.permille)));
}

#[test]
fn every_program_is_legal_and_no_op_of_it_would_be_skipped() {
    for (program, _) in programs(&scope(3, 2, 2, 2).only(&NAMED), 2) {
        assert_eq!(program.check(), Ok(()));
        let (mut model, mut host) = (Model::new(&program.vm), Host::new(&program.vm));
        for (at, op) in program.ops.iter().enumerate() {
            assert!(model.accepts(&host, op), "{}", text::print(&program));
            host.apply(op);
            let so_far = Program { ops: program.ops[..=at].to_vec(), ..program.clone() };
            model.step(&host, op, &exit(&so_far));
        }
    }
}

#[test]
fn every_kind_of_op_is_in_the_alphabet() {
    let (near, far) = (scope(2, 2, 2, 1), scope(2, 2, 2, 1).with_stride(256).unwrap().with_async_pf());
    let alphabet = far.alphabet();
    for kind in OpKind::ALL {
        assert!(alphabet.iter().any(|op| op.kind() == kind), "{}", kind.name());
    }
    assert_eq!(
        alphabet.len(),
        near.alphabet().len() + 2 + 20 + 6,
        "only where two frames make a large leaf there are huge pages, and frames are divided; not every host pages out memory"
    );
    let letters: BTreeSet<String> = alphabet.iter().map(|op| format!("{op:?}")).collect();
    assert_eq!(letters.len(), alphabet.len(), "an op is there twice");
}

/// Each name of a program replaced by its number in the order of first use.
fn renamed(program: &Program) -> String {
    let mut seen: [Vec<u64>; 5] = Default::default();
    let mut name = |class: usize, name: u64| {
        let at = seen[class].iter().position(|&seen| seen == name);
        at.unwrap_or_else(|| {
            seen[class].push(name);
            seen[class].len() - 1
        })
    };
    let mut out = String::new();
    for op in &program.ops {
        let private = |id: SlotId| if id.is_internal() { "p" } else { "u" };
        out += &match *op {
            Op::Slot { id, change } | Op::SlotBegin { id, change } => {
                let what = match change {
                    SlotChange::Create { hva, flags, .. } => format!("{flags:?} {}", name(4, hva.page())),
                    other => format!("{other:?}"),
                };
                format!(
                    "{} {}{} {what};",
                    op.kind().name(),
                    private(id),
                    name(usize::from(id.is_internal()), id.index() as u64)
                )
            }
            Op::Access { vcpu, gpa, .. } | Op::FaultBegin { vcpu, gpa, .. } => {
                let (_, alias) = program.vm.locate(gpa).unwrap();
                let number = program.vm.stolen().alias_index(alias) as u64;
                let alias =
                    if number == 1 || number == 2 { format!("bit {}", name(3, number)) } else { number.to_string() };
                format!("{} {} {alias};", op.kind().name(), name(2, vcpu.into()))
            }
            Op::FaultEnd { vcpu } => format!("end {};", name(2, vcpu.into())),
            _ => unreachable!("not one of the kinds"),
        };
    }
    out
}

#[test]
fn folding_leaves_one_program_of_each_set_that_differs_in_names_only() {
    let kinds = [OpKind::SlotCreate, OpKind::SlotDelete, OpKind::Read, OpKind::FaultBegin, OpKind::FaultEnd];
    let scope = scope(1, 3, 4, 2).only(&kinds);
    let folded: Vec<String> = programs(&scope, 3).iter().map(|(program, _)| renamed(program)).collect();
    let unfolded: BTreeSet<String> =
        programs(&scope.unfolded(), 3).iter().map(|(program, _)| renamed(program)).collect();
    let distinct: BTreeSet<String> = folded.iter().cloned().collect();
    assert_eq!(distinct.len(), folded.len(), "two programs differ in names only");
    assert_eq!(distinct, unfolded);
    assert!(folded.len() > 1_000, "{}", folded.len());
}

#[test]
fn a_folded_program_says_how_many_it_stands_for() {
    for (scope, ops) in [(named(), 3), (scope(2, 2, 2, 2), 2), (scope(1, 3, 4, 3), 2)] {
        let stands_for: u64 = programs(&scope, ops).iter().map(|(_, visit)| visit.symmetric).sum();
        let unfolded = programs(&scope.unfolded(), ops);
        assert!(unfolded.iter().all(|(_, visit)| visit.symmetric == 1));
        assert_eq!(stands_for, unfolded.len() as u64);
    }
}

/// The op with vCPUs, user slots, notifier windows and stolen bits 0 and 1 exchanged.
fn exchanged_gpa(vm: &VmConfig, gpa: Gpa) -> Gpa {
    let (frame, alias) = vm.locate(gpa).unwrap();
    let number = vm.stolen().alias_index(alias);
    vm.gpa(frame, number >> 1 & 1 | (number & 1) << 1)
}

fn exchanged(vm: &VmConfig, op: Op) -> Op {
    let slot = |id: SlotId| if id.is_internal() || id.index() > 1 { id } else { SlotId::user(1 - id.index() as u8) };
    let gpa = |gpa| exchanged_gpa(vm, gpa);
    match op {
        Op::Slot { id, change } => Op::Slot { id: slot(id), change },
        Op::SlotBegin { id, change } => Op::SlotBegin { id: slot(id), change },
        Op::SlotAliased { id, gpa: at, pages, hva } => Op::SlotAliased { id: slot(id), gpa: gpa(at), pages, hva },
        Op::Access { vcpu, gpa: at, access } => Op::Access { vcpu: 1 - vcpu, gpa: gpa(at), access },
        Op::FaultBegin { vcpu, gpa: at, access } => Op::FaultBegin { vcpu: 1 - vcpu, gpa: gpa(at), access },
        Op::Prefault { vcpu, gpa: at } => Op::Prefault { vcpu: 1 - vcpu, gpa: gpa(at) },
        Op::FaultEnd { vcpu } => Op::FaultEnd { vcpu: 1 - vcpu },
        Op::UnmapBegin { window, range } => Op::UnmapBegin { window: 1 - window, range },
        Op::UnmapEnd { window } => Op::UnmapEnd { window: 1 - window },
        Op::DirtyGet { id } => Op::DirtyGet { id: slot(id) },
        Op::DirtyClear { id, gfn, pages } => Op::DirtyClear { id: slot(id), gfn, pages },
        Op::WriteGpte { vcpu, gpa: at, index, gpte } => {
            Op::WriteGpte { vcpu: 1 - vcpu, gpa: gpa(at), index, gpte: Gpte::new(gpa(gpte.gpa()), gpte.flags()) }
        }
        Op::GuestWalk { vcpu, root, gva, access } => Op::GuestWalk { vcpu: 1 - vcpu, root: gpa(root), gva, access },
        Op::GuestAccess { vcpu, root, gva, access } => Op::GuestAccess { vcpu: 1 - vcpu, root: gpa(root), gva, access },
        Op::GuestFlush { vcpu } => Op::GuestFlush { vcpu: 1 - vcpu },
        Op::PageReady { vcpu } => Op::PageReady { vcpu: 1 - vcpu },
        Op::AsyncPfClear { vcpu } => Op::AsyncPfClear { vcpu: 1 - vcpu },
        Op::Translate { vcpu, table, leaf } => Op::Translate { vcpu: 1 - vcpu, table: gpa(table), leaf: gpa(leaf) },
        _ => op,
    }
}

#[test]
fn what_the_model_allows_does_not_depend_on_names() {
    let scope = scope(1, 3, 4, 2);
    let mut compared = 0;
    for (program, _) in programs(&scope, 3) {
        let mut sides = [(); 2].map(|()| (Model::new(&program.vm), Host::new(&program.vm)));
        for (at, op) in program.ops.iter().enumerate() {
            let so_far = Program { ops: program.ops[..=at].to_vec(), ..program.clone() };
            let [first, second] = &mut sides;
            let [first, second] = [(first, *op), (second, exchanged(&program.vm, *op))].map(|((model, host), op)| {
                assert!(model.accepts(host, &op), "{op:?}: {}", text::print(&so_far));
                host.apply(&op);
                host.settle(&op, &exit(&so_far));
                model.step(host, &op, &exit(&so_far))
            });
            // The address that user space is told is renamed with the rest.
            let mut first = first;
            first.mmio = first.mmio.map(|gpa| exchanged_gpa(&program.vm, gpa));
            for exit in &mut first.elsewhere {
                if let Exit::Mmio(gpa) = exit {
                    *gpa = exchanged_gpa(&program.vm, *gpa);
                }
            }
            assert_eq!(first, second, "{}", text::print(&so_far));
            compared += 1;
        }
    }
    assert!(compared > 100_000, "{compared}");
}

#[test]
fn what_is_cut_has_no_longer_programs_and_a_stop_ends_it() {
    let mut longest = 0;
    let explored = named().explore(3, &mut |program, _| {
        longest = longest.max(program.ops.len());
        Answer::Cut
    });
    // Nothing is gone on from but the VM as it is at first.
    assert_eq!((explored, longest), (Explored { all: true, states: 1 }, 1));
    let mut visits = 0;
    let explored = named().explore(3, &mut |_, _| {
        visits += 1;
        if visits == 10 { Answer::Stop } else { Answer::Ended(Exit::Done) }
    });
    assert_eq!((explored.all, visits), (false, 10));
}

#[test]
fn programs_that_lead_to_the_same_are_counted_as_one_state() {
    let scope = scope(1, 1, 2, 1).only(&[OpKind::SlotCreate, OpKind::Read, OpKind::WriteTrack, OpKind::Unmap]);
    let explored = scope.explore(3, &mut |program, _| Answer::Ended(exit(program)));
    // No slot; a slot with three sets of flags, plain or tracked. Reads leave a mark in the log of one that logs, and what is
    // unmapped comes back as it was.
    assert_eq!(explored, Explored { all: true, states: 1 + 3 * 2 + 1 });
}

#[test]
fn a_scope_with_too_much_is_refused() {
    let error = |frames, slots, aliases, vcpus| Scope::new(frames, slots, aliases, vcpus).unwrap_err();
    assert_eq!(error(9, 1, 1, 1), ScopeError::Frames(9));
    assert_eq!(error(1, 0, 1, 1), ScopeError::Slots(0));
    assert_eq!(error(1, 1, 3, 1), ScopeError::Aliases(3));
    insta::assert_snapshot!(error(1, 1, 1, 5), @"vCPUs: expected 1 to 4, found 5");
}
