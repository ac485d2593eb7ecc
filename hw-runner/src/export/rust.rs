//! A program as a Rust test that uses this crate.

use crate::kvm::alias_method::AliasMethod;
use gpa_model::Program;
use gpa_model::text::print;

pub(super) fn source(program: &Program, alias_method: AliasMethod) -> String {
    let text: String = print(program).lines().map(|line| format!("    {line:?},\n")).collect();
    format!(
        "//! A program of GPA aliasing that must be clean on this host's /dev/kvm.\n\n\
         use gpa_model::text;\nuse gpa_oracles::{{Lockstep, report}};\nuse hw_runner::{{Machine, AliasMethod, Replay}};\n\n\
         const PROGRAM: &[&str] = &[\n{text}];\n\n\
         #[test]\nfn every_name_of_a_frame_is_that_frame() {{\n\
         \x20   let program = text::parse(&PROGRAM.join(\"\\n\")).expect(\"a program\");\n\
         \x20   let alias_method = AliasMethod::named(\"{alias_method}\").expect(\"an alias method\");\n\
         \x20   let mut machine = match Machine::open_with(alias_method) {{\n\
         \x20       Ok(machine) => machine,\n\
         \x20       Err(error) if error.is_absence() => return println!(\"SKIPPED: {{error}}\"),\n\
         \x20       Err(error) => panic!(\"{{error}}\"),\n\
         \x20   }};\n\
         \x20   let mut replay = Replay::default();\n\
         \x20   replay.load(machine.run(&program).expect(\"a run\"));\n\
         \x20   let (report, violation) = report(&mut Lockstep::default(), &mut replay, &program, \"kvm\");\n\
         \x20   assert!(violation.is_none(), \"{{report}}\");\n\
         }}\n"
    )
}
