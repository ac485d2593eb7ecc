//! What a user would demand of the model, proved about the model alone: in every state that a few ops can reach.
//!
//! The scope is small and the search exhaustive: a user slot, a private slot beside it, and all ops on them, whole and in
//! halves. Each op is answered in every way the model allows.

use gpa_model::Rights;
use gpa_model::limits::FRAMES;
use gpa_model::{
    Access, Alias, Allowed, BackendMode, Entitled, Exit, Fault, FrameSet, Host, HostPage, HostPageRange, Model, Op,
    SlotChange, SlotFlags, SlotId, SlotKind, StolenMask, VmConfig,
};
use std::fmt;

/// Frames of the user slot, of the private slot right after it, where the user slot moves to, and one that stays a hole.
const USER: usize = 0;
const PRIVATE: usize = 2;
const MOVED: usize = 3;
const FRAMES_SEEN: usize = 6;
const USER_ID: SlotId = SlotId::user(0);
const PRIVATE_ID: SlotId = SlotId::internal(0);

fn vm(bits: &[u8]) -> VmConfig {
    VmConfig::new(StolenMask::new(bits).unwrap(), 2, VmConfig::DEFAULT_BASE, BackendMode::Works).unwrap()
}

fn alphabet(vm: &VmConfig) -> Vec<Op> {
    let flags = |readonly, log_dirty| SlotFlags { readonly, log_dirty };
    let create =
        |frame, pages, hva, flags| SlotChange::Create { gfn: vm.gfn(frame), pages, hva: HostPage::new(hva), flags };
    let user = [
        create(USER, 2, 0, flags(false, true)),
        create(USER, 2, 0, flags(true, false)),
        SlotChange::Delete,
        SlotChange::Move { gfn: vm.gfn(MOVED) },
        SlotChange::Flags(flags(false, false)),
        SlotChange::Flags(flags(false, true)),
        SlotChange::Flags(flags(true, true)),
    ];
    let whole = user.map(|change| Op::Slot { id: USER_ID, change });
    let begun = user.map(|change| Op::SlotBegin { id: USER_ID, change });
    let private = [create(PRIVATE, 1, 4, flags(false, false)), SlotChange::Delete];
    let private = private.map(|change| Op::Slot { id: PRIVATE_ID, change });
    let begun_private = Op::SlotBegin { id: PRIVATE_ID, change: SlotChange::Delete };
    let range = HostPageRange { start: HostPage::new(0), pages: 1 };
    let last = vm.stolen().alias_count() - 1;
    let access = |frame, alias, access| Op::Access { vcpu: 0, gpa: vm.gpa(frame, alias), access };
    let fault = |frame, alias| Op::FaultBegin { vcpu: 1, gpa: vm.gpa(frame, alias), access: Access::Write };
    let mut ops = [whole, begun].concat();
    ops.extend(private);
    ops.extend([
        begun_private,
        Op::SlotEnd,
        access(USER, 0, Access::Write),
        access(USER, last, Access::Write),
        access(USER, last, Access::Read),
        access(USER + 1, last, Access::Execute),
        access(PRIVATE, last, Access::Write),
        access(PRIVATE, 0, Access::Read),
        fault(USER, last),
        fault(PRIVATE, last),
        Op::FaultEnd { vcpu: 1 },
        Op::Unmap { range, by: None },
        Op::UnmapBegin { window: 0, range },
        Op::UnmapBegin { window: 1, range: HostPageRange { start: HostPage::new(0), pages: 8 } },
        Op::UnmapEnd { window: 0 },
        Op::UnmapEnd { window: 1 },
        Op::Age { range },
        Op::DirtyGet { id: USER_ID },
        Op::DirtyClear { id: USER_ID, gfn: vm.gfn(USER), pages: 1 },
        Op::WriteProtect { gfn: vm.gfn(USER) },
        Op::Translate { vcpu: 0, table: vm.gpa(USER, last), leaf: vm.gpa(USER + 1, last) },
    ]);
    ops
}

