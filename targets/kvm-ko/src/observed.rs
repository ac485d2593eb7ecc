//! What a worker observed, as an [`Mmu`], so that the oracles judge real KVM.

use crate::abilities::Abilities;
use crate::wire::Record;
use gpa_model::limits::{ALIASES, FRAMES};
use gpa_model::{
    Alarm, Capabilities, Exit, FlushBackend, FrameSet, GfnIndexed, Gpa, Host, Mmu, Op, Program, Spte, VmConfig,
};
use std::cell::Cell;
use std::collections::BTreeSet;

/// Answers each op of one program with what was observed of it.
#[derive(Debug)]
pub struct Observed {
    abilities: Abilities,
    program: Program,
    records: Vec<Record>,
    /// The next record. Whoever asks whether an op can be carried out goes past it if the worker could not.
    at: Cell<usize>,
    /// Where what was seen at the end begins.
    epilogue: usize,
    tables: Box<[[Option<Spte>; FRAMES]; ALIASES]>,
    present: [FrameSet; ALIASES],
    alarm: Option<Alarm>,
    end_alarm: Option<Alarm>,
    /// Whether the worker came to its end at the last op, so that nothing is known of those that follow.
    over: bool,
    clauses: Clauses,
}

/// Clauses of alarms so far: each stays for as long as the process.
#[derive(Debug, Default)]
struct Clauses(BTreeSet<&'static str>);

impl Clauses {
    fn named(&mut self, clause: &str) -> &'static str {
        self.0.get(clause).copied().unwrap_or_else(|| {
            let clause: &'static str = clause.to_owned().leak();
            self.0.insert(clause);
            clause
        })
    }

    fn alarm(&mut self, alarm: &crate::wire::Alarm) -> Alarm {
        Alarm { clause: self.named(&alarm.clause()), text: alarm.text.clone() }
    }
}

impl Observed {
    /// Nothing is observed yet, of workers that can do this.
    pub fn new(abilities: Abilities) -> Self {
        Self {
            abilities,
            program: Program::default(),
            records: Vec::new(),
            at: Cell::new(0),
            epilogue: 0,
            tables: Box::new([[None; FRAMES]; ALIASES]),
            present: [FrameSet::EMPTY; ALIASES],
            alarm: None,
            end_alarm: None,
            over: false,
            clauses: Clauses::default(),
        }
    }

    /// From now on answer with what was observed of `program`; returned is the memory of the records before, to be used again.
    pub fn load(&mut self, program: &Program, records: Vec<Record>) -> Vec<Record> {
        self.program.clone_from(program);
        let old = std::mem::replace(&mut self.records, records);
        let last = self
            .records
            .iter()
            .rposition(|record| matches!(record, Record::Exit(_) | Record::Op(_) | Record::Unable(_)));
        self.epilogue = match last {
            Some(last) if !matches!(self.records[last], Record::Op(_)) => last + 1,
            Some(_) => self.records.len(),
            // What happens before the first op, happens at the first that is carried out.
            None if program.ops.is_empty() => 0,
            None => self.records.len(),
        };
        let alarm = self.records[self.epilogue..].iter().find_map(|record| match record {
            Record::Alarm(alarm) => Some(alarm),
            _ => None,
        });
        self.end_alarm = alarm.map(|alarm| self.clauses.alarm(alarm));
        self.rewind();
        old
    }

    fn rewind(&mut self) {
        self.at.set(0);
        self.present = [FrameSet::EMPTY; ALIASES];
        self.alarm = None;
        self.over = false;
    }

    /// Take in what was observed of the next op, which must be `op`; how it ended, unless it never did.
    fn next(&mut self, flush: &mut FlushBackend, op: &Op) -> Option<Exit> {
        let mut begun = false;
        while let Some(record) = self.records[..self.epilogue].get(self.at.get()) {
            match *record {
                Record::Op(_) if begun => return None,
                Record::Op(at) => {
                    begun = true;
                    if self.program.ops[at] != *op {
                        let text = format!("op {} was carried out instead", at + 1);
                        self.alarm.get_or_insert(Alarm { clause: "out-of-step", text });
                        return None;
                    }
                }
                Record::Exit(exit) => {
                    self.at.set(self.at.get() + 1);
                    return Some(exit);
                }
                Record::Flush(asked) => flush.observed(asked),
                Record::Freed => flush.freed(),
                Record::Spte { alias, frame, spte } => {
                    let one = FrameSet::one(frame);
                    self.tables[alias][frame] = spte;
                    let present = self.present[alias];
                    self.present[alias] = if spte.is_some() { present.union(one) } else { present.minus(one) };
                }
                Record::Alarm(ref alarm) => {
                    let alarm = self.clauses.alarm(alarm);
                    self.alarm.get_or_insert(alarm);
                }
                Record::Unable(_) | Record::Key(_) | Record::End => {}
            }
            self.at.set(self.at.get() + 1);
        }
        None
    }
}

impl Mmu for Observed {
    /// Back to the start of the same program.
    fn reset(&mut self, _vm: &VmConfig) {
        self.rewind();
    }

    fn step(&mut self, _host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        self.alarm = None;
        self.next(flush, op).unwrap_or_else(|| {
            self.over = true;
            let missing = Alarm { clause: "out-of-step", text: "nothing was observed of this op".into() };
            self.alarm.get_or_insert(missing);
            Exit::Unsupported
        })
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        let vm = &self.program.vm;
        let (frame, alias) = vm.locate(gpa)?;
        let alias = vm.stolen().alias_index(alias);
        self.tables[alias][frame].filter(|_| self.present[alias].contains(frame))
    }

    fn walk_window(&self, gpa: Gpa, _stride: u64, visit: &mut dyn FnMut(usize, Spte)) {
        let vm = &self.program.vm;
        let Some((0, alias)) = vm.locate(gpa) else { return };
        let alias = vm.stolen().alias_index(alias);
        for frame in self.present[alias].iter() {
            if let Some(spte) = self.tables[alias][frame] {
                visit(frame, spte);
            }
        }
    }

    fn inspect(&self, visit: &mut dyn FnMut(GfnIndexed)) {
        for record in &self.records[self.epilogue..] {
            if let Record::Key(key) = record {
                visit(*key);
            }
        }
    }

    fn alarm(&self, end: bool) -> Option<&Alarm> {
        if end { self.end_alarm.as_ref() } else { self.alarm.as_ref() }
    }

    fn supports(&self, op: &Op) -> bool {
        let unable =
            matches!(self.records.get(self.at.get()), Some(Record::Unable(at)) if self.program.ops[*at] == *op);
        if unable {
            self.at.set(self.at.get() + 1);
        }
        !unable && !self.over && self.abilities.supports(op)
    }

    fn supports_vm(&self, vm: &VmConfig) -> bool {
        self.abilities.supports_vm(vm)
    }

    fn capabilities(&self) -> Capabilities {
        // Linux refuses to map a page ahead of its use by an alias (8046d29dde17).
        Capabilities { refuses_aliased_prefault: true, ..self.abilities.shows }
    }
}
