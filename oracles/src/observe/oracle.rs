//! The trait of every law.

use super::{Clause, End, Objection, Step, Tally};

/// One law.
pub trait Oracle {
    /// Its name.
    fn name(&self) -> &'static str;

    /// The clauses of the law.
    fn clauses(&self) -> &'static [Clause];

    /// A new program begins.
    fn reset(&mut self) {}

    /// Judge one op. `tally` has one place for each clause.
    ///
    /// # Errors
    /// An [`Objection`] if the law is broken.
    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection>;

    /// Judge what is left at the end of a program.
    ///
    /// # Errors
    /// An [`Objection`] if the law is broken.
    fn finish(&mut self, _end: &End<'_>, _tally: &mut [Tally]) -> Result<(), Objection> {
        Ok(())
    }
}
