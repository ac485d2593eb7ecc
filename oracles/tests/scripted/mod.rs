//! A target that does what a test says: for each op what it does to its tables and TLBs, and how it answers.

use gpa_model::text::{Words, parse};
use gpa_model::{
    Capabilities, Exit, FlushBackend, GfnIndexed, Gpa, Host, HostPage, Level, Mmu, Op, Rights, Spte, VcpuSet, VmConfig,
};
use gpa_oracles::{Lockstep, Tally, Violation, report};
use std::collections::BTreeMap;

/// What the target does within an op. An address is written as in a program: `0x1e0@1`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Do {
    /// Map the address to the page behind an hva, with these rights, as part of a leaf of this level.
    Map(&'static str, u64, Rights, Level),
    /// Make it absent.
    Unmap(&'static str),
    /// Flush so many pages from the address.
    Range(&'static str, u64),
    /// Flush everything.
    All,
    /// Free a table page.
    Free,
}

/// How the target answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// So.
    Is(Exit),
    /// With the page that is behind the hva now.
    Page(u64),
    /// With the page that was behind the hva before anything was taken away.
    FirstPage(u64),
    /// With an exit to user space for the address.
    Mmio(&'static str),
}

pub(crate) const DONE: Answer = Answer::Is(Exit::Done);

/// The target.
pub(crate) struct Scripted {
    pub(crate) script: Vec<(Vec<Do>, Answer)>,
    pub(crate) keys: Vec<GfnIndexed>,
    pub(crate) capabilities: Capabilities,
    vm: VmConfig,
    tables: BTreeMap<Gpa, Spte>,
    at: usize,
}

/// What a target can show that shows everything but roots.
pub(crate) const ALL: Capabilities = Capabilities {
    tables: true,
    flushes: true,
    keys: true,
    rmap: false,
    roots: false,
    shadows: true,
    order: true,
    ..Capabilities::EXITS
};

impl Scripted {
    fn gpa(&self, word: &str) -> Gpa {
        Words::new(word, 1).gpa(&self.vm, word).expect("an address")
    }
}

impl Mmu for Scripted {
    fn reset(&mut self, vm: &VmConfig) {
        (self.vm, self.at) = (*vm, 0);
        self.tables.clear();
    }

    fn step(&mut self, host: &Host, flush: &mut FlushBackend, _: &Op) -> Exit {
        let (acts, answer) = self.script[self.at].clone();
        self.at += 1;
        for act in acts {
            if matches!(act, Do::Range(..) | Do::All | Do::Free) {
                let (tables, vm) = (&self.tables, &self.vm);
                flush.tables(|visit| {
                    for (gpa, spte) in tables {
                        let (frame, alias) = vm.locate(*gpa).expect("inside the window");
                        visit(vm.stolen().alias_index(alias), frame, *spte);
                    }
                });
            }
            match act {
                Do::Map(at, hva, rights, level) => {
                    let spte = Spte::new(host.pfn(HostPage::new(hva)), rights).expect("some right").at_level(level);
                    self.tables.insert(self.gpa(at), spte);
                }
                Do::Unmap(at) => _ = self.tables.remove(&self.gpa(at)),
                Do::Range(at, pages) => _ = flush.range(self.gpa(at), pages),
                Do::All => flush.on(VcpuSet::ALL),
                Do::Free => flush.freed(),
            }
        }
        match answer {
            Answer::Is(exit) => exit,
            Answer::Page(hva) => Exit::Memory(host.pfn(HostPage::new(hva))),
            Answer::FirstPage(hva) => Exit::Memory(Host::new(&self.vm).pfn(HostPage::new(hva))),
            Answer::Mmio(at) => Exit::Mmio(self.gpa(at)),
        }
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.tables.get(&gpa).copied()
    }

    fn inspect(&self, visit: &mut dyn FnMut(GfnIndexed)) {
        self.keys.iter().copied().for_each(visit);
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
}

/// What the oracles make of a program: the violation and how often each clause was at stake.
pub(crate) struct Verdict {
    pub(crate) violation: Option<Violation>,
    pub(crate) report: String,
    tallies: Vec<(String, Tally)>,
}

impl Verdict {
    /// How often `oracle/clause` was checked.
    pub(crate) fn checked(&self, clause: &str) -> u64 {
        self.tallies.iter().find(|(name, _)| name == clause).map_or(0, |(_, tally)| tally.checked)
    }

    /// The clauses that were checked.
    pub(crate) fn at_stake(&self) -> Vec<&str> {
        self.tallies.iter().filter(|(_, tally)| tally.checked > 0).map(|(name, _)| name.as_str()).collect()
    }

    /// Check that `clause` objects.
    pub(crate) fn objects(&self, clause: &str) {
        let Some(violation) = &self.violation else { panic!("{clause} does not object\n{}", self.report) };
        let found = format!("{}/{}", violation.signature.oracle, violation.signature.clause);
        assert_eq!(found, clause, "{}", self.report);
    }

    /// Check that nothing objects.
    pub(crate) fn is_clean(&self) {
        assert!(self.violation.is_none(), "{}", self.report);
    }
}

/// Run `program`, of which each op does and answers what `script` says, in order.
pub(crate) fn judge(program: &str, script: &[(&[Do], Answer)]) -> Verdict {
    judge_as(ALL, &[], program, script)
}

/// The same on a target with these capabilities, which keeps these keys.
pub(crate) fn judge_as(
    capabilities: Capabilities,
    keys: &[GfnIndexed],
    program: &str,
    script: &[(&[Do], Answer)],
) -> Verdict {
    let program = parse(&format!("gpafuzz-program 1\n{program}")).expect("a program");
    assert_eq!(program.ops.len(), script.len(), "an answer for each op");
    let script = script.iter().map(|(acts, answer)| (acts.to_vec(), *answer)).collect();
    let (keys, tables) = (keys.to_vec(), BTreeMap::new());
    let mut mmu = Scripted { script, keys, capabilities, vm: program.vm, tables, at: 0 };
    let mut run = Lockstep::default();
    let (report, violation) = report(&mut run, &mut mmu, &program, "scripted");
    let tallies = run.tallies().map(|(oracle, clause, tally)| (format!("{oracle}/{}", clause.name), tally)).collect();
    Verdict { violation, report, tallies }
}
