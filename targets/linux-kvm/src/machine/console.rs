//! What the kernel inside says on its console, and whether it is a complaint: a WARN, a BUG, an oops, a lockup.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Something the kernel objects to, which makes the program that was running a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What kind of complaint.
    pub kind: Kind,
    /// The function it comes from, if the kernel names it.
    pub function: Option<String>,
    /// The line that says so.
    pub line: String,
}

/// Kinds of complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A condition that should never be true. The kernel goes on.
    Warn,
    /// The kernel has lost its way: a BUG, an oops, a panic.
    Bug,
    /// A task or an interrupt handler went on for too long.
    Lockup,
    /// No answer for longer than any program takes.
    Hang,
    /// The machine is gone.
    Died,
    /// The guest of the kernel inside went on without an exit.
    GuestHung,
    /// The runner inside could not carry the program out.
    Runner,
    /// The runner inside answered with something that is no trace of the program.
    Answer,
}

impl Kind {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Bug => "bug",
            Self::Lockup => "lockup",
            Self::Hang => "hang",
            Self::Died => "died",
            Self::GuestHung => "hung",
            Self::Runner => "runner",
            Self::Answer => "answer",
        }
    }

    /// Whether the kernel can be used further.
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::Warn | Self::GuestHung | Self::Runner)
    }
}

/// Words that begin a complaint, wherever in the line. The first that is there counts.
const SIGNS: [(&str, Kind); 9] = [
    ("soft lockup", Kind::Lockup),
    ("hard LOCKUP", Kind::Lockup),
    ("detected stalls", Kind::Lockup),
    ("self-detected stall", Kind::Lockup),
    ("Kernel panic", Kind::Bug),
    ("kernel BUG at", Kind::Bug),
    ("general protection fault", Kind::Bug),
    ("Oops:", Kind::Bug),
    ("BUG:", Kind::Bug),
];
/// Begins a WARN, whose line names the function as well. Until Linux 6.18 it is `WARNING: CPU: 0 PID: 1 at FILE:LINE FUNCTION+0x…`,
/// from then on `WARNING: FILE:LINE at FUNCTION+0x…, CPU#0: COMMAND/1`.
const WARNING: &str = "WARNING: ";

/// The first complaint in `log`, if there is one, except WARNs of functions that are `excused`.
pub fn complaint(log: &str, excused: &[&str]) -> Option<Complaint> {
    log.lines().enumerate().find_map(|(at, line)| {
        let kind = kind(line)?;
        // A WARN names its function in the same line, the others in a line `RIP:` below.
        let rip = || log.lines().skip(at).find(|line| line.contains("RIP:"));
        let function = function(line).or_else(|| rip().and_then(function));
        let is_excused = kind == Kind::Warn && function.as_deref().is_some_and(|name| excused.contains(&name));
        (!is_excused).then(|| Complaint { kind, function, line: line.trim().to_owned() })
    })
}

/// Whether `log` has a WARN in it, excused or not.
pub(crate) fn warns(log: &str) -> bool {
    log.lines().any(|line| kind(line) == Some(Kind::Warn))
}

/// The kind of complaint that `line` begins, if it begins one.
fn kind(line: &str) -> Option<Kind> {
    let sign = SIGNS.iter().find(|(sign, _)| line.contains(sign)).map(|(_, kind)| *kind);
    let warns = || line.split_once(WARNING).is_some_and(|(_, rest)| rest.contains(" at ") && function(rest).is_some());
    sign.or_else(|| warns().then_some(Kind::Warn))
}

