//! The supervisor: asks a worker, starts another when one has come to its end, and turns whatever becomes of one into an [`Alarm`]
//! at the op where it happened.

use crate::process::{Launch, Patience, Process, Silence};
use crate::wire::{ANSWER_BYTES, Alarm, AlarmKind, Hello, Record, Records, question};
use gpa_model::Program;
use std::fmt;

/// Why there is no worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerError {
    /// It cannot be started.
    Start(String),
    /// It started, but did not get ready. What it said is beside it.
    Unready {
        /// What became of it.
        why: String,
        /// What it said.
        log: String,
    },
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(why) => write!(f, "the worker cannot be started: {why}"),
            Self::Unready { why, log } if log.trim().is_empty() => write!(f, "the worker did not get ready: {why}"),
            Self::Unready { why, log } => {
                write!(f, "the worker did not get ready: {why}; it said:\n{}", log.trim_end())
            }
        }
    }
}

impl std::error::Error for WorkerError {}

/// A worker that is there whenever it is asked.
#[derive(Debug)]
pub struct Supervisor {
    launch: Launch,
    patience: Patience,
    process: Option<Process>,
    hello: Hello,
    /// The number of the last question.
    number: u64,
    starts: u32,
    bytes: Vec<u8>,
    /// What the last worker that came to its end had said.
    log: String,
}

impl Supervisor {
    /// Start a worker.
    ///
    /// # Errors
    /// If it cannot be started, or does not get ready.
    pub fn start(launch: Launch) -> Result<Self, WorkerError> {
        Self::start_with(launch, Patience::default())
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub fn start_with(launch: Launch, patience: Patience) -> Result<Self, WorkerError> {
        let mut supervisor = Self {
            launch,
            patience,
            process: None,
            hello: Hello::default(),
            number: 0,
            starts: 0,
            bytes: Vec::new(),
            log: String::new(),
        };
        supervisor.spawn()?;
        Ok(supervisor)
    }

    fn spawn(&mut self) -> Result<(), WorkerError> {
        let start = |error: std::io::Error| WorkerError::Start(format!("{}: {error}", self.launch.program.display()));
        let mut process = Process::spawn(&self.launch).map_err(start)?;
        let ready = process.wait(self.patience);
        let length = ready.as_ref().map_or(0, |doorbell| usize::try_from(doorbell.bytes).unwrap_or(ANSWER_BYTES));
        let read = process.read_answer(&mut self.bytes, length.min(ANSWER_BYTES));
        let hello = read.ok().and_then(|()| Hello::parse(&String::from_utf8_lossy(&self.bytes)));
        let Some(hello) = hello else {
            let log = process.log();
            let why = match ready {
                Ok(_) => "expected what it is, found something else; it may be another version".into(),
                Err(Silence::Hangs) => "it hangs".into(),
                Err(Silence::Gone) => process.end(),
            };
            return Err(WorkerError::Unready { why, log });
        };
        self.hello = hello;
        self.starts += 1;
        self.process = Some(process);
        Ok(())
    }

    /// What the worker is.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// How often one was started.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Whether there is one, or another has to be started for the next question.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// What the kernel said while it carried out the last program, or before it came to its end.
    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(|| self.log.clone(), Process::log)
    }

    /// The process number of the worker, if there is one.
    pub fn worker(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Have `program` carried out, and put what was observed into `records`. They end with [`Record::End`], or with an alarm that says
    /// what became of the worker.
    ///
    /// # Errors
    /// If there is no worker any more, and none can be started.
    pub fn ask(&mut self, program: &Program, records: &mut Vec<Record>) -> Result<(), WorkerError> {
        self.number += 1;
        records.clear();
        let mut asked = false;
        if let Some(process) = &mut self.process {
            asked = question::send(&mut process.socket, self.number, program).is_ok();
        }
        if !asked {
            // It ended between two programs, and neither of them is to blame.
            self.process = None;
            self.spawn()?;
            if let Some(process) = &mut self.process {
                // If this one is gone, too, that is noticed when it does not answer.
                let _ = question::send(&mut process.socket, self.number, program);
            }
        }
        let Some(process) = &mut self.process else { return Ok(()) };
        let rung = process.wait(self.patience);
        let length = match &rung {
            Ok(doorbell) if doorbell.number == self.number => usize::try_from(doorbell.bytes).unwrap_or(ANSWER_BYTES),
            // How far it came is in the answer itself.
            _ => ANSWER_BYTES,
        };
        let read = process.read_answer(&mut self.bytes, length.min(ANSWER_BYTES));
        let whole = read.map_err(|error| error.to_string()).and_then(|()| self.parse(program, records));
        let complete = matches!(records.last(), Some(Record::End));
        let end = match (rung, whole) {
            (Ok(_), Ok(())) if complete => {
                // What a kernel does after such an alarm says nothing any more.
                if records.iter().any(|record| matches!(record, Record::Alarm(alarm) if !alarm.kind.goes_on())) {
                    self.bury();
                }
                return Ok(());
            }
            (Ok(_), Ok(())) => (AlarmKind::Flood, "it wrote more than an answer can hold".to_owned()),
            (Ok(_), Err(why)) => (AlarmKind::Garbled, why),
            (Err(Silence::Hangs), _) => (AlarmKind::Hang, format!("no answer within {:?}", self.patience)),
            (Err(Silence::Gone), _) => (AlarmKind::Died, String::new()),
        };
        let (kind, why) = end;
        let how = self.bury();
        // It may have said itself what became of it.
        let said = matches!(records.last(), Some(Record::Alarm(alarm)) if !alarm.kind.goes_on());
        if !(said && kind == AlarmKind::Died) {
            let text = if why.is_empty() { how } else { why };
            records.push(Record::Alarm(Box::new(Alarm { kind, function: String::new(), text })));
        }
        Ok(())
    }

    /// Read the records of an answer, up to what is malformed.
    fn parse(&self, program: &Program, into: &mut Vec<Record>) -> Result<(), String> {
        let records = Records::of(&self.bytes, self.number, program).map_err(|error| error.to_string())?;
        for record in records {
            into.push(record.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// The worker has come to its end: keep what it said, and say how it ended.
    fn bury(&mut self) -> String {
        let Some(mut process) = self.process.take() else { return String::new() };
        self.log = process.log();
        process.end()
    }
}
