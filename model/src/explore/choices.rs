//! Where decisions come from: a random generator, or the bytes of a fuzzer. One generator of programs serves both.

use arbitrary::Unstructured;
use rand::Rng;

/// A source of decisions.
pub trait Choices {
    /// A number below `n`, which is at least 1.
    fn below(&mut self, n: u32) -> u32;

    /// Whether an event of probability `num` in `den` happens.
    fn chance(&mut self, num: u32, den: u32) -> bool {
        self.below(den) < num
    }

    /// An element of `items`, which is not empty.
    fn pick<T: Copy>(&mut self, items: &[T]) -> T
    where
        Self: Sized,
    {
        items[self.below(items.len() as u32) as usize]
    }
}

/// Decisions drawn from a random generator.
#[derive(Debug)]
pub struct FromRng<R>(pub R);

impl<R: Rng> Choices for FromRng<R> {
    fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(n)) >> 32) as u32
    }
}

/// Decisions read from bytes. When they run out every decision is 0, so any bytes mean something.
#[derive(Debug)]
pub struct FromBytes<'a, 'b>(pub &'a mut Unstructured<'b>);

impl Choices for FromBytes<'_, '_> {
    fn below(&mut self, n: u32) -> u32 {
        self.0.int_in_range(0..=n - 1).unwrap_or(0)
    }
}
