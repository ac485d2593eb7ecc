//! The targets `linux-kvm-…`: Linux's own KVM in the lab, judged by its traces like any other KVM.

use super::Opened;
use super::TargetError;
use super::kvm::describe;
use super::traced::{Recorder, Traced};
use crate::terminal::note;
use gpa_model::generate::Profile;
use gpa_model::{BackendMode, Op, OpKind, Program, Reclaim, StolenMask, VmConfig, text};
use gpa_oracles::{Signature, Violation};
use hw_runner::{AliasMethod, Trace};
use kernels::stolen::{self, Design};
use kernels::{Choice, Error};
use linux_kvm::console::Kind;
use linux_kvm::{Complaint, Emulator, Function, Lab, Setup};
use std::collections::BTreeSet;

/// A way to set up the lab's KVM.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name of the target.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// What it runs in.
    emulator: Emulator,
    /// Parameters of modules.
    parameters: &'static [(&'static str, &'static str)],
    /// Whether its KVM is built with stolen GPA bits.
    stolen: Option<Design>,
}

impl Entry {
    /// Its name, and the names of its variants.
    fn names(&self) -> Vec<String> {
        let variants: Vec<&str> = match self.stolen {
            None => {
                AliasMethod::ALL.iter().filter(|kind| **kind != AliasMethod::Native).map(|kind| kind.name()).collect()
            }
            Some(Design::Fixed) => stolen::MUTANTS.iter().map(|mutant| mutant.name).collect(),
            Some(Design::Posted) => Vec::new(),
        };
        let variants = variants.into_iter().map(|variant| format!("{}{VARIANT}{variant}", self.name));
        std::iter::once(self.name.to_owned()).chain(variants).collect()
    }
}

/// The one that has mutants.
pub const STOLEN_FIXED: &str = "linux-kvm-stolen-fixed";

/// The older MMU, which the patches are for.
const RMAP: &[(&str, &str)] = &[("kvm", "tdp_mmu=0")];

/// The same on Intel's side, without help for real mode, so that KVM has private slots.
const EPT_RMAP: &[(&str, &str)] = &[("kvm", "tdp_mmu=0"), ("kvm_intel", "unrestricted_guest=0")];

/// Every way, in the order in which they are listed.
pub const ALL: [Entry; 13] = [
    Entry {
        name: "linux-kvm-npt",
        about: "Linux KVM over nested paging, with its TDP MMU",
        emulator: Emulator::Qemu,
        parameters: &[],
        stolen: None,
    },
    Entry {
        name: "linux-kvm-npt-rmap",
        about: "the same with the older MMU, that of the patches",
        emulator: Emulator::Qemu,
        parameters: RMAP,
        stolen: None,
    },
    Entry {
        name: "linux-kvm-shadow",
        about: "the same without nested paging: the guest's tables are shadowed",
        emulator: Emulator::Qemu,
        parameters: &[("kvm_amd", "npt=0")],
        stolen: None,
    },
    Entry {
        name: "linux-kvm-stolen",
        about: "Linux KVM built with the patches as posted: it strips stolen bits itself",
        emulator: Emulator::Qemu,
        parameters: RMAP,
        stolen: Some(Design::Posted),
    },
    Entry {
        name: "linux-kvm-stolen-tdp-mmu",
        about: "the same with the TDP MMU, which the patches leave out",
        emulator: Emulator::Qemu,
        parameters: &[],
        stolen: Some(Design::Posted),
    },
    Entry {
        name: "linux-kvm-stolen-shadow",
        about: "as linux-kvm-stolen without nested paging: the guest's tables are shadowed",
        emulator: Emulator::Qemu,
        parameters: &[("kvm_amd", "npt=0")],
        stolen: Some(Design::Posted),
    },
    Entry {
        name: "linux-kvm-stolen-uncached",
        about: "as linux-kvm-stolen without MMIO entries in its tables",
        emulator: Emulator::Qemu,
        parameters: &[("kvm", "tdp_mmu=0"), ("kvm", "mmio_caching=0")],
        stolen: Some(Design::Posted),
    },
    Entry {
        name: "linux-kvm-stolen-yielding",
        about: "as linux-kvm-stolen with walks of the rmap that give way when they have come to large pages",
        emulator: Emulator::Qemu,
        parameters: &[("kvm", "tdp_mmu=0"), ("kvm", "stolen_yield_level=2")],
        stolen: Some(Design::Posted),
    },
    Entry {
        name: STOLEN_FIXED,
        about: "as linux-kvm-stolen with the gaps of the patches closed; with :MUTANT behind its name one decision is wrong",
        emulator: Emulator::Qemu,
        parameters: RMAP,
        stolen: Some(Design::Fixed),
    },
    Entry {
        name: "linux-kvm-ept",
        about: "Linux KVM over EPT, with its TDP MMU, in Bochs: minutes to boot, so for recording",
        emulator: Emulator::Bochs,
        parameters: &[],
        stolen: None,
    },
    Entry {
        name: "linux-kvm-ept-rmap",
        about: "the same with the older MMU, and private slots",
        emulator: Emulator::Bochs,
        parameters: EPT_RMAP,
        stolen: None,
    },
    Entry {
        name: "linux-kvm-ept-stolen",
        about: "the same built with the patches as posted",
        emulator: Emulator::Bochs,
        parameters: EPT_RMAP,
        stolen: Some(Design::Posted),
    },
    Entry {
        name: "linux-kvm-ept-stolen-fixed",
        about: "the same with the gaps of the patches closed",
        emulator: Emulator::Bochs,
        parameters: EPT_RMAP,
        stolen: Some(Design::Fixed),
    },
];

