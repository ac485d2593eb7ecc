//! A supervisor and workers that do everything wrong: this program is both. With an argument it is a worker, whose kernel is the MMU in
//! Rust; a comment in a program makes it misbehave at a certain op.
#![expect(unsafe_code, reason = "a worker maps the answer's memory, and one of these corrupts and kills itself")]

use gpa_model::choices::FromRng;
use gpa_model::generate::Generator;
use gpa_model::{
    BackendMode, Capabilities, Exit, FlushBackend, GfnIndexed, Gpa, Host, Mmu, Op, Program, Spte, TlbEvent, VmConfig,
    text,
};
use gpa_oracles::Lockstep;
use kvm_ko::process::{Launch, Patience};
use kvm_ko::serve::{Executor, serve};
use kvm_ko::wire::{ANSWER_BYTES, Alarm, AlarmKind, Answer, Hello, Record};
use kvm_ko::{Abilities, Observed, Supervisor, WorkerError};
use kvm_mmu::{Corrected, KvmMmu};
use rand::SeedableRng;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What a worker does at the first `age`, besides.
const DEEDS: [&str; 7] = ["warn", "kill", "hang", "sleep", "garble", "flood", "bug"];

struct Fake {
    mmu: KvmMmu<Corrected>,
    vm: VmConfig,
    flush: FlushBackend,
    mode: BackendMode,
    deed: String,
    seen: Vec<(usize, usize)>,
}

impl Fake {
    fn misbehave(&self, answer: &mut Answer<'_>) -> bool {
        let alarm = |kind| Record::Alarm(Box::new(Alarm { kind, function: "rmap_add".into(), text: "it did".into() }));
        match self.deed.as_str() {
            "warn" => answer.add(&alarm(AlarmKind::Warn)),
            "bug" => {
                answer.add(&alarm(AlarmKind::Bug));
                return false;
            }
            "kill" => std::process::abort(),
            "hang" => loop {
                std::hint::spin_loop();
            },
            "sleep" => std::thread::sleep(Duration::from_secs(600)),
            "garble" => {
                let mut bytes = [0xff; 64];
                // SAFETY: nothing here looks at the memory of the answer by another way.
                let memory = unsafe { std::slice::from_raw_parts_mut(MEMORY as *mut u8, ANSWER_BYTES) };
                let at = answer.bytes();
                memory[at..at + bytes.len()].copy_from_slice(&bytes);
                bytes.fill(0);
                for _ in 0..8 {
                    answer.add(&Record::Freed);
                }
                memory[at] = 0xff;
            }
            "flood" => (0..ANSWER_BYTES).for_each(|_| answer.add(&Record::Freed)),
            _ => {}
        }
        true
    }
}

/// Where the answer is mapped.
const MEMORY: usize = 0x7000_0000_0000;

impl Executor for Fake {
    fn begin(&mut self, vm: &VmConfig, _answer: &mut Answer<'_>) {
        (self.vm, self.mode) = (*vm, vm.backend());
        self.mmu.reset(vm);
        self.seen.clear();
    }

    fn carry_out(&mut self, host: &Host, op: &Op, answer: &mut Answer<'_>) -> Option<Exit> {
        if let Op::Backend(mode) = op {
            self.mode = *mode;
        }
        self.flush.begin_op(self.mode);
        let exit = self.mmu.step(host, &mut self.flush, op);
        if matches!(op, Op::Age { .. }) && !self.misbehave(answer) {
            return None;
        }
        for event in self.flush.events() {
            match event {
                TlbEvent::Flush(flush) => answer.add(&Record::Flush(*flush)),
                TlbEvent::Freed => answer.add(&Record::Freed),
                // The wire has the tables after the op only.
                TlbEvent::Tables(_) => {}
            }
        }
        let seen = std::mem::take(&mut self.seen);
        for (alias, frame) in seen {
            answer.add(&Record::Spte { alias, frame, spte: None });
        }
        for alias in 0..self.vm.stolen().alias_count() {
            let gpa = self.vm.gpa(0, alias);
            self.mmu.walk_window(gpa, self.vm.stride(), &mut |frame, spte| {
                answer.add(&Record::Spte { alias, frame, spte: Some(spte) });
                self.seen.push((alias, frame));
            });
        }
        Some(exit)
    }

