//! What happened beside the tables: flushes, alarms, and the kernel's log.

use super::Stop;
use super::machine::{Machine, odd};
use gpa_model::{Flush, Gpa, VcpuSet};
use kvm_ko::wire::{Alarm, AlarmKind, Answer, Record};
use kvm_ko_worker::kernel::{self, Event, Kernel};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::mem::ManuallyDrop;

/// Takes events from the kernel.
#[derive(Debug)]
pub(super) struct Notes {
    log: ManuallyDrop<File>,
    /// vCPUs that owed a flush after the last op.
    owed: VcpuSet,
}

impl Notes {
    /// What the kernel says goes to `log`.
    pub(super) fn new(log: ManuallyDrop<File>) -> Self {
        Self { log, owed: VcpuSet::NONE }
    }

    /// A program begins, with an empty log.
    pub(super) fn begin(&mut self) {
        self.owed = VcpuSet::NONE;
        // Who reads it stops at a zero. A log that cannot be written is empty.
        let _ =
            self.log.seek(SeekFrom::Start(0)).and_then(|_| self.log.write_all(&[0])).and_then(|()| self.log.rewind());
    }

    /// Add what happened since the last time.
    pub(super) fn take(&mut self, kernel: &Kernel, answer: &mut Answer<'_>) {
        for event in kernel.take_events() {
            match event {
                // What is asked for is judged by what the vCPUs owe afterwards.
                Event::FlushAll | Event::FlushRange { .. } | Event::Tracked { .. } => {}
                Event::BackendAll => answer.add(&Record::Flush(Flush::All { vcpus: VcpuSet::ALL })),
                Event::BackendRange { gfn, pages, failed } => {
                    answer.add(&Record::Flush(Flush::Range { gpa: Gpa::from_page(gfn), pages, ok: !failed }));
                }
                Event::TlbFlushed { vcpu } => {
                    let vcpus = VcpuSet::one(u8::try_from(vcpu).unwrap_or(0));
                    answer.add(&Record::Flush(Flush::All { vcpus }));
                }
                Event::Log(line) => self.say(&line),
                Event::Alarm(alarm) => {
                    let alarm = said(&alarm);
                    self.say(&format!("{}: {}", alarm.clause(), alarm.text));
                    answer.add(&Record::Alarm(Box::new(alarm)));
                }
            }
        }
    }

    /// An op has no result.
    pub(super) fn stopped(&mut self, stop: &Stop, answer: &mut Answer<'_>) {
        if let Stop::Odd(why) = stop {
            let (kind, function, text) = (AlarmKind::Odd, String::new(), why.clone());
            answer.add(&Record::Alarm(Box::new(Alarm { kind, function, text })));
        }
    }

    /// A vCPU that flushes before it enters the guest again has as good as flushed: add those that do since this op, and, if the op took
    /// any translation away, those that did already.
    pub(super) fn flushes_owed(
        &mut self,
        kernel: &Kernel,
        machine: &Machine,
        lost: bool,
        answer: &mut Answer<'_>,
    ) -> Result<(), Stop> {
        let mut rest = VcpuSet::ALL;
        for (vcpu, fd) in (0..).zip(&machine.vcpus) {
            if kernel.flush_pending(*fd).map_err(odd("look at a vCPU"))? {
                rest = rest.minus(VcpuSet::one(vcpu));
            }
        }
        let owed = VcpuSet::ALL.minus(rest);
        let vcpus = if lost { owed } else { owed.minus(self.owed) };
        self.owed = owed;
        if !vcpus.is_empty() {
            answer.add(&Record::Flush(Flush::All { vcpus }));
        }
        Ok(())
    }

    fn say(&mut self, line: &str) {
        // A full log loses the rest; a zero ends it, and the next line begins there.
        let written = writeln!(self.log, "{}", line.trim_end()).and_then(|()| self.log.write_all(&[0]));
        let _ = written.and_then(|()| self.log.seek(SeekFrom::Current(-1)));
    }
}

/// An alarm in the words of the wire.
pub(super) fn said(alarm: &kernel::Alarm) -> Alarm {
    let kind = match alarm.kind {
        kernel::AlarmKind::Warn => AlarmKind::Warn,
        kernel::AlarmKind::Bug | kernel::AlarmKind::Oops | kernel::AlarmKind::Unanswered => AlarmKind::Bug,
        kernel::AlarmKind::ListCorruption | kernel::AlarmKind::MemoryCorruption | kernel::AlarmKind::BadFree => {
            AlarmKind::Corruption
        }
        kernel::AlarmKind::Leak => AlarmKind::Leak,
        kernel::AlarmKind::Deadlock => AlarmKind::Hang,
    };
    // A compiler names a part of a function `name.part.0`, and another compiler does not.
    let function = alarm.place.split([' ', '+', '.']).next().unwrap_or_default().to_owned();
    let mut text = format!("{}: {}", alarm.place, alarm.text);
    alarm.backtrace.iter().for_each(|function| text.push_str(&format!("\n  {function}")));
    Alarm { kind, function, text }
}