/// The name before `+0x…` in `line`.
fn function(line: &str) -> Option<String> {
    let word = line.split_whitespace().find(|word| word.contains("+0x"))?;
    let name = word.split("+0x").next()?;
    // `RIP: 0010:name+0x…`; a compiler names a part of a function `name.part.0`, and another compiler does not.
    let name = name.rsplit(':').next()?.split('.').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The console's log, a file that grows.
#[derive(Debug)]
pub(crate) struct Console {
    file: File,
    seen: u64,
}

/// More of a log than this is not kept: a kernel that repeats itself says nothing new.
const LOG_BYTES: u64 = 1 << 20;

impl Console {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, seen: 0 })
    }

    /// What was said since the last call, in whole lines.
    pub(crate) fn news(&mut self) -> io::Result<String> {
        let length = self.file.metadata()?.len();
        if length <= self.seen {
            return Ok(String::new());
        }
        let mut bytes = self.read(self.seen)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        bytes.truncate(whole);
        self.seen += whole as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Everything.
    pub(crate) fn log(&mut self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(0)?).replace('\r', ""))
    }

    fn read(&mut self, from: u64) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&self.file).take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_from_what_kernels_say_all_day() {
        let warn = "[    7.1] ------------[ cut here ]------------\n\
                    [    7.1] WARNING: CPU: 0 PID: 1 at arch/x86/kvm/mmu/paging_tmpl.h:533 paging64_fetch+0x45/0x60 [kvm]\n";
        let found = complaint(warn, &[]).unwrap();
        assert_eq!((found.kind, found.function.as_deref()), (Kind::Warn, Some("paging64_fetch")));
        assert_eq!(complaint(warn, &["paging64_fetch"]), None);
        assert!(warns(warn));
        let oops = "[   9.0] BUG: kernel NULL pointer dereference, address: 0000000000000010\n\
                    [   9.0] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI\n\
                    [   9.0] RIP: 0010:rmap_remove.isra.0+0x1c/0x90 [kvm]\n";
        let found = complaint(oops, &[]).unwrap();
        assert_eq!((found.kind, found.function.as_deref()), (Kind::Bug, Some("rmap_remove")));
        assert_eq!(
            complaint("[ 1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!\n", &[]).unwrap().kind,
            Kind::Lockup
        );
        assert_eq!(complaint("[ 0.1] kvm_amd: Nested Paging enabled\n[ 0.1] PCI: warning: no bus\n", &[]), None);
    }

    /// The line of a WARN as each kernel prints it.
    #[test]
    fn the_warns_of_every_kernel_are_read() {
        let old = "WARNING: CPU: 0 PID: 1 at virt/kvm/dirty_ring.c:222 kvm_dirty_ring_push+0xa5/0xb0 [kvm]";
        for (kernel, line) in [
            ("6.1", old),
            ("6.12", old),
            ("6.18", old),
            ("7.2", "WARNING: virt/kvm/dirty_ring.c:222 at kvm_dirty_ring_push+0xa5/0xb0 [kvm], CPU#0: init/1"),
            (
                "7.3",
                "WARNING: arch/x86/../../virt/kvm/dirty_ring.c:223 at kvm_dirty_ring_push+0x9f/0xa0 [kvm], CPU#1: init/61",
            ),
        ] {
            let log = format!(
                "[    9.1] ------------[ cut here ]------------\n[    9.1] {line}\n[    9.1] RIP: 0010:other+0x1/0x2\n"
            );
            let found = complaint(&log, &[]).unwrap_or_else(|| panic!("{kernel}"));
            assert_eq!((found.kind, found.function.as_deref()), (Kind::Warn, Some("kvm_dirty_ring_push")), "{kernel}");
        }
        for other in ["WARNING: The mand mount option has been deprecated", "Booting: WARNING: no entry at 0x10"] {
            assert_eq!(complaint(other, &[]), None, "{other}");
        }
    }

    #[test]
    fn a_log_is_read_in_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        std::fs::write(&path, "one\ntw").unwrap();
        let mut console = Console::open(&path).unwrap();
        assert_eq!(console.news().unwrap(), "one\n");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(console.news().unwrap(), "two\nthree\n");
        assert_eq!(console.news().unwrap(), "");
        assert_eq!(console.log().unwrap(), "one\ntwo\nthree\n");
    }
}