    fn end(&mut self, answer: &mut Answer<'_>) {
        self.mmu.inspect(&mut |key| answer.add(&Record::Key(key)));
    }
}

/// The MMU in Rust, with no more than a worker can do and show.
struct Limited<'a> {
    mmu: KvmMmu<Corrected>,
    abilities: &'a Abilities,
}

impl Mmu for Limited<'_> {
    fn reset(&mut self, vm: &VmConfig) {
        self.mmu.reset(vm);
    }

    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        self.mmu.step(host, flush, op)
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.mmu.walk(gpa)
    }

    fn inspect(&self, visit: &mut dyn FnMut(GfnIndexed)) {
        self.mmu.inspect(visit);
    }

    fn supports(&self, op: &Op) -> bool {
        self.abilities.supports(op)
    }

    fn supports_vm(&self, vm: &VmConfig) -> bool {
        self.abilities.supports_vm(vm)
    }

    fn capabilities(&self) -> Capabilities {
        self.abilities.shows
    }
}

fn be_worker(deed: &str) {
    // SAFETY: the supervisor gives a worker a socket as its standard input and the answer's memory as its standard output.
    let (socket, memory) = unsafe {
        let answer = OwnedFd::from_raw_fd(1);
        let flags = rustix::mm::MapFlags::SHARED | rustix::mm::MapFlags::FIXED_NOREPLACE;
        let protection = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let at = rustix::mm::mmap(MEMORY as *mut _, ANSWER_BYTES, protection, flags, &answer, 0).expect("memory");
        (UnixStream::from(OwnedFd::from_raw_fd(0)), std::slice::from_raw_parts_mut(at.cast::<u8>(), ANSWER_BYTES))
    };
    if deed == "dumb" {
        eprintln!("not today");
        std::process::exit(9);
    }
    let mmu = KvmMmu::default();
    let (vm, flush, mode) = (VmConfig::default(), FlushBackend::default(), BackendMode::default());
    let mut fake = Fake { mmu, vm, flush, mode, deed: deed.into(), seen: Vec::new() };
    eprintln!("ready");
    serve(socket, memory, &Hello::of_everything("the MMU in Rust"), &mut fake).expect("questions");
}

fn launch(deed: &str) -> Launch {
    Launch { program: std::env::current_exe().expect("this program"), arguments: vec!["worker".into(), deed.into()] }
}

fn start(deed: &str) -> Supervisor {
    let patience = Patience { processor: Duration::from_millis(300), asleep: Duration::from_secs(2) };
    Supervisor::start_with(launch(deed), patience).expect("a worker")
}

fn program(ops: &str) -> Program {
    text::parse(&format!("gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works\n{ops}")).expect("a program")
}

const AGES: &str = "slot 0 create gfn=0x1e0 pages=4 hva=0\nv0 write 0x1e1@1\nage hva=0 pages=4\nv1 read 0x1e1\n";

/// What `deed` at an op is found to be.
fn each_misdeed_is_a_finding_at_its_op() {
    let expected = [
        ("warn", "kernel/warn-rmap_add/age/none/none", true),
        ("bug", "kernel/bug-rmap_add/age/none/none", false),
        ("kill", "kernel/died/age/none/none", false),
        ("hang", "kernel/hang/age/none/none", false),
        ("sleep", "kernel/hang/age/none/none", false),
        ("garble", "kernel/garbled/age/none/none", false),
        ("flood", "kernel/flood/age/none/none", false),
    ];
    assert_eq!(expected.map(|(deed, ..)| deed).len(), DEEDS.len());
    for (deed, signature, survives) in expected {
        let mut supervisor = start(deed);
        let mut observed = Observed::new(supervisor.hello().abilities);
        let mut records = Vec::new();
        for starts in 1..=2 {
            supervisor.ask(&program(AGES), &mut records).expect("records");
            records = observed.load(&program(AGES), std::mem::take(&mut records));
            let violation = Lockstep::default().run(&mut observed, &program(AGES)).expect("a finding");
            assert_eq!((violation.signature.to_string().as_str(), violation.at), (signature, 2), "{violation}");
            assert_eq!(supervisor.runs(), survives, "{deed}");
            // And it answers again, with the same worker or with another.
            let quiet = program("slot 0 create gfn=0x1e0 pages=4 hva=0\nv0 write 0x1e1@1\n");
            supervisor.ask(&quiet, &mut records).expect("records");
            records = observed.load(&quiet, std::mem::take(&mut records));
            assert_eq!(Lockstep::default().run(&mut observed, &quiet), None, "{deed}");
            assert_eq!(supervisor.starts(), if survives { 1 } else { starts + 1 }, "{deed}");
        }
    }
}