/// A model and its host, and the ops that led there.
#[derive(Clone)]
struct State {
    model: Model,
    host: Host,
    path: Path,
}

/// The most ops of a path.
const DEPTH: usize = 5;

/// Up to [`DEPTH`] ops, copied without allocating, because states are copied a million times.
#[derive(Clone, Copy)]
struct Path([Option<Op>; DEPTH]);

impl Path {
    fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    fn push(&mut self, op: Op) {
        self.0[self.len()] = Some(op);
    }

    fn last(&self) -> Op {
        self.0[self.len() - 1].expect("an op led here")
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().flatten()).finish()
    }
}

/// A step between two states: where it began, what was allowed, what was answered.
type Step<'a> = (&'a State, &'a Allowed, &'a Exit);

impl State {
    fn entitled(&self, frame: usize, alias: Alias) -> Entitled {
        self.model.entitled(&self.host, frame, alias)
    }

    /// Every answer that `allowed` admits. The sets are those that make the most difference.
    fn answers(&self, vm: &VmConfig, allowed: &Allowed, op: &Op) -> Vec<Exit> {
        let gpa = match *op {
            Op::Access { gpa, .. } | Op::FaultBegin { gpa, .. } => gpa,
            _ => self.model.pending_fault(1).map_or(vm.gpa(0, 0), |(gpa, _)| gpa),
        };
        let (must, may) = allowed.dirty.unwrap_or_default();
        let mut exits = vec![
            Exit::Done,
            Exit::Mmio(gpa),
            Exit::Retry,
            Exit::Pending,
            Exit::Dirty(must),
            Exit::Dirty(may),
            Exit::Young(true),
            Exit::GuestFault(Fault::NotPresent),
            Exit::Error,
        ];
        exits.extend(allowed.memory.map(Exit::Memory));
        exits.extend(allowed.translated.map(Exit::Translated));
        exits.retain(|exit| allowed.admits(exit));
        exits.dedup();
        exits
    }
}

