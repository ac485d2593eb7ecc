//! What a worker does all day: take a question, carry the program out op by op, and write down what was seen.
//!
//! What is not accepted by the model or not supported is left out, by the same rules as the run that judges the answer goes by.

use crate::abilities::Abilities;
use crate::wire::{Answer, Doorbell, Hello, Record, question};
use gpa_model::{Exit, Host, Model, Op, VmConfig};
use std::io;
use std::os::unix::net::UnixStream;

/// An implementation that carries ops out and writes down what it sees.
pub trait Executor {
    /// A new VM, on which nothing was done yet. What the kernel said before is no concern of it.
    fn begin(&mut self, vm: &VmConfig, answer: &mut Answer<'_>);

    /// Whether `op`, which means something, can be carried out in this state.
    fn can(&self, _op: &Op) -> bool {
        true
    }

    /// Carry out `op`, with the host as it is after it, and add to `answer` what it took: flushes, changed entries, alarms. `None` if the
    /// kernel died of it: then an alarm says so.
    fn carry_out(&mut self, host: &Host, op: &Op, answer: &mut Answer<'_>) -> Option<Exit>;

    /// The program is over: add what is kept by gfn, and take the VM down.
    fn end(&mut self, answer: &mut Answer<'_>);
}

/// Say what is ready, then answer every question by `executor` into `memory`, until the other side is gone.
///
/// # Errors
/// If the other side sends something that is no question.
pub fn serve(mut socket: UnixStream, memory: &mut [u8], hello: &Hello, executor: &mut impl Executor) -> io::Result<()> {
    let text = hello.print();
    memory.get_mut(..text.len()).ok_or(io::ErrorKind::OutOfMemory)?.copy_from_slice(text.as_bytes());
    Doorbell { number: 0, bytes: text.len() as u64 }.send(&mut socket)?;
    loop {
        let (number, program) = match question::receive(&mut socket) {
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                return Ok(());
            }
            question => question?,
        };
        let mut answer = Answer::begin(memory, number);
        let alive = carry_out(&hello.abilities, &program.vm, &program.ops, &mut answer, executor);
        let bytes = answer.bytes() as u64;
        Doorbell { number, bytes }.send(&mut socket)?;
        if !alive {
            return Ok(());
        }
    }
}

/// Carry `ops` out; whether the kernel lives.
fn carry_out(
    abilities: &Abilities,
    vm: &VmConfig,
    ops: &[Op],
    answer: &mut Answer<'_>,
    executor: &mut impl Executor,
) -> bool {
    let (mut host, mut model) = (Host::new(vm), Model::new(vm));
    let possible = abilities.supports_vm(vm);
    if possible {
        executor.begin(vm, answer);
        for (at, op) in ops.iter().enumerate() {
            if !abilities.supports(op) || !model.accepts(&host, op) {
                continue;
            }
            if !executor.can(op) {
                answer.add(&Record::Unable(at));
                continue;
            }
            answer.add(&Record::Op(at));
            host.apply(op);
            let Some(exit) = executor.carry_out(&host, op, answer) else { return false };
            answer.add(&Record::Exit(exit));
            host.settle(op, &exit);
            model.step(&host, op, &exit);
        }
        executor.end(answer);
    }
    if !answer.is_full() {
        answer.add(&Record::End);
    }
    true
}
