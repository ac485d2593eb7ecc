//! Threads of the kernel: each has a stack and a task of its own, and they take turns at chosen points.
//!
//! The first is the one that loaded the kernel, and what it asks for runs on its own stack. Others are begun by it, may be held at a
//! [`Point`], and go on when it says so, or when it waits for something that one of them has.
//!
//! UNSAFETY: suspends a stack from deep inside of it.

#![expect(unsafe_code, reason = "suspends a stack from deep inside of it")]

use super::rescue::{self, Dead, call, die};
use crate::alarm::AlarmKind;
use crate::memory::stack;
use crate::single::Single;
use corosensei::stack::{DefaultStack, Stack};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::any::Any;

/// A place at which a thread of the kernel can be held while others run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// A page of the host was looked up (`get_user_pages`), and no lock of the MMU is held.
    PageLookup,
    /// The processor has left the guest with a fault that KVM has not handled.
    Fault,
    /// The vCPU is in the guest. When it goes on it leaves, as for an interrupt, and enters again.
    Guest,
    /// Inside `synchronize_srcu()`, before it looks for readers.
    Srcu,
    /// Inside `synchronize_rcu()`, before it looks for readers.
    Rcu,
    /// Where a lock is given up for others, as at `cond_resched_rwlock_write()`.
    Resched,
    /// It waits for another that is held: for a lock, for readers, for an invalidation to end. It was not asked to be held here.
    Blocked,
}

/// A thread that is held, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thread(usize);

/// What became of a thread's turn.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun<R> {
    /// It is held.
    Held(Thread, Point),
    /// It has ended, with this result.
    Finished(R),
}

type Result_ = Box<dyn Any>;

struct State {
    coroutine: Option<Coroutine<(), Point, Result_, DefaultStack>>,
    yielder: u64,
    stack_end: u64,
    task: u64,
    innermost: u64,
    stop_at: Vec<Point>,
    spinning: u32,
    rcu: u32,
    held: Option<Point>,
    result: Option<Result_>,
    /// A turn of it is under way.
    running: bool,
    /// The guest has faulted, and KVM has not begun to handle it.
    faulted: bool,
    /// How often it has offered to give way since it was asked for something.
    offers: u32,
}

/// All threads. Number 0 is the first.
pub(crate) struct Threads {
    all: Vec<State>,
    current: usize,
    /// The kernel's functions that give a thread a task, make it the current one, and make a signal pending for it.
    new_task: u64,
    switch_task: u64,
    signal: u64,
}

static THREADS: Single<Threads> =
    Single::new(Threads { all: Vec::new(), current: 0, new_task: 0, switch_task: 0, signal: 0 });

/// Stacks are larger than the kernel's: what it calls here formats text.
const STACK: usize = 256 << 10;

impl Threads {
    /// Begin with the first thread, whose task is `task`, and the kernel's functions that make a task, switch to one, and make
    /// a signal pending.
    pub(crate) fn start(task: u64, [new_task, switch_task, signal]: [u64; 3]) {
        let first = State { running: true, ..State::new(task, stack::end()) };
        THREADS.set(Self { all: vec![first], current: 0, new_task, switch_task, signal });
    }
}

impl State {
    fn new(task: u64, stack_end: u64) -> Self {
        Self {
            coroutine: None,
            yielder: 0,
            stack_end,
            task,
            innermost: 0,
            stop_at: Vec::new(),
            spinning: 0,
            rcu: 0,
            held: None,
            result: None,
            running: false,
            faulted: false,
            offers: 0,
        }
    }
}

/// Threads that there may be at once, besides the first: a vCPU each, and what the host does.
const THREADS_MAX: usize = 8;

/// Make a task for each thread that there may be, so that threads come and go without an allocation.
pub(crate) fn make_tasks() -> Result<(), Dead> {
    let new_task = THREADS.borrow().new_task;
    for _ in 0..THREADS_MAX {
        let task = call(new_task, &[])?;
        THREADS.borrow().all.push(State::new(task, 0));
    }
    Ok(())
}

