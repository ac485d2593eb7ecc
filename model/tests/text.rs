//! The text format loses nothing, refuses with a reason, and is never brought down by what stands in a file.

use gpa_model::choices::{Choices, FromRng};
use gpa_model::generate::{Generator, Profile};
use gpa_model::limits::{COMMENT_LINES, FILE_BYTES, MAXPHYADDR_MAX, MAXPHYADDR_MIN, OPS};
use gpa_model::text::{parse, print};
use gpa_model::{BackendMode, Gfn, GuestPaging, Levels, Op, OpKind, Program, StolenMask, VmConfig};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::collections::BTreeSet;

fn choices(seed: u64) -> FromRng<Xoshiro256PlusPlus> {
    FromRng(Xoshiro256PlusPlus::seed_from_u64(seed))
}

fn generated(seed: u64) -> Program {
    let mut program = Program::default();
    Generator::new(Profile::default()).program(&mut choices(seed), &mut program);
    program
}

#[test]
fn every_generated_program_prints_and_parses_back_equal() {
    let mut kinds = BTreeSet::new();
    for seed in 0..4000 {
        let program = generated(seed);
        kinds.extend(program.ops.iter().map(Op::kind));
        let text = print(&program);
        let read = parse(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        assert_eq!(read, program, "seed {seed}");
        assert_eq!(print(&read), text, "seed {seed}");
    }
    assert_eq!(kinds.len(), OpKind::ALL.len(), "the seeds reach every kind of op");
}

#[test]
fn every_vm_prints_and_parses_back_equal() {
    for bits in [&[][..], &[21], &[47], &[30, 40], &[45, 46, 47], &[47, 21, 33], &[48, 56]] {
        for vcpus in 1..=4 {
            for mode in BackendMode::ALL {
                let vm = VmConfig::new(StolenMask::new(bits).unwrap(), vcpus, Gfn::new(0x100), mode).unwrap();
                let far = [1, 64, 4096, 32768].map(|stride| vm.with_frames(Gfn::new(0x38000), stride));
                for vm in far.into_iter().flatten().chain([vm]) {
                    for (levels, maxphyaddr) in
                        [(Levels::Four, 46), (Levels::Five, MAXPHYADDR_MIN), (Levels::Five, MAXPHYADDR_MAX)]
                    {
                        let paging = GuestPaging::ALL[usize::from(maxphyaddr) % GuestPaging::ALL.len()];
                        let vm = vm.with_maxphyaddr(maxphyaddr).unwrap().with_paging(paging);
                        let Ok(vm) = vm.with_levels(levels) else { continue };
                        let program = Program { vm, ..Program::default() };
                        assert_eq!(parse(&print(&program)), Ok(program));
                    }
                }
            }
        }
    }
}

#[test]
fn the_comment_at_the_head_is_kept_as_it_is() {
    let text = "gpafuzz-program 1\n# What it shows:\n#\n#   indented\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n";
    let program = parse(text).unwrap();
    assert_eq!(program.comment, ["What it shows:", "", "  indented"]);
    assert_eq!(print(&program), text);
}

/// A byte that is likely to mean something, or one that is none of the format's.
const INTERESTING: [&[u8]; 14] = [
    b"\n",
    b" ",
    b"#",
    b"@",
    b"=",
    b",",
    b"0",
    b"0x",
    b"v",
    b"-",
    b"99999999999999999999",
    b"\0",
    b"\xff",
    "é…".as_bytes(),
];

#[test]
fn mutated_text_is_read_or_refused_but_never_panics() {
    let (mut read, mut refused) = (0u32, 0u32);
    for seed in 0..8000 {
        let mut choices = choices(seed);
        let mut bytes = print(&generated(seed % 200)).into_bytes();
        for _ in 0..=choices.below(2) {
            let at = choices.below(bytes.len() as u32) as usize;
            let end = (at + choices.below(8) as usize).min(bytes.len());
            match choices.below(4) {
                0 => drop(bytes.drain(at..end)),
                1 => bytes[at] ^= 1 << choices.below(8),
                2 => drop(bytes.splice(at..at, choices.pick(&INTERESTING).iter().copied())),
                _ => {
                    let run = bytes[at..end].to_vec();
                    let to = choices.below(bytes.len() as u32) as usize;
                    bytes.splice(to..to, run);
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        match parse(&text) {
            Ok(program) => {
                read += 1;
                assert_eq!(program.check(), Ok(()), "seed {seed}: what is read is within limits\n{text}");
                assert_eq!(parse(&print(&program)), Ok(program), "seed {seed}\n{text}");
            }
            Err(error) => {
                refused += 1;
                let lines = text.lines().count().max(1);
                assert!((1..=lines).contains(&error.line) && error.column >= 1, "seed {seed}: {error}\n{text}");
                assert!(!error.expected.is_empty() && !error.found.is_empty(), "seed {seed}: {error}");
            }
        }
    }
    println!("{read} read, {refused} refused");
    assert!(read > 300 && refused > 1000, "{read} read, {refused} refused: the mutations miss one side");
}

/// Files that are refused, and one line of what makes each special. `OPEN` stands for a good head.
const BAD: &[(&str, &str)] = &[
    ("empty", ""),
    ("blank first line", "\ngpafuzz-program 1\n"),
    ("another format", "gpafuzz-trace 1\n"),
    ("no version", "gpafuzz-program\n"),
    ("a version that is no number", "gpafuzz-program one\n"),
    ("version 0", "gpafuzz-program 0\n"),
    ("a newer version", "gpafuzz-program 2\n"),
    ("words after the version", "gpafuzz-program 1 beta\n"),
    ("no vm line", "gpafuzz-program 1\n# only a comment\n"),
    ("an op before the vm line", "gpafuzz-program 1\nslot-end\n"),
    ("a field that is missing", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0\n"),
    ("fields in another order", "gpafuzz-program 1\nvm vcpus=2 stolen=40 base=0x1e0 flush=works\n"),
    ("a stolen bit that is no number", "gpafuzz-program 1\nvm stolen=c vcpus=2 base=0x1e0 flush=works\n"),
    ("a stolen bit inside a leaf table", "gpafuzz-program 1\nvm stolen=20 vcpus=2 base=0x1e0 flush=works\n"),
    ("a stolen bit above the root", "gpafuzz-program 1\nvm stolen=48 vcpus=2 base=0x1e0 flush=works\n"),
    ("a stolen bit above any root", "gpafuzz-program 1\nvm stolen=57 vcpus=2 base=0x1e0 flush=works levels=5\n"),
    ("a stolen bit twice", "gpafuzz-program 1\nvm stolen=40,40 vcpus=2 base=0x1e0 flush=works\n"),
    ("too many stolen bits", "gpafuzz-program 1\nvm stolen=40,41,42,43 vcpus=2 base=0x1e0 flush=works\n"),
    ("a stolen bit among the frames", "gpafuzz-program 1\nvm stolen=21 vcpus=2 base=0x1e0 flush=works\n"),
    ("no vCPU", "gpafuzz-program 1\nvm stolen=40 vcpus=0 base=0x1e0 flush=works\n"),
    ("too many vCPUs", "gpafuzz-program 1\nvm stolen=40 vcpus=5 base=0x1e0 flush=works\n"),
    ("a base that is too high", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x400000 flush=works\n"),
    ("an unknown back-end", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=sometimes\n"),
    ("six levels", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works levels=6\n"),
    ("too wide an address", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works maxphyaddr=53\n"),
    ("options in another order", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works log=pml levels=5\n"),
    ("words after the vm", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works now\n"),
    ("a stride that is no power of two", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works stride=3\n"),
    ("a stride that is too long", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0 flush=works stride=65536\n"),
    ("a ring of three entries", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works dirty-ring=3\n"),
    ("too large a ring", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works dirty-ring=256\n"),
    (
        "async page faults that are neither on nor off",
        "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works async-pf=yes\n",
    ),
    ("a base between frames", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works stride=64\n"),
    (
        "a strided base that is too high",
        "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x400000 flush=works stride=64\n",
    ),
    (
        "a stolen bit where 2 MiB leaves are",
        "gpafuzz-program 1\nvm stolen=29 vcpus=2 base=0x40000 flush=works stride=64\n",
    ),
    (
        "a stolen bit where 1 GiB leaves are",
        "gpafuzz-program 1\nvm stolen=38 vcpus=2 base=0x40000 flush=works stride=4096\n",
    ),
    ("a gfn between frames", "FAR v0 read 0x40020\n"),
    ("a slot that begins between frames", "FAR slot 0 create gfn=0x40020 pages=64 hva=0\n"),
    ("a slot that ends between frames", "FAR slot 0 create gfn=0x40000 pages=65 hva=0\n"),
    ("an hva between host pages", "FAR unmap hva=1 pages=64\n"),
    ("host pages beyond a larger memory", "FAR collapse hva=0xe00 pages=1024\n"),
    ("pages beyond a larger window", "FAR slot 0 create gfn=0x40fc0 pages=128 hva=0\n"),
    ("an unknown op", "OPENfly\n"),
    ("a long word", "OPENaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"),
    ("a control character", "OPENsl\u{7}ot\n"),
    ("a column after wide characters", "OPENslot é create\n"),
    ("a slot id that is too high", "OPENslot 8 delete\n"),
    ("a private id that is too high", "OPENslot p3 delete\n"),
    ("no slot change", "OPENslot 0\n"),
    ("an unknown slot change", "OPENslot 0 grow\n"),
    ("no pages", "OPENslot 0 create gfn=0x1e0 pages=0 hva=0\n"),
    ("more pages than frames", "OPENslot 0 create gfn=0x1e0 pages=65 hva=0\n"),
    ("pages beyond the window", "OPENslot 0 create gfn=0x21f pages=2 hva=0\n"),
    ("host pages beyond the memory", "OPENslot 0 create gfn=0x1e0 pages=2 hva=63\n"),
    ("an unknown flag", "OPENslot 0 create gfn=0x1e0 pages=1 hva=0 shared\n"),
    ("a flag twice", "OPENslot 0 flags readonly readonly\n"),
    ("no flags", "OPENslot 0 flags\n"),
    ("none and more", "OPENslot 0 flags none readonly\n"),
    ("a gfn outside of the window", "OPENv0 read 0x1df\n"),
    ("a gfn above everything", "OPENv0 read 0x4001\n"),
    ("a gfn with a stolen bit", "OPENslot 0 move gfn=0x100001e0\n"),
    ("an alias the VM has not", "OPENv0 read 0x1e0@2\n"),
    ("an alias that is no number", "OPENv0 read 0x1e0@x\n"),
    ("a negative number", "OPENv0 read -1\n"),
    ("a signed number", "OPENv0 read +0x1e0\n"),
    ("a vCPU the VM has not", "OPENv2 read 0x1e0\n"),
    ("a vCPU that is no vCPU", "OPENv1000 read 0x1e0\n"),
    ("an access without an address", "OPENv0 write\n"),
    ("an unknown access", "OPENv0 touch 0x1e0\n"),
    ("an unknown access to begin", "OPENv0 fault-begin touch 0x1e0\n"),
    ("words after an op", "OPENslot-end now\n"),
    ("a notifier window that is not there", "OPENunmap-begin w2 hva=0 pages=1\n"),
    ("a notifier window that is none", "OPENunmap-end 0\n"),
    ("a range that is empty", "OPENage hva=0 pages=0\n"),
    ("another key", "OPENage gfn=0 pages=1\n"),
    ("a walk without a leaf", "OPENv0 translate table=0x1e0\n"),
    ("an entry that is not there", "OPENv0 write-gpte 0x1e0 index=4 gpa=0x1e1 present\n"),
    ("an entry for no gfn", "OPENv0 write-gpte 0x1e0 index=0 present\n"),
    ("a flag of an entry twice", "OPENv0 write-gpte 0x1e0 index=0 gpa=0x1e1 user user\n"),
    ("a walk that does nothing", "OPENv0 guest-walk root=0x1e0 gva=0.0.0.0\n"),
    ("a walk with too few indices", "OPENv0 guest-walk read root=0x1e0 gva=0.0.0\n"),
    ("a walk with too many indices", "OPENv0 guest-walk read root=0x1e0 gva=0.0.0.0.0\n"),
    ("an index that is not there", "OPENv0 guest-walk read root=0x1e0 gva=0.0.0.4\n"),
    ("an unknown paging mode", "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works paging=6-level\n"),
    ("frames to clear outside of the window", "OPENdirty-clear 0 gfn=0x21f pages=2\n"),
    ("an unknown back-end mode", "OPENbackend fails-third\n"),
];

const FAR: &str = "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x40000 flush=works stride=64\n";
const OPEN: &str = "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works\n";

#[test]
fn every_error_says_where_what_was_expected_and_what_was_found() {
    let mut cases: Vec<(&str, String)> =
        BAD.iter().map(|(what, text)| (*what, text.replace("OPEN", OPEN).replace("FAR ", FAR))).collect();
    cases.push(("too many ops", OPEN.to_owned() + &"slot-end\n".repeat(OPS + 1)));
    cases.push(("too many comment lines", "gpafuzz-program 1\n".to_owned() + &"# more\n".repeat(COMMENT_LINES + 1)));
    cases.push(("too long a file", " ".repeat(FILE_BYTES + 1)));
    let mut shown = String::new();
    for (what, text) in cases {
        let error = parse(&text).expect_err(what);
        let line = text.lines().nth(error.line - 1).unwrap_or_default();
        let line: String = line.chars().take(80).flat_map(char::escape_debug).collect();
        shown.push_str(&format!("{what}\n    {line}\n    {error}\n"));
    }
    insta::assert_snapshot!("errors", shown);
}
