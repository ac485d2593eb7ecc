//! The ops of a program that real KVM can carry out, with their expected results, and text that all languages
//! share.

use crate::kvm::alias_method::AliasMethod;
use crate::machine::end_of_fault;
use crate::trace::support::supports;
use gpa_model::limits::HOST_PAGES;
use gpa_model::text::print;
use gpa_model::{Allowed, Exit, Host, HostPage, Model, Op, Pfn, Program, VmConfig};

/// One op that is carried out, with its expected result.
pub(super) struct Step<'a> {
    pub(super) at: usize,
    pub(super) op: &'a Op,
    pub(super) allowed: Allowed,
    pub(super) host: Host,
    /// The host page that a held fault waits for from here on.
    pub(super) awaits: Option<HostPage>,
}

/// The ops of `program` that real KVM can carry out; the model skips the others, too. Without `holds` a fault
/// ends at once.
pub(super) fn steps(program: &Program, alias_method: AliasMethod, holds: bool) -> Vec<Step<'_>> {
    // Ops that need a kernel that strips stolen bits are left out.
    let alias_method = if alias_method == AliasMethod::Native { AliasMethod::default() } else { alias_method };
    let (mut host, mut model) = (Host::default(), Model::new(&program.vm));
    let mut steps = Vec::new();
    for (at, op) in program.ops.iter().enumerate() {
        let internal = matches!(op, Op::Slot { id, .. } if id.is_internal());
        if internal || !supports(&program.vm, op, alias_method) || !model.accepts(&host, op) {
            continue;
        }
        host.apply(op);
        // A correct KVM maps what the guest is entitled to.
        let wanted = model.clone().step(&host, op, &Exit::Done);
        let exit = wanted.memory.map_or(Exit::Done, Exit::Memory);
        // For a held fault: the result where it cannot be held.
        let allowed = model.clone().step(&host, op, &exit);
        let held = holds && end_of_fault(program, at).is_some() && allowed.mmio.is_none();
        let awaits = allowed.memory.filter(|_| held).and_then(|pfn| page_of(&host, pfn));
        model.step(&host, op, if awaits.is_some() { &Exit::Pending } else { &exit });
        steps.push(Step { at, op, allowed, host: host.clone(), awaits });
    }
    steps
}

/// The host page whose identity is `pfn`.
fn page_of(host: &Host, pfn: Pfn) -> Option<HostPage> {
    (0..HOST_PAGES as u64).map(HostPage::new).find(|hva| host.pfn(*hva) == pfn)
}

/// The allowed results of an access, in words.
pub(super) fn expected(vm: &VmConfig, allowed: &Allowed) -> String {
    let memory = allowed.memory.map(|pfn| format!("page {:#x}", pfn.raw()));
    let mmio = allowed.mmio.map(|gpa| format!("an exit for frame {}", vm.stolen().split(gpa).0));
    let error = allowed.error.then(|| "a failure".to_owned());
    let words: Vec<String> = [memory, mmio, error].into_iter().flatten().collect();
    words.join(" or ")
}

/// The program as a comment, each line starting with `line`.
pub(super) fn comment(program: &Program, line: &str, open: &str, close: &str) -> String {
    // The program's comments may contain the end of a C comment.
    let text = print(program).replace("*/", "* /").replace("/*", "/ *");
    let lines: String = text.lines().map(|text| format!("{line}{text}\n")).collect();
    format!("{open}{lines}{close}")
}