/// The number of the thread that runs.
pub(crate) fn current() -> usize {
    THREADS.borrow().current
}

/// Begin a thread that does `task`, until it is at one of `stop_at` or has ended.
///
/// # Panics
/// If there are as many threads as there may be.
pub(crate) fn begin<R: 'static>(stop_at: &[Point], task: impl FnOnce() -> R + 'static) -> Begun<R> {
    let Ok(stack) = DefaultStack::new(STACK) else { panic!("expected room for the stack of a thread, found none") };
    let end = stack.base().get() as u64;
    let is_free = |state: &State| state.coroutine.is_none() && !state.running && state.result.is_none();
    let Some(index) = THREADS.borrow().all.iter().position(is_free) else {
        panic!("expected at most {THREADS_MAX} threads at once");
    };
    let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), Point>, ()| -> Result_ {
        THREADS.borrow().all[index].yielder = std::ptr::from_ref(yielder) as u64;
        Box::new(task())
    });
    {
        let state = &mut THREADS.borrow().all[index];
        let task = state.task;
        *state = State { coroutine: Some(coroutine), ..State::new(task, end) };
    }
    resume(Thread(index), stop_at)
}

/// Go on with a thread until it is at one of `stop_at` or has ended.
///
/// # Panics
/// If its result was taken already, or is not an `R`.
pub(crate) fn resume<R: 'static>(thread: Thread, stop_at: &[Point]) -> Begun<R> {
    let finished = THREADS.borrow().all[thread.0].result.is_some();
    if !finished {
        turn(thread.0, stop_at);
    }
    let mut threads = THREADS.borrow();
    let state = &mut threads.all[thread.0];
    if let Some(result) = state.result.take() {
        let Ok(result) = result.downcast() else { panic!("a thread gives what it was begun for") };
        return Begun::Finished(*result);
    }
    let Some(at) = state.held else { panic!("a thread is held, or has ended") };
    Begun::Held(thread, at)
}

/// One turn of thread `index`.
fn turn(index: usize, stop_at: &[Point]) {
    let (from, mut coroutine) = {
        let mut threads = THREADS.borrow();
        let from = std::mem::replace(&mut threads.current, index);
        let state = &mut threads.all[index];
        (state.stop_at, state.held, state.running) = (stop_at.to_vec(), None, true);
        let Some(coroutine) = state.coroutine.take() else { panic!("a thread that has ended gets no turn") };
        (from, coroutine)
    };
    enter(from, index);
    let result = coroutine.resume(());
    leave(index, from);
    let mut threads = THREADS.borrow();
    threads.current = from;
    let state = &mut threads.all[index];
    state.running = false;
    match result {
        CoroutineResult::Yield(point) => (state.coroutine, state.held) = (Some(coroutine), Some(point)),
        CoroutineResult::Return(result) => state.result = Some(result),
    }
}

/// What goes with the stack: its end, the way out of it, the kernel's task.
fn enter(from: usize, to: usize) {
    let (end, innermost, task, switch) = {
        let threads = THREADS.borrow();
        let next = &threads.all[to];
        (next.stack_end, next.innermost, next.task, threads.switch_task)
    };
    // Before anything else changes, because the vCPU is put where it was.
    let _ = call(switch, &[task]);
    stack::set_end(end);
    let outer = rescue::exchange_innermost(innermost);
    THREADS.borrow().all[from].innermost = outer;
}

fn leave(from: usize, to: usize) {
    let innermost = rescue::exchange_innermost(0);
    THREADS.borrow().all[from].innermost = innermost;
    let (end, outer, task, switch) = {
        let threads = THREADS.borrow();
        let next = &threads.all[to];
        (next.stack_end, next.innermost, next.task, threads.switch_task)
    };
    stack::set_end(end);
    rescue::exchange_innermost(outer);
    let _ = call(switch, &[task]);
}

