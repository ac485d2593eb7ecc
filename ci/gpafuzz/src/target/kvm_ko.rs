//! The targets `kvm-ko…`: Linux's own `kvm.ko` in a worker process, judged by all that it does.

use super::{Opened, Target, TargetError};
use crate::terminal::note;
use ::kvm_ko::prepare::{self, Mmu, Setup, Vendor};
use ::kvm_ko::wire::Record;
use ::kvm_ko::{AliasMethod, Observed, Supervisor, WorkerError};
use gpa_model::generate::Profile;
use gpa_model::{Capabilities, Exit, Op, Program};
use gpa_oracles::{Lockstep, Violation};
use kernels::{Choice, Error};

/// A way to set up the kernel's KVM.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name of the target.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    vendor: Vendor,
    mmu: Mmu,
}

/// Every way, in the order in which they are listed.
pub const ALL: [Entry; 4] = [
    Entry {
        name: "kvm-ko",
        about: "a kernel's own kvm.ko in a process, over nested paging, with its TDP MMU",
        vendor: Vendor::Amd,
        mmu: Mmu::Tdp,
    },
    Entry {
        name: "kvm-ko-rmap",
        about: "the same with the older MMU, that of the patches",
        vendor: Vendor::Amd,
        mmu: Mmu::Rmap,
    },
    Entry { name: "kvm-ko-ept", about: "as kvm-ko on Intel's EPT", vendor: Vendor::Intel, mmu: Mmu::Tdp },
    Entry { name: "kvm-ko-ept-rmap", about: "as kvm-ko-rmap on Intel's EPT", vendor: Vendor::Intel, mmu: Mmu::Rmap },
];

/// Before the name of the way in which aliases come about.
const VARIANT: char = ':';
/// What a variant begins with that is the kernel without one of its functions: a planted fault, for oracles to find.
const WITHOUT: &str = "without-";
/// Before another kernel than the usual one: a version, or a folder if there is a slash in it.
const KERNEL: char = '@';

/// The name of the target `name` with another kernel; `None` if it is none of these.
pub(super) fn with_kernel(name: &str, kernel: &str) -> Option<String> {
    let plain = name.split(VARIANT).next();
    ALL.iter().any(|entry| Some(entry.name) == plain).then(|| format!("{name}{KERNEL}{kernel}"))
}

/// The target called `name`, `name:ALIASES` or `name@KERNEL`, with a worker that runs; `None` if it is none of these.
pub(super) fn open(name: &str) -> Option<Result<Opened, TargetError>> {
    let (plain, kernel) = match name.split_once(KERNEL) {
        Some((plain, kernel)) => (plain, Choice::of(kernel)),
        None => (name, Choice::default()),
    };
    let (plain, variant) = plain.split_once(VARIANT).map_or((plain, None), |(plain, name)| (plain, Some(name)));
    let entry = ALL.iter().find(|entry| entry.name == plain)?;
    let without = variant.and_then(|name| name.strip_prefix(WITHOUT)).map(str::to_owned);
    let alias_method = match variant.filter(|_| without.is_none()) {
        None => AliasMethod::default(),
        // A stock kernel strips nothing from a GPA.
        Some(variant) => match AliasMethod::named(variant).filter(|method| *method != AliasMethod::Native) {
            Some(alias_method) => alias_method,
            None => {
                let known = vec![
                    entry.name.to_owned(),
                    format!("{}{VARIANT}{}", entry.name, AliasMethod::Slots),
                    format!("{}{VARIANT}{WITHOUT}FUNCTION", entry.name),
                ];
                return Some(Err(TargetError::Unknown { name: name.into(), known }));
            }
        },
    };
    let setup = Setup { kernel, vendor: entry.vendor, mmu: entry.mmu, alias_method, parameters: Vec::new(), without };
    Some(InWorker::start(entry.name, &setup).map(|target| {
        let note = target.supervisor.hello().about.clone();
        Opened { target: Box::new(target), note: Some(note) }
    }))
}

