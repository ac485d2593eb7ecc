//! Catalogues of mutants: those of `kvm-mmu`, and those of the real kernel in the lab.

use crate::target::registry::{self, MUTANT, STOLEN_MUTANTS_OF};
use kernels::stolen;
use kvm_mmu::mutants::{self, EQUIVALENT, Equivalent};

/// The mutants of one target.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// In the order in which they are hunted.
    pub mutants: Vec<Quarry>,
    /// Those that behave like the corrected design.
    pub equivalent: &'static [Equivalent],
    /// The largest number of programs for each, unless `--runs` says otherwise.
    pub runs: u64,
    /// How many seconds each campaign may take at most, where a mutant can cost a boot for each program.
    pub seconds: Option<u64>,
}

/// A mutant to be hunted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarry {
    /// Its name.
    pub name: &'static str,
    /// The hunk or claim of the RFC that it breaks.
    pub breaks: &'static str,
    /// The oracle meant to catch it, and the clause.
    pub caught_by: (&'static str, &'static str),
    /// The target that it is.
    pub target: String,
}

/// Programs that a mutant of `kvm-mmu` is given, which takes a second.
const RUNS: u64 = 100_000;
/// Programs that a mutant of the real kernel is given.
const RUNS_IN_LAB: u64 = 20_000;
/// And for how long. All that die, die within a minute; one that takes the kernel with it needs a boot for each program.
const SECONDS_IN_LAB: u64 = 90;

impl Catalogue {
    /// Targets that have one.
    pub const TARGETS: [&str; 2] = [registry::DEFAULT, STOLEN_MUTANTS_OF];

    /// The catalogue of `target`, or `None` if it has none.
    pub fn of(target: &str) -> Option<Self> {
        if target == registry::DEFAULT {
            let quarry = |mutant: &mutants::Mutant| Quarry {
                name: mutant.name,
                breaks: mutant.breaks,
                caught_by: mutant.caught_by,
                target: format!("{MUTANT}{}", mutant.name),
            };
            return Some(Self {
                mutants: mutants::ALL.iter().map(quarry).collect(),
                equivalent: EQUIVALENT,
                runs: RUNS,
                seconds: None,
            });
        }
        let quarry = |mutant: &stolen::Mutant| Quarry {
            name: mutant.name,
            breaks: mutant.breaks,
            caught_by: mutant.caught_by,
            target: format!("{target}:{}", mutant.name),
        };
        (target == STOLEN_MUTANTS_OF).then(|| Self {
            mutants: stolen::MUTANTS.iter().map(quarry).collect(),
            equivalent: &[],
            runs: RUNS_IN_LAB,
            seconds: Some(SECONDS_IN_LAB),
        })
    }

    /// Only the mutants called one of `names`, if there are any; the first unknown name is an error.
    ///
    /// # Errors
    /// The name.
    pub fn only(mut self, names: &[String]) -> Result<Self, String> {
        let is_known = |name: &&String| self.mutants.iter().any(|mutant| mutant.name == **name);
        if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
            return Err(unknown.clone());
        }
        self.mutants.retain(|mutant| names.is_empty() || names.iter().any(|name| name == mutant.name));
        Ok(self)
    }
}
