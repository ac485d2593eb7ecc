//! What the kernel objects to, and what its surroundings here object to: kept until the driver asks, in order with other events.

use crate::loader;
use crate::single::Single;

/// What the kernel, or its surroundings here, objected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What kind.
    pub kind: AlarmKind,
    /// The function in which it happened, and where it is known the file and line.
    pub place: String,
    /// More about it.
    pub text: String,
    /// Functions, innermost first. Return addresses are found by a scan of the stack, so some may be stale.
    pub backtrace: Vec<String>,
}

/// Kinds of [`Alarm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmKind {
    /// `WARN()`.
    Warn,
    /// `BUG()`; the kernel is dead.
    Bug,
    /// An access to memory that is not there, or another exception; the kernel is dead.
    Oops,
    /// A list that is not sound (`CONFIG_LIST_HARDENED`).
    ListCorruption,
    /// A write past an object, or to one that was freed.
    MemoryCorruption,
    /// An object was freed twice, or was never allocated.
    BadFree,
    /// Objects are left after their VM is gone.
    Leak,
    /// Something was used that nothing here answers; the kernel is dead.
    Unanswered,
    /// It waits for what cannot come; the kernel is dead.
    Deadlock,
}

/// Something that happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `kvm_flush_remote_tlbs()` was called.
    FlushAll,
    /// `kvm_flush_remote_tlbs_range()` was called.
    FlushRange {
        /// First frame.
        gfn: u64,
        /// How many.
        pages: u64,
    },
    /// The back-end `kvm_x86_ops.flush_remote_tlbs_range` was called.
    BackendRange {
        /// First frame.
        gfn: u64,
        /// How many.
        pages: u64,
        /// Whether it answered that it failed.
        failed: bool,
    },
    /// The back-end `kvm_x86_ops.flush_remote_tlbs` was called.
    BackendAll,
    /// The processor was told to drop translations when it entered the guest.
    TlbFlushed {
        /// Of the vCPU with this id.
        vcpu: u32,
    },
    /// Who tracks writes was told of one.
    Tracked {
        /// Where.
        gpa: u64,
        /// How many bytes.
        bytes: u32,
    },
    /// A line of the kernel's log.
    Log(String),
    /// The kernel objects, or dies.
    Alarm(Alarm),
}

/// Events that are kept; what comes after them is lost, but for the last alarm.
const EVENTS_MAX: usize = 4096;

struct Record {
    events: Vec<Event>,
    /// What `WARN()` was given to say.
    text: String,
    fatal: Option<fn(&Alarm)>,
    dead: bool,
}

static RECORD: Single<Record> =
    Single::new(Record { events: Vec::new(), text: String::new(), fatal: None, dead: false });

/// Keep `event`.
pub(crate) fn note(event: Event) {
    let mut record = RECORD.borrow();
    if record.events.len() < EVENTS_MAX {
        record.events.push(event);
    }
}

/// What happened since this was asked last.
pub(crate) fn take() -> Vec<Event> {
    std::mem::take(&mut RECORD.borrow().events)
}

/// What the next `WARN()` says.
pub(crate) fn set_text(text: String) {
    RECORD.borrow().text = text;
}

/// Call `hook` when the kernel dies, before anything else is done.
pub(crate) fn on_death(hook: fn(&Alarm)) {
    RECORD.borrow().fatal = Some(hook);
}

/// Whether the kernel has died.
pub(crate) fn is_dead() -> bool {
    RECORD.borrow().dead
}

/// Raise an alarm about what runs now; `place` is found in the backtrace.
pub(crate) fn raise(kind: AlarmKind, text: String) {
    let backtrace = loader::backtrace_here();
    let place = backtrace.first().cloned().unwrap_or_default();
    keep(Alarm { kind, place, text, backtrace });
}

/// Keep an alarm. What a `WARN()` was given to say is part of it.
pub(crate) fn keep(mut alarm: Alarm) {
    let text = std::mem::take(&mut RECORD.borrow().text);
    if alarm.text.is_empty() {
        alarm.text = text.trim_end().to_owned();
    }
    if is_list_check(&alarm) {
        alarm.kind = AlarmKind::ListCorruption;
    }
    note(Event::Alarm(alarm));
}

/// Keep an alarm that the kernel does not survive.
pub(crate) fn keep_fatal(alarm: &Alarm) {
    let hook = {
        let mut record = RECORD.borrow();
        record.dead = true;
        record.events.push(Event::Alarm(alarm.clone()));
        record.fatal
    };
    if let Some(hook) = hook {
        hook(alarm);
    }
}

fn is_list_check(alarm: &Alarm) -> bool {
    alarm.kind == AlarmKind::Warn && alarm.place.contains("__list_")
}