/// Stolen bits of programs for a KVM that strips them: few, because each mask is a VM of its own.
const STOLEN_BITS: std::ops::RangeInclusive<u8> = 40..=42;
/// In one of how many VMs everything that is mapped goes with a memslot. Then KVM looks at all entries of each table, and each table is
/// filled in again, so that such a program takes half as long again as others.
const SLOT_ZAP_ALL: u32 = 16;
/// Before the name of a mutant, or of the alias method of aliases.
const VARIANT: char = ':';

/// How many characters of an answer that is no trace are shown.
const ANSWER_SHOWN: usize = 200;

/// Before another kernel than the usual one, behind the name of a target: a version, or a folder if there is a slash in it.
const KERNEL: char = '@';

/// The name of the lab `name` with another kernel; `None` if there is no such lab.
pub(super) fn with_kernel(name: &str, kernel: &str) -> Option<String> {
    let plain = name.split(VARIANT).next();
    ALL.iter().any(|entry| Some(entry.name) == plain).then(|| format!("{name}{KERNEL}{kernel}"))
}

/// The lab called `name`, or `name@KERNEL`, booted, its code to be `watched` or not; `None` if there is no such lab.
pub(super) fn open(name: &str, watched: bool) -> Option<Result<Opened, TargetError>> {
    let (plain, kernel) = match name.split_once(KERNEL) {
        Some((plain, kernel)) => (plain, Choice::of(kernel)),
        None => (name, Choice::default()),
    };
    let (plain, variant) = plain.split_once(VARIANT).map_or((plain, None), |(plain, name)| (plain, Some(name)));
    let entry = ALL.iter().find(|entry| entry.name == plain)?;
    let (mut mutant, mut alias_method) = (None, None);
    if let Some(variant) = variant {
        match entry.stolen {
            None => alias_method = AliasMethod::named(variant).map(|found| found.name().to_owned()),
            Some(Design::Fixed) => mutant = stolen::MUTANTS.iter().find(|mutant| mutant.name == variant),
            Some(Design::Posted) => {}
        }
        if mutant.is_none() && alias_method.is_none() {
            return Some(Err(TargetError::Unknown { name: name.into(), known: entry.names() }));
        }
    }
    let parameters = entry.parameters.iter().map(|(module, value)| (*module, (*value).to_owned())).collect();
    let stolen = entry.stolen.map(|design| (design, mutant));
    let setup = Setup { kernel, emulator: entry.emulator, parameters, alias_method, stolen, watched };
    Some(InLab::boot(entry.name, &setup).map(|lab| {
        let note = lab.about.clone();
        Opened { target: Box::new(Traced::new(lab)), note: Some(note) }
    }))
}

/// A KVM that runs in a lab.
struct InLab {
    name: &'static str,
    lab: Lab,
    about: String,
    /// Whether its KVM strips stolen bits itself.
    strips: bool,
    native: bool,
    maxphyaddr: u8,
    /// Whether its MMU can be asked to map pages ahead; an older kernel says `unsupported` to that.
    prefaults: bool,
    /// Whether frames have attributes that can be changed.
    attributes: bool,
    /// Whether what becomes dirty is listed in rings.
    rings: bool,
    accesses: u64,
    blocks: Vec<u32>,
    /// Clauses of signatures that were made so far: each stays for as long as the process.
    clauses: BTreeSet<&'static str>,
}