/// A kernel's KVM in a worker process.
struct InWorker {
    supervisor: Supervisor,
    observed: Observed,
    records: Vec<Record>,
    accesses: u64,
}

impl InWorker {
    fn start(name: &'static str, setup: &Setup) -> Result<Self, TargetError> {
        let launch = prepare::launch(setup, &mut note).map_err(|error| match error {
            Error::Absent(why) => TargetError::Absent { name, why },
            Error::Failed(why) => TargetError::Failed(why),
        })?;
        let supervisor = Supervisor::start(launch).map_err(|error| failed(&error))?;
        let hello = supervisor.hello();
        let mut abilities = hello.abilities;
        // Where each name has a memslot of its own, it is the worker that tells names apart, and not KVM.
        abilities.shows.own_aliases = hello.alias_method == AliasMethod::Native;
        let observed = Observed::new(abilities);
        Ok(Self { supervisor, observed, records: Vec::new(), accesses: 0 })
    }

    /// Have `program` carried out, so that it can be judged.
    fn load(&mut self, program: &Program) -> Result<(), TargetError> {
        self.supervisor.ask(program, &mut self.records).map_err(|error| failed(&error))?;
        let mut at = None;
        for record in &self.records {
            match record {
                Record::Op(op) => at = Some(*op),
                Record::Exit(exit) if *exit != Exit::Unsupported => {
                    let op = at.and_then(|at| program.ops.get(at));
                    self.accesses += u64::from(matches!(op, Some(Op::Access { .. })));
                }
                _ => {}
            }
        }
        self.records = self.observed.load(program, std::mem::take(&mut self.records));
        Ok(())
    }
}

impl Target for InWorker {
    fn judge(&mut self, run: &mut Lockstep, program: &Program) -> Result<Option<Violation>, TargetError> {
        self.load(program)?;
        Ok(run.run(&mut self.observed, program))
    }

    fn report(
        &mut self,
        run: &mut Lockstep,
        program: &Program,
        name: &str,
    ) -> Result<(String, Option<Violation>), TargetError> {
        self.load(program)?;
        Ok(gpa_oracles::report(run, &mut self.observed, program, name))
    }

    fn profile(&self) -> Profile {
        self.supervisor.hello().abilities.profile()
    }

    fn capabilities(&self) -> Capabilities {
        self.supervisor.hello().abilities.shows
    }

    fn accesses(&self) -> Option<u64> {
        Some(self.accesses)
    }

    fn evidence(&self) -> Option<String> {
        let (about, starts) = (&self.supervisor.hello().about, self.supervisor.starts());
        Some(format!("{about}, {starts} workers"))
    }

    fn carry_out(&mut self, program: &Program) -> Result<(), TargetError> {
        self.supervisor.ask(program, &mut self.records).map_err(|error| failed(&error))
    }

    fn worker(&self) -> Option<u32> {
        self.supervisor.worker()
    }

    fn log(&mut self) -> Option<String> {
        Some(self.supervisor.log())
    }
}

fn failed(error: &WorkerError) -> TargetError {
    TargetError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_that_there_is_none_of_is_told_from_those_that_there_are() {
        for name in ["kvm-ko:nonsense", "kvm-ko-rmap:native@6.12"] {
            match open(name) {
                Some(Err(TargetError::Unknown { name: unknown, known })) => {
                    assert_eq!(unknown, name);
                    assert!(known[1].ends_with(":slots"), "{known:?}");
                }
                _ => panic!("{name} is none"),
            }
        }
        assert!(open("kvm-mmu").is_none() && open("linux-kvm-npt").is_none());
    }

    #[test]
    fn another_kernel_is_part_of_the_name() {
        assert_eq!(with_kernel("kvm-ko:slots", "7.3").as_deref(), Some("kvm-ko:slots@7.3"));
        assert_eq!(with_kernel("linux-kvm-npt", "7.3"), None);
    }
}