/// Visit every state within `depth` ops, and every step between them.
fn explore(bits: &[u8], depth: usize, visit: &mut dyn FnMut(&State, Option<Step<'_>>)) -> usize {
    let vm = vm(bits);
    let ops = alphabet(&vm);
    let start = State { model: Model::new(&vm), host: Host::new(&vm), path: Path([None; DEPTH]) };
    visit(&start, None);
    let mut steps = 0;
    let mut states = vec![start];
    while let Some(before) = states.pop() {
        for op in ops.iter().filter(|op| before.model.accepts(&before.host, op)) {
            let mut host = before.host.clone();
            host.apply(op);
            let allowed = before.model.clone().step(&host, op, &Exit::Unsupported);
            let answers = before.answers(&vm, &allowed, op);
            assert!(!answers.is_empty(), "no answer is right: {op:?} after {:?}", before.path);
            for exit in answers {
                let mut after = State { host: host.clone(), ..before.clone() };
                let now = after.model.step(&after.host, op, &exit);
                assert_eq!(
                    now, allowed,
                    "what is right depends on the answer {exit:?}: {op:?} after {:?}",
                    before.path
                );
                after.path.push(*op);
                visit(&after, Some((&before, &allowed, &exit)));
                steps += 1;
                if after.path.len() < depth {
                    states.push(after);
                }
            }
        }
    }
    steps
}

/// One stolen bit deep, two less deep: more aliases add names, not kinds of state.
fn everywhere(mut visit: impl FnMut(&State, Option<Step<'_>>)) {
    let steps = explore(&[40], DEPTH, &mut visit) + explore(&[30, 45], DEPTH - 1, &mut visit);
    assert!(steps > 1_000_000, "only {steps} steps: the alphabet has lost its meaning");
}

fn aliases(state: &State) -> Vec<Alias> {
    state.model.vm().stolen().aliases().collect()
}

#[test]
fn every_alias_of_a_user_page_is_that_page() {
    let mut compared = 0;
    everywhere(|state, _| {
        let user = state.model.slot_frames(USER_ID);
        for frame in user.iter() {
            let base = state.entitled(frame, Alias::NONE);
            for alias in aliases(state) {
                assert_eq!(state.entitled(frame, alias), base, "frame {frame}, {alias:?} after {:?}", state.path);
            }
            compared += usize::from(matches!(base, Entitled::Memory(..)));
        }
    });
    assert!(compared > 10_000);
}

#[test]
fn an_alias_of_a_private_slot_or_a_hole_is_never_memory() {
    let mut bases = 0;
    everywhere(|state, _| {
        let private = state.model.slot_frames(PRIVATE_ID);
        for frame in 0..FRAMES_SEEN {
            let kind = state.model.slot_kind(frame);
            if !private.contains(frame) && kind != SlotKind::Hole {
                continue;
            }
            assert!(state.model.alias_holes().contains(frame), "frame {frame} after {:?}", state.path);
            for alias in aliases(state).into_iter().filter(|alias| !alias.is_none()) {
                assert_eq!(state.entitled(frame, alias), Entitled::Hole, "frame {frame} after {:?}", state.path);
            }
            bases += usize::from(matches!(state.entitled(frame, Alias::NONE), Entitled::Memory(..)));
        }
    });
    assert!(bases > 1_000, "the base name of a private slot works");
}

#[test]
fn nothing_is_entitled_while_its_slot_or_page_is_being_taken_away() {
    let (mut invalid, mut invalidating) = (0, 0);
    everywhere(|state, _| {
        let windows = [0, 1].into_iter().filter_map(|window| state.host.window(window));
        let unmapping = windows.fold(FrameSet::EMPTY, |all, range| all.union(state.model.frames_of(range)));
        for frame in 0..FRAMES_SEEN {
            let gone = state.model.slot_kind(frame) == SlotKind::Invalid;
            if gone || unmapping.contains(frame) {
                invalid += usize::from(gone);
                invalidating += usize::from(unmapping.contains(frame));
                for alias in aliases(state) {
                    let entitled = state.entitled(frame, alias);
                    assert!(!matches!(entitled, Entitled::Memory(..)), "frame {frame} after {:?}", state.path);
                }
            }
        }
    });
    assert!(invalid > 1_000 && invalidating > 1_000);
}

#[test]
fn a_page_that_was_unmapped_is_never_seen_again() {
    let mut replaced = 0;
    everywhere(|state, step| {
        let Some((before, ..)) = step else { return };
        let range = match state.path.last() {
            Op::Unmap { range, .. } => range,
            Op::UnmapEnd { window } => before.host.window(window).unwrap(),
            _ => return,
        };
        for hva in range.iter() {
            let new = state.host.pfn(hva);
            for other in 0..gpa_model::limits::HOST_PAGES as u64 {
                assert_ne!(before.host.pfn(HostPage::new(other)), new, "{hva:?} after {:?}", state.path);
            }
        }
        for frame in state.model.frames_of(range).iter() {
            let old = before.entitled(frame, Alias::NONE);
            if let Entitled::Memory(new, _) = state.entitled(frame, Alias::NONE) {
                assert!(!matches!(old, Entitled::Memory(old, _) if old == new), "frame {frame} after {:?}", state.path);
                replaced += 1;
            }
        }
    });
    assert!(replaced > 1_000);
}

#[test]
fn what_must_be_in_the_log_may_be_in_it_and_belongs_to_the_slot() {
    let (mut must_not_be_empty, mut slack) = (0, 0);
    let mut check = |state: &State| {
        let get = Op::DirtyGet { id: USER_ID };
        if !state.model.accepts(&state.host, &get) {
            return;
        }
        let allowed = state.model.clone().step(&state.host, &get, &Exit::Done);
        let (must, may) = allowed.dirty.unwrap();
        assert!(must.minus(may).is_empty(), "{must:?} of {may:?} after {:?}", state.path);
        assert!(may.minus(state.model.slot_frames(USER_ID)).is_empty(), "{may:?} after {:?}", state.path);
        must_not_be_empty += usize::from(!must.is_empty());
        slack += usize::from(must != may);
    };
    everywhere(|state, _| {
        check(state);
        // And after the target was seen to hold writable translations, of any frames.
        for seen in [FrameSet::one(USER), FrameSet::ALL] {
            let mut state = state.clone();
            state.model.writable_seen(seen, seen);
            check(&state);
        }
    });
    assert!(must_not_be_empty > 1_000 && slack > 100);
}

#[test]
fn a_write_that_reached_logged_memory_is_in_the_log_under_every_name() {
    let mut written = 0;
    everywhere(|state, step| {
        let Some((_, _, exit)) = step else { return };
        let Op::Access { gpa, access: Access::Write, .. } = state.path.last() else { return };
        let get = Op::DirtyGet { id: USER_ID };
        let (frame, _) = state.model.vm().locate(gpa).unwrap();
        let logged = state.model.slot_kind(frame) == SlotKind::Logged && !state.model.slot_change_pending();
        if logged && matches!(exit, Exit::Memory(_)) && state.model.accepts(&state.host, &get) {
            let (must, _) = state.model.clone().step(&state.host, &get, &Exit::Done).dirty.unwrap();
            assert!(must.contains(frame), "frame {frame} after {:?}", state.path);
            written += 1;
        }
    });
    assert!(written > 500);
}

#[test]
fn an_access_may_reach_memory_exactly_if_it_is_entitled_to_it() {
    let mut reached = 0;
    everywhere(|state, step| {
        let Some((before, allowed, _)) = step else { return };
        let Op::Access { gpa, access, .. } = state.path.last() else { return };
        let (frame, alias) = state.model.vm().locate(gpa).unwrap();
        let entitled = before.entitled(frame, alias);
        let needed = Rights::needed(access);
        let memory = match entitled {
            Entitled::Memory(pfn, rights) if rights.contains(needed) => Some(pfn),
            _ => None,
        };
        assert_eq!(allowed.memory, memory, "{entitled:?} after {:?}", state.path);
        let exits = match entitled {
            Entitled::Hole => true,
            Entitled::Memory(_, rights) => !rights.contains(needed),
            // Here only a write to a read-only slot exits, because that is looked at first.
            Entitled::InFlux | Entitled::NoPage => {
                access == Access::Write && before.model.slot_kind(frame) == SlotKind::ReadOnly
            }
            Entitled::OtherKind => panic!("no VM here has a shared bit"),
        };
        assert_eq!(allowed.mmio, exits.then_some(gpa), "{entitled:?} after {:?}", state.path);
        let busy = before.model.slot_change_pending() || before.host.any_invalidating();
        assert!(!allowed.retry || busy, "a retry without a reason after {:?}", state.path);
        reached += usize::from(memory.is_some());
    });
    assert!(reached > 1_000);
}

#[test]
fn what_an_op_changes_it_says_it_changes() {
    let mut changes = 0;
    everywhere(|state, step| {
        let Some((before, allowed, _)) = step else { return };
        for frame in 0..FRAMES_SEEN.min(FRAMES) {
            for alias in aliases(state) {
                if state.entitled(frame, alias) != before.entitled(frame, alias) {
                    assert!(allowed.changed.contains(frame), "frame {frame}, {alias:?} after {:?}", state.path);
                    changes += 1;
                }
            }
        }
    });
    assert!(changes > 1_000);
}

#[test]
fn only_what_takes_memory_away_or_gives_it_changes_what_the_guest_is_entitled_to() {
    everywhere(|state, step| {
        let Some((before, ..)) = step else { return };
        let op = state.path.last();
        let slots = matches!(op, Op::Slot { .. } | Op::SlotBegin { .. } | Op::SlotEnd);
        let host = matches!(op, Op::Unmap { .. } | Op::UnmapBegin { .. } | Op::UnmapEnd { .. });
        if slots || host {
            return;
        }
        for frame in 0..FRAMES_SEEN {
            for alias in aliases(state) {
                assert_eq!(state.entitled(frame, alias), before.entitled(frame, alias), "after {:?}", state.path);
            }
        }
    });
}