/// A worker that somebody else kills between two programs is replaced, and neither is blamed.
fn a_worker_that_is_gone_is_replaced() {
    let mut supervisor = start("nothing");
    let mut records = Vec::new();
    for _ in 0..3 {
        let id = supervisor.worker().expect("a worker") as i32;
        let pid = rustix::process::Pid::from_raw(id).expect("a number");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
        while supervisor.worker().is_some_and(|_| !is_gone(id)) {
            std::thread::yield_now();
        }
        supervisor.ask(&program(AGES), &mut records).expect("records");
        assert_eq!(records.last(), Some(&Record::End));
    }
    assert_eq!(supervisor.starts(), 4);
}

/// Whether the process is dead, though not waited for.
fn is_gone(id: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z') || rest.is_empty())
}

fn one_that_does_not_get_ready_says_why() {
    let error = Supervisor::start(launch("dumb")).expect_err("no worker");
    assert!(
        matches!(&error, WorkerError::Unready { why, log } if why.contains('9') && log == "not today\n"),
        "{error}"
    );
    let missing = Launch { program: "/nonexistent/worker".into(), arguments: Vec::new() };
    assert!(
        matches!(Supervisor::start(missing), Err(WorkerError::Start(why)) if why.starts_with("/nonexistent/worker: "))
    );
}

/// What comes over the wire is judged as what does not, over everything that a program can be made of.
fn the_wire_changes_no_verdict() {
    let mut supervisor = start("nothing");
    let mut observed = Observed::new(supervisor.hello().abilities);
    let (mut near, mut far) = (Lockstep::default(), Lockstep::default());
    let mut choices = FromRng(rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(21));
    let abilities = supervisor.hello().abilities;
    let generator = Generator::new(abilities.profile());
    let (mut program, mut records) = (Program::default(), Vec::new());
    let mut limited = Limited { mmu: KvmMmu::default(), abilities: &abilities };
    for _ in 0..500 {
        generator.program(&mut choices, &mut program);
        if !abilities.supports_vm(&program.vm) {
            continue;
        }
        supervisor.ask(&program, &mut records).expect("records");
        records = observed.load(&program, std::mem::take(&mut records));
        let violation = far.run(&mut observed, &program);
        assert_eq!(violation, None, "{}", text::print(&program));
        assert_eq!(near.run(&mut limited, &program), None);
    }
    assert_eq!(near.counts(), far.counts());
    // In process the tables are seen at each flush as well as after it, and `alias_flush` judges at both: its counts are higher there.
    let tallies = |run: &Lockstep, of_flushes: bool| {
        let chosen = run.tallies().filter(|(oracle, ..)| (*oracle == "alias_flush") == of_flushes);
        chosen.map(|(_, clause, tally)| (clause.name, tally)).collect::<Vec<_>>()
    };
    assert_eq!(tallies(&near, false), tallies(&far, false));
    for ((clause, near), (_, far)) in tallies(&near, true).into_iter().zip(tallies(&far, true)) {
        assert!((near.checked > 0) == (far.checked > 0) && near.checked >= far.checked, "{clause}: {near:?}, {far:?}");
    }
    assert!(far.counts().judged > 5_000, "{:?}", far.counts());
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, deed] = &arguments[..]
        && word == "worker"
    {
        return be_worker(deed);
    }
    let tests: [(&str, fn()); 4] = [
        ("one_that_does_not_get_ready_says_why", one_that_does_not_get_ready_says_why),
        ("a_worker_that_is_gone_is_replaced", a_worker_that_is_gone_is_replaced),
        ("each_misdeed_is_a_finding_at_its_op", each_misdeed_is_a_finding_at_its_op),
        ("the_wire_changes_no_verdict", the_wire_changes_no_verdict),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
}