impl InLab {
    fn boot(name: &'static str, setup: &Setup) -> Result<Self, TargetError> {
        let lab = Lab::boot(setup, &mut report).map_err(|error| failed(name, &error))?;
        let (about, blocks, clauses) = (String::new(), Vec::new(), BTreeSet::new());
        let strips = setup.stolen.is_some();
        let (native, prefaults, attributes, rings, maxphyaddr, accesses) = (false, false, false, false, 0, 0);
        let mut lab = Self {
            name,
            lab,
            about,
            strips,
            native,
            maxphyaddr,
            prefaults,
            attributes,
            rings,
            accesses,
            blocks,
            clauses,
        };
        let mut trace = Trace::default();
        // What the machine is, it says with each trace.
        let vm = VmConfig::new(StolenMask::NONE, 1, VmConfig::DEFAULT_BASE, BackendMode::Absent).unwrap_or_default();
        if let Some(violation) = lab.record(&Program { vm, ..Program::default() }, &mut trace)? {
            return Err(TargetError::Failed(format!("{name}: {}\n{}", violation.why, lab.lab.log())));
        }
        lab.native = trace.fingerprint.native;
        lab.maxphyaddr = trace.fingerprint.maxphyaddr;
        lab.prefaults = trace.fingerprint.paging.starts_with("tdp") && trace.fingerprint.alias_method.can_prefault();
        lab.attributes = trace.fingerprint.alias_method.has_attributes();
        lab.rings = trace.fingerprint.alias_method.has_rings();
        let seconds = lab.lab.boot_time().as_secs_f64();
        lab.about = format!(
            "Linux {} in {}, {}, up after {seconds:.1} s",
            lab.lab.release(),
            setup.emulator.name(),
            describe(&trace.fingerprint)
        );
        Ok(lab)
    }

    /// A complaint of the kernel as a violation at the end of its program: at which op it came up the kernel does not say, and no op has
    /// a part in what makes two complaints the same.
    fn violation(&mut self, program: &Program, complaint: &Complaint) -> Violation {
        let clause = complaint.function.as_ref().map_or_else(
            || complaint.kind.name().to_owned(),
            |function| format!("{}-{function}", complaint.kind.name()),
        );
        let clause = self.clauses.get(clause.as_str()).copied().unwrap_or_else(|| {
            let clause: &'static str = clause.leak();
            self.clauses.insert(clause);
            clause
        });
        let oracle = match complaint.kind {
            Kind::Runner | Kind::Answer => "runner",
            Kind::GuestHung => "guest",
            _ => "kernel",
        };
        let signature = Signature { oracle, clause, op: "end", alias: "none", slot: "none" };
        Violation { signature, at: program.ops.len(), why: complaint.line.clone() }
    }
}

impl Recorder for InLab {
    fn record(&mut self, program: &Program, trace: &mut Trace) -> Result<Option<Violation>, TargetError> {
        let mut answer = self.lab.ask(&text::print(program)).map_err(|error| failed(self.name, &error))?;
        self.lab.blocks(&mut self.blocks);
        let answered = answer.text.as_ref().map(|text| parse(program, text));
        *trace = match answered {
            Some(Ok(trace)) => trace,
            None => Trace { program: program.clone(), ..Trace::default() },
            Some(Err(why)) => {
                // What is wrong with this machine would be wrong with each later answer.
                self.lab.switch_off();
                answer.complaint =
                    answer.complaint.or(Some(Complaint { kind: Kind::Answer, function: None, line: why }));
                Trace { program: program.clone(), ..Trace::default() }
            }
        };
        let accesses = trace.program.ops.iter().zip(&trace.observations);
        self.accesses += accesses.filter(|(op, exit)| matches!(op, Op::Access { .. }) && exit.is_some()).count() as u64;
        Ok(answer.complaint.as_ref().map(|complaint| self.violation(program, complaint)))
    }

    fn locate(&mut self, program: &Program, complaint: &Violation) -> Result<Option<usize>, TargetError> {
        let mut trace = Trace::default();
        let mut brings_it = |ops: usize| {
            let program = Program { ops: program.ops[..ops].to_vec(), ..program.clone() };
            Ok(self.record(&program, &mut trace)?.is_some_and(|found| found.signature == complaint.signature))
        };
        first_op(program.ops.len(), &mut brings_it)
    }

    fn profile(&self) -> Profile {
        let reclaims = self.lab.reclaims().iter().filter_map(|name| Reclaim::named(name));
        // What no notifier hears of is not asked of a KVM that is looked into: such a program could not be watched.
        let reclaims =
            reclaims.filter(|reclaim| !self.strips || hw_runner::reclaim::always_invalidates(Some(*reclaim))).collect();
        // Where everything was zapped nothing is mapped ahead (K2).
        let slot_zap_all = if self.prefaults || self.strips { 0 } else { SLOT_ZAP_ALL };
        let profile = Profile { reclaims, dirty_rings: self.rings, slot_zap_all, ..hw_runner::profile() };
        let mut kinds = profile.kinds;
        if self.prefaults && !self.strips {
            kinds = kinds.with(OpKind::Prefault);
        }
        if self.attributes {
            kinds = kinds.with(OpKind::Attributes);
        }
        let (low, high) =
            if self.strips { STOLEN_BITS.into_inner() } else { (profile.stolen_low, profile.stolen_high) };
        // Bochs translates so few address bits that one is left.
        let highest = self.maxphyaddr.saturating_sub(1).max(profile.stolen_low);
        if self.strips {
            kinds = kinds.with(OpKind::SlotEnd).with(OpKind::SlotAliased);
        }
        Profile { kinds, windows: self.strips, stolen_low: low.min(highest), stolen_high: high.min(highest), ..profile }
    }

