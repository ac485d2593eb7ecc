//! Being built.
use gpa_model::{Exit, FlushBackend, Gpa, Host, Mmu, Op, Spte, Vm};
use std::marker::PhantomData;

/// The decisions that aliasing adds.
pub trait Policy: Default + std::fmt::Debug {}
/// The right answers.
#[derive(Debug, Default)]
pub struct Corrected;
impl Policy for Corrected {}
/// The seed as posted.
#[derive(Debug, Default)]
pub struct RfcV3;
impl Policy for RfcV3 {}
/// The MMU.
#[derive(Debug)]
pub struct KvmMmu<P: Policy = Corrected>(PhantomData<P>);
impl<P: Policy> Mmu for KvmMmu<P> {
    fn new(_: &Vm) -> Self {
        Self(PhantomData)
    }
    fn step(&mut self, _: &Host, _: &mut FlushBackend, _: &Op) -> Exit {
        Exit::Unsupported
    }
    fn walk(&self, _: Gpa) -> Option<Spte> {
        None
    }
}