/// Suspend the thread that runs.
fn suspend(point: Point) {
    let yielder = {
        let threads = THREADS.borrow();
        threads.all[threads.current].yielder
    };
    // SAFETY: of the coroutine that runs, which is not the first thread.
    unsafe { (*(yielder as *const Yielder<(), Point>)).suspend(point) };
}

/// The thread that runs is at `point`: it is held there if that was asked for. Whether it was.
pub(crate) fn point(point: Point) -> bool {
    let held = {
        let threads = THREADS.borrow();
        let state = &threads.all[threads.current];
        let is_there = match point {
            Point::PageLookup => state.spinning == 0,
            Point::Fault => state.faulted,
            _ => true,
        };
        threads.current != 0 && is_there && state.stop_at.contains(&point)
    };
    if held {
        suspend(point);
    }
    held
}

/// The guest has faulted: [`Point::Fault`] is where the kernel begins to handle it.
pub(crate) fn set_faulted(faulted: bool) {
    let mut threads = THREADS.borrow();
    let current = threads.current;
    threads.all[current].faulted = faulted;
}

/// The thread that runs offers to give way: how often it has, since [`forget_offers`].
pub(crate) fn offer() -> u32 {
    let mut threads = THREADS.borrow();
    let current = threads.current;
    threads.all[current].offers += 1;
    threads.all[current].offers
}

/// A signal is pending for the thread that runs, so that what it does ends soon.
pub(crate) fn give_up() {
    let signal = THREADS.borrow().signal;
    // A kernel that has died makes no signal, and needs none.
    let _ = call(signal, &[]);
}

/// The thread that runs begins with something new.
pub(crate) fn forget_offers() {
    let mut threads = THREADS.borrow();
    let current = threads.current;
    threads.all[current].offers = 0;
}

/// Whether the thread that runs is to be held at `point`.
pub(crate) fn stops_at(point: Point) -> bool {
    let threads = THREADS.borrow();
    threads.current != 0 && threads.all[threads.current].stop_at.contains(&point)
}

/// Wait until `condition`; others run until then. If none can bring it about, the thread is held, or the kernel dies.
pub(crate) fn block_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        give_way();
    }
}

/// Give way: the first thread lets others run, for which it is the driver that decides otherwise.
pub(crate) fn give_way() {
    if current() != 0 {
        suspend(Point::Blocked);
    } else if !run_another() {
        die(AlarmKind::Deadlock, "it waits for what no thread can bring about");
    }
}

/// Let a thread that is held go on to its end, or to where it is blocked. Whether there was one that is not blocked.
fn run_another() -> bool {
    let next = {
        let threads = THREADS.borrow();
        threads.all.iter().position(|state| !state.running && state.held.is_some_and(|at| at != Point::Blocked))
    };
    // One that was blocked may be able to go on by now.
    let next = next.or_else(|| {
        let threads = THREADS.borrow();
        threads.all.iter().position(|state| !state.running && state.held == Some(Point::Blocked))
    });
    let Some(next) = next else { return false };
    turn(next, &[]);
    let threads = THREADS.borrow();
    threads.all[next].held != Some(Point::Blocked)
}

/// The thread that runs takes (`1`) or gives back (`-1`) a lock that spins.
pub(crate) fn spin(change: i32) {
    let mut threads = THREADS.borrow();
    let current = threads.current;
    let state = &mut threads.all[current];
    state.spinning = state.spinning.wrapping_add_signed(change);
}

/// The thread that runs enters (`1`) or leaves (`-1`) a section that RCU protects.
pub(crate) fn rcu(change: i32) {
    let mut threads = THREADS.borrow();
    let current = threads.current;
    let state = &mut threads.all[current];
    state.rcu = state.rcu.wrapping_add_signed(change);
}

/// Whether another thread is in a section that RCU protects.
pub(crate) fn others_in_rcu() -> bool {
    let threads = THREADS.borrow();
    threads.all.iter().enumerate().any(|(index, state)| index != threads.current && state.rcu > 0)
}
