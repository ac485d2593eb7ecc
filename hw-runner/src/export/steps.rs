//! What real KVM can carry out of a program, with what each op must come to, and the words that every language has for it.

use crate::kvm::alias_method::AliasMethod;
use crate::machine::end_of_fault;
use crate::trace::support::supports;
use gpa_model::limits::HOST_PAGES;
use gpa_model::text::print;
use gpa_model::{Allowed, Exit, Host, HostPage, Model, Op, Pfn, Program};

/// One op that is carried out, with what it must come to.
pub(super) struct Step<'a> {
    pub(super) at: usize,
    pub(super) op: &'a Op,
    pub(super) allowed: Allowed,
    pub(super) host: Host,
    /// The host page that a fault waits for from here on.
    pub(super) awaits: Option<HostPage>,
}

/// Go through what real KVM can carry out of `program`; the rest is left out, for the model too. Where none is to be held open, a fault
/// is over at once.
pub(super) fn steps(program: &Program, alias_method: AliasMethod, holds: bool) -> Vec<Step<'_>> {
    // What only a kernel that strips stolen bits can do is not written down.
    let alias_method = if alias_method == AliasMethod::Native { AliasMethod::default() } else { alias_method };
    let (mut host, mut model) = (Host::default(), Model::new(&program.vm));
    let mut steps = Vec::new();
    for (at, op) in program.ops.iter().enumerate() {
        let internal = matches!(op, Op::Slot { id, .. } if id.is_internal());
        if internal || !supports(&program.vm, op, alias_method) || !model.accepts(&host, op) {
            continue;
        }
        host.apply(op);
        // A right KVM does what the guest is entitled to.
        let wanted = model.clone().step(&host, op, &Exit::Done);
        let exit = wanted.memory.map_or(Exit::Done, Exit::Memory);
        // Of a fault that is held open it is what it may come to where it cannot be.
        let allowed = model.clone().step(&host, op, &exit);
        let held = holds && end_of_fault(program, at).is_some() && allowed.mmio.is_none();
        let awaits = allowed.memory.filter(|_| held).and_then(|pfn| page_of(&host, pfn));
        model.step(&host, op, if awaits.is_some() { &Exit::Pending } else { &exit });
        steps.push(Step { at, op, allowed, host: host.clone(), awaits });
    }
    steps
}

/// The host page that `pfn` is now.
fn page_of(host: &Host, pfn: Pfn) -> Option<HostPage> {
    (0..HOST_PAGES as u64).map(HostPage::new).find(|hva| host.pfn(*hva) == pfn)
}

/// What an access may come to, in words.
pub(super) fn expected(allowed: &Allowed) -> String {
    let memory = allowed.memory.map(|pfn| format!("page {:#x}", pfn.raw()));
    let mmio = allowed.mmio.map(|gfn| format!("an exit for frame {gfn}"));
    let error = allowed.error.then(|| "a failure".to_owned());
    let words: Vec<String> = [memory, mmio, error].into_iter().flatten().collect();
    words.join(" or ")
}

/// The whole program as a comment, whose lines begin with `line`.
pub(super) fn comment(program: &Program, line: &str, open: &str, close: &str) -> String {
    // What people wrote may hold what ends a comment of C.
    let text = print(program).replace("*/", "* /").replace("/*", "/ *");
    let lines: String = text.lines().map(|text| format!("{line}{text}\n")).collect();
    format!("{open}{lines}{close}")
}
