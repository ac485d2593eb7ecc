//! Mutants: MMUs with one mistake each, which the oracles have to find.
//!
//! M*xy* breaks hunk *x* of the RFC or, from M80 on, a claim of its message. M*x*T to M*x*Z are further variants. B*nn*
//! repeats a mistake that Linux once made, and names the fix or the CVE. U*n* is a weakness of upstream's design. To
//! add a mutant, add a policy that overrides one method to the table of the file for what it breaks.

use crate::{Family, Format, KvmMmu, Policy};
use gpa_model::generate::Profile;
use gpa_model::{Alias, Gfn, Gpa, Mmu, VmConfig};

/// What a mutant breaks, and which oracle has to find it.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name in the catalogue.
    pub name: &'static str,
    /// The hunk or claim of the RFC that it breaks.
    pub breaks: &'static str,
    /// The oracle that has to catch it, and the clause.
    pub caught_by: (&'static str, &'static str),
    /// The policy with the mistake.
    pub policy: &'static dyn Policy,
    /// Generic in the format alone, so that the MMU is compiled once for each format.
    make: fn(&'static dyn Policy) -> Box<dyn Mmu>,
}

impl Mutant {
    /// The mutant, ready to run.
    pub fn mmu(&self) -> Box<dyn Mmu> {
        (self.make)(self.policy)
    }

    /// What to generate for it: VMs with a shared bit too, if it can be one.
    pub fn profile(&self) -> Profile {
        let shared_private = if self.policy.family() == Family::Tdp { 4 } else { 0 };
        Profile { shared_private, ..Profile::default() }
    }

    /// The same, with tables in format `F`.
    const fn on<F: Format>(self) -> Self {
        Self { make: make::<F>, ..self }
    }
}

/// An MMU with `policy` and tables in format `F`.
fn make<F: Format>(policy: &'static dyn Policy) -> Box<dyn Mmu> {
    Box::new(KvmMmu::<_, F>::with_policy(policy, &VmConfig::default()))
}

/// The mutant called `name`, or `None` if there is none.
pub fn named(name: &str) -> Option<&'static Mutant> {
    ALL.iter().find(|mutant| mutant.name == name)
}

/// Policies that override one decision each, and `TABLE`, their list.
macro_rules! mutants {
    ($($policy:ident $(on $format:ident)? = $name:literal, $breaks:literal, $oracle:literal / $clause:literal, { $($body:tt)* })*) => {
        $(
            #[doc = concat!($name, ": ", $breaks, ".")]
            #[derive(Debug)]
            struct $policy;

            impl $crate::Policy for $policy { $($body)* }
        )*

        pub(super) const TABLE: &[super::Mutant] = &[
            $(super::Mutant {
                name: $name,
                breaks: $breaks,
                caught_by: ($oracle, $clause),
                policy: &$policy,
                make: super::make::<$crate::Ept>,
            } $(.on::<$format>())?,)*
        ];
    };
}

mod claims;
mod equivalent;
mod faults;
mod flush;
mod guest_tables;
mod history;
mod mapping;
mod shadow_pages;
mod shared_private;
mod tdp;
mod unalias;

pub use equivalent::{EQUIVALENT, Equivalent};

/// In the order of the catalogue.
const TABLES: [&[Mutant]; 10] = [
    unalias::TABLE,
    flush::TABLE,
    shadow_pages::TABLE,
    mapping::TABLE,
    faults::TABLE,
    guest_tables::TABLE,
    claims::TABLE,
    history::TABLE,
    tdp::TABLE,
    shared_private::TABLE,
];

/// Every mutant, in the order of the catalogue.
pub static ALL: &[Mutant] = &concat::<{ count() }>();

const fn count() -> usize {
    let (mut sum, mut table) = (0, 0);
    while table < TABLES.len() {
        sum += TABLES[table].len();
        table += 1;
    }
    sum
}

const fn concat<const N: usize>() -> [Mutant; N] {
    let mut all = [TABLES[0][0]; N];
    let (mut at, mut table) = (0, 0);
    while table < TABLES.len() {
        let mut row = 0;
        while row < TABLES[table].len() {
            all[at] = TABLES[table][row];
            (at, row) = (at + 1, row + 1);
        }
        table += 1;
    }
    all
}

/// The page number with its stolen bits, used as a gfn: the mistake of most of these mutants.
fn raw_gfn(gpa: Gpa) -> Gfn {
    Gfn::new(gpa.page())
}

fn aliased(gfn: Gfn, alias: Alias) -> Gfn {
    Gfn::new(gfn.raw() | alias.raw())
}