    fn native(&self) -> bool {
        self.native
    }

    fn accesses(&self) -> Option<u64> {
        Some(self.accesses)
    }

    fn evidence(&self) -> Option<String> {
        Some(format!("{}, {} boots", self.about, self.lab.boots()))
    }

    fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    fn functions(&mut self) -> Result<Vec<Function>, TargetError> {
        self.lab.functions(&mut report).map_err(|error| failed(self.name, &error))
    }

    fn survived(&self) -> bool {
        self.lab.is_on()
    }

    fn log(&mut self) -> Option<String> {
        Some(self.lab.log())
    }
}

/// Report how far a lab is.
fn report(line: &str) {
    note(&format!("lab: {line}"));
}

/// The trace of `program` that the lab's answer is; it is believed no more than a stranger's file.
fn parse(program: &Program, answer: &str) -> Result<Trace, String> {
    let wrong = |why: String| {
        let start: String = answer.chars().take(ANSWER_SHOWN).collect();
        format!("expected a trace of the program from the lab, found {why}; its answer begins `{start}`")
    };
    let trace = hw_runner::trace::parse(answer).map_err(|error| wrong(error.to_string()))?;
    if (&trace.program.vm, &trace.program.ops) != (&program.vm, &program.ops) {
        return Err(wrong("that of another program".to_owned()));
    }
    match trace.missing() {
        None => Ok(trace),
        Some(at) => Err(wrong(format!("no observation of op {}", at + 1))),
    }
}

/// The number of the last op of the shortest of the first 1 to `ops` ops of a program that `brings_it` up; `None` if that cannot be
/// told, because not even the whole program does each time.
fn first_op(
    ops: usize,
    brings_it: &mut dyn FnMut(usize) -> Result<bool, TargetError>,
) -> Result<Option<usize>, TargetError> {
    let (mut without, mut with) = (0, ops);
    while without + 1 < with {
        let middle = without.midpoint(with);
        if brings_it(middle)? {
            with = middle;
        } else {
            without = middle;
        }
    }
    Ok(if ops > 0 && brings_it(with)? { Some(with - 1) } else { None })
}

fn failed(name: &'static str, error: &Error) -> TargetError {
    match error {
        Error::Absent(why) => TargetError::Absent { name, why: why.clone() },
        Error::Failed(why) => TargetError::Failed(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_op_that_brings_a_complaint_up_is_found_by_halves() {
        for op in 0..9 {
            let mut runs = 0;
            let found = first_op(9, &mut |ops| {
                runs += 1;
                Ok(ops > op)
            });
            assert!(matches!(found, Ok(Some(found)) if found == op) && runs <= 5, "{op}: {runs} runs");
        }
        assert!(matches!(first_op(9, &mut |_| Ok(false)), Ok(None)));
        assert!(matches!(first_op(0, &mut |_| Ok(true)), Ok(None)));
    }

    #[test]
    fn an_answer_is_a_trace_of_the_program_that_was_asked() {
        let program = |ops: &str| {
            text::parse(&format!("gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n{ops}"))
                .expect("a program")
        };
        let asked = program("slot 0 create gfn=0x1e0 pages=1 hva=3\n");
        let observations = vec![Some(gpa_model::Exit::Done)];
        let answer =
            hw_runner::trace::print(&Trace { program: asked.clone(), observations, samples: 1, ..Trace::default() });
        assert!(parse(&asked, &answer).is_ok());
        for (asked, answer, why) in [
            (&program("slot 0 create gfn=0x1e0 pages=2 hva=3\n"), answer.as_str(), "that of another program"),
            (&asked, &answer[..answer.len() / 2], "expected a trace"),
            (&asked, "", "expected a trace"),
        ] {
            let said = parse(asked, answer).expect_err("no trace of it");
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_variant_that_there_is_none_of_is_told_from_those_that_there_are() {
        let asked = [
            ("linux-kvm-npt:nonsense", "linux-kvm-npt:rings"),
            ("linux-kvm-stolen-fixed:M99", "linux-kvm-stolen-fixed:M02-unalias-noop"),
            ("linux-kvm-stolen:M02-unalias-noop", "linux-kvm-stolen"),
        ];
        for (asked, there) in asked {
            let Some(Err(TargetError::Unknown { name, known })) = open(asked, false) else { panic!("{asked}") };
            assert!(name == asked && known.iter().any(|name| name == there), "{known:?}");
        }
        assert!(open("linux-kvm-nonsense", false).is_none());
    }
}
