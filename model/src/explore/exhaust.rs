//! Every program of a small scope, one by one: what a campaign leaves to chance, up to a bound.
//!
//! A [`Scope`] is a VM with few of everything: frames, memslots, aliases, vCPUs. Its [`alphabet`](Scope::alphabet) is every op
//! with every operand. [`Scope::explore`] goes through the programs, shorter ones first, so that what breaks a law is found in
//! the fewest ops. An op that the model does not accept is left out, with all that would follow: it would be skipped.
//!
//! **Folding.** Things that differ in name only are named in the order of their first use, and a program stands for all those
//! that rename it. What is renamed, and why the law cannot tell:
//!
//! | what | why |
//! |---|---|
//! | vCPUs | each is a fault in progress or none, and a TLB that may hold all that was ever visible |
//! | user slots, private slots | ids are compared with each other and with the first private one, never with a number |
//! | host blocks | host pages are compared; a block keeps its pages in their order |
//! | notifier windows | each is a range or none |
//! | stolen bits | an alias is a set of them; so the alias of two bits stays one of two bits |
//!
//! Frames are **not** folded. Where a page lies in its slot is what flushed ranges, cleared ranges and prefetch are about: a
//! range that begins one page late is seen at the first page and nowhere else. Aliases are folded by their bits, not by
//! their numbers, because an MMU may treat "all bits" apart.
//!
//! A renaming is an automorphism of the model, which the tests of this crate check. Whether it is one of the target is for
//! its tests: that each mutant which dies unfolded dies folded, too. An MMU that treats vCPU 1 unlike vCPU 0 needs
//! [`Scope::unfolded`].
mod alphabet;
mod fold;
mod scope;
mod states;
mod walk;

pub use scope::{Scope, ScopeError};
pub use walk::{Answer, Explored, Visit};
