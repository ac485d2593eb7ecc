//! The lab against itself. These tests boot machines and build a kernel's modules, so they run only when they are asked for:
//! `cargo test --release --package gpafuzz --test lab -- --ignored`.

use gpa_model::choices::Choices;
use gpa_model::generate::Generator;
use gpa_model::{Program, StolenMask, text};
use kernels::Choice;
use linux_kvm::{Emulator, Lab, Setup};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: usize = 150;

/// A generator that anybody can repeat: Knuth's multiplier.
struct Lcg(u64);

impl Choices for Lcg {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(n)) >> 32) as u32
    }
}

/// Programs of VMs that steal no bits, each in a file.
fn programs(folder: &Path) -> Vec<PathBuf> {
    let generator = Generator::new(hw_runner::profile());
    let (mut choices, mut program, mut files) = (Lcg(1), Program::default(), Vec::new());
    while files.len() < PROGRAMS {
        generator.program(&mut choices, &mut program);
        if program.vm.stolen() == StolenMask::NONE {
            let path = folder.join(format!("{:03}.prog", files.len()));
            fs::write(&path, text::print(&program)).expect("a program is written");
            files.push(path);
        }
    }
    files
}

/// The observations of `files` on `target`: each trace from its program on.
fn observed(target: &str, files: &[PathBuf], folder: &Path) -> Vec<String> {
    let traces = folder.join(target);
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpafuzz"));
    command.arg("replay").args(files).args(["--target", target, "--record"]).arg(&traces);
    let output = command.output().expect("gpafuzz runs");
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(output.status.success(), "{target}: {}\n{}", output.status, said.join("\n"));
    let read = |file: &PathBuf| {
        let trace = traces.join(file.with_extension("trace").file_name().expect("a name"));
        let text = fs::read_to_string(trace).expect("a trace");
        text[text.find("\nvm ").expect("a program")..].to_owned()
    };
    files.iter().map(read).collect()
}

#[test]
#[ignore = "boots two labs and builds KVM"]
fn without_stolen_bits_the_patched_kernel_does_what_the_stock_one_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = programs(folder.path());
    let stock = observed("linux-kvm-npt-rmap", &files, folder.path());
    for target in ["linux-kvm-stolen", "linux-kvm-stolen-fixed"] {
        assert_eq!(observed(target, &files, folder.path()), stock, "{target}");
    }
    assert!(stock.iter().any(|trace| trace.contains("=> memory")), "no program reached memory");
}

/// What is watched from inside KVM must be right on a kernel that is: after each op, and however the guest came out of it last.
#[test]
#[ignore = "boots a lab and builds KVM"]
fn a_campaign_on_the_patched_kernel_with_its_gaps_closed_is_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpafuzz"));
    command.args(["fuzz", "--target", "linux-kvm-stolen-fixed", "--runs", "150", "--seed", "1", "--out"]);
    let output = command.arg(folder.path()).output().expect("gpafuzz runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("no oracle objects"), "{}\n{said}", output.status);
}

/// vCPUs that spin in different modes, which the host's own KVM may not have.
#[test]
#[ignore = "boots labs"]
fn stress_finds_nothing_on_the_stock_kernel_in_either_address_space() {
    for alias_method in ["smm", "slots", "guest-ptes"] {
        let setup = Setup {
            kernel: Choice::default(),
            emulator: Emulator::Qemu,
            parameters: Vec::new(),
            alias_method: Some(alias_method.into()),
            stolen: None,
            watched: false,
        };
        let mut lab = Lab::boot(&setup, &mut |line| eprintln!("{line}")).expect("a lab");
        let answer = lab.ask("stress 5").expect("an answer");
        println!("{answer:?}");
        assert_eq!(answer.complaint, None, "{alias_method}");
        let text = answer.text.expect("a report");
        let head = format!("aliases by {alias_method}: 2 vCPUs, native, ");
        assert!(text.starts_with(&head) && text.ends_with("  0 findings\n"), "{text}");
    }
}
