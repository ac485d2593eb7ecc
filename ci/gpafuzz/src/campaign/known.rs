//! Known defects: a checked-in list of signatures, each with its gap or bug and the reason.

use super::finding::SignatureText;
use gpa_oracles::Signature;
use std::fmt;

/// Before a kernel, behind the name of a target.
const KERNEL: char = '@';

const LIST_NAME: &str = "known-findings.txt";
/// The list, as it is checked in.
const LIST: &str = include_str!("../../known-findings.txt");

/// One known defect of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The file and line that it stands in, if the list is a user's.
    pub place: Option<String>,
    target: String,
    signature: [String; 5],
    /// The gap in the design that it shows, such as G1.
    pub gap: String,
    /// What is wrong.
    pub reason: String,
}

/// A line of the list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownError {
    file: String,
    line: usize,
    found: String,
}

impl fmt::Display for KnownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, found } = self;
        write!(
            f,
            "{file}:{line}: expected `TARGET ORACLE/CLAUSE/OP/ALIAS/SLOT GAP REASON [until=YYYY-MM-DD]`, found `{found}`"
        )
    }
}

impl std::error::Error for KnownError {}

/// The checked-in list.
///
/// # Errors
/// A [`KnownError`] at the first line that cannot be read; a test keeps that from happening.
pub fn list() -> Result<Vec<Known>, KnownError> {
    parse(LIST)
}

/// Read a list.
///
/// # Errors
/// A [`KnownError`] at the first line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Known>, KnownError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(at, line)| {
            parse_line(line).ok_or_else(|| KnownError { file: LIST_NAME.into(), line: at + 1, found: line.into() })
        })
        .collect()
}

fn parse_line(line: &str) -> Option<Known> {
    let mut words = line.split_whitespace();
    let target = words.next()?.to_owned();
    let parts: Vec<String> = words.next()?.split('/').map(str::to_owned).collect();
    let gap = words.next()?.to_owned();
    let reason = words.collect::<Vec<_>>().join(" ");
    (!reason.is_empty()).then_some(Known { place: None, target, signature: parts.try_into().ok()?, gap, reason })
}

/// A user's list: as the checked-in one, where a line may end in `until=YYYY-MM-DD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserList {
    /// The lines that hold.
    pub known: Vec<Known>,
    /// The lines that held until a day that is over, as a person reads it.
    pub expired: Vec<String>,
}

/// Read the list `text` of the file called `name`, on the day `today` (YYYY-MM-DD).
///
/// # Errors
/// A [`KnownError`] at the first line that cannot be read.
pub fn parse_user(name: &str, text: &str, today: &str) -> Result<UserList, KnownError> {
    let mut list = UserList::default();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let (line, until) = match line.trim_end().rsplit_once(" until=") {
            Some((line, until)) => (line, Some(until)),
            None => (line, None),
        };
        let wrong = || KnownError { file: name.into(), line: at + 1, found: line.into() };
        let known = parse_line(line).ok_or_else(wrong)?;
        let is_date = |day: &str| day.len() == 10 && day.bytes().enumerate().all(|(at, byte)| is_date_byte(at, byte));
        if until.is_some_and(|day| !is_date(day)) {
            return Err(wrong());
        }
        // Days in this form are in order as texts are.
        match until {
            Some(day) if day < today => list.expired.push(format!("{name}:{}: expired on {day}: {line}", at + 1)),
            _ => list.known.push(Known { place: Some(format!("{name}:{}", at + 1)), ..known }),
        }
    }
    Ok(list)
}

fn is_date_byte(at: usize, byte: u8) -> bool {
    if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() }
}

impl Known {
    /// Whether a violation of `signature` on `target` is this defect.
    pub fn matches(&self, target: &str, signature: &Signature) -> bool {
        let Signature { oracle, clause, op, alias, slot } = *signature;
        self.fits(target, [oracle, clause, op, alias, slot])
    }

    /// The same for a signature in words.
    pub fn matches_text(&self, target: &str, signature: &SignatureText) -> bool {
        let SignatureText { oracle, clause, op, alias, slot } = signature;
        self.fits(target, [oracle, clause, op, alias, slot])
    }

    fn fits(&self, target: &str, parts: [&str; 5]) -> bool {
        let fits = |(wanted, part): (&String, &str)| wanted == "*" || wanted.split('|').any(|word| word == part);
        self.target.split('|').any(|word| names(word, target)) && self.signature.iter().zip(parts).all(fits)
    }
}

/// Whether the word `word` of a line names `target`, a name of which may end in `@` and a kernel. A word with `@` and kernels names the target
/// on those alone, another on any.
fn names(word: &str, target: &str) -> bool {
    let (target, kernel) = target.split_once(KERNEL).map_or((target, None), |(target, kernel)| (target, Some(kernel)));
    match word.split_once(KERNEL) {
        None => word == target,
        Some((word, kernels)) => {
            let usual = kernels::Choice::default().to_string();
            let kernel = kernel.unwrap_or(&usual);
            word == target && kernels.split(',').any(|named| named == kernel)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: Signature =
        Signature { oracle: "alias_flush", clause: "stale-page", op: "unmap", alias: "alias", slot: "user" };

    #[test]
    fn the_checked_in_list_can_be_read() {
        assert_eq!(list().err(), None);
    }

    #[test]
    fn a_users_line_holds_until_its_day_is_over() {
        let text = "# ours\ntoy panic/panic/age/none/none X1 it feels its age until=2026-05-01\n\ntoy structure/*/*/*/* X2 later\n";
        let list = |today| parse_user("mine.txt", text, today).expect("a list");
        assert_eq!((list("2026-05-01").known.len(), list("2026-05-01").expired.len()), (2, 0));
        let after = list("2026-05-02");
        assert_eq!(after.known.iter().map(|known| known.place.as_deref()).collect::<Vec<_>>(), [Some("mine.txt:4")]);
        assert!(after.expired[0].starts_with("mine.txt:2: expired on 2026-05-01: toy panic/"), "{:?}", after.expired);
        let wrong = parse_user("mine.txt", "toy a/b/c/d/e X1 why until=tomorrow", "2026-05-02").expect_err("no date");
        assert!(wrong.to_string().starts_with("mine.txt:1: expected"), "{wrong}");
    }

    fn all() -> Vec<Known> {
        list().expect("the list")
    }

    fn known(target: &str, signature: &Signature) -> bool {
        all().iter().any(|known| known.matches(target, signature))
    }

    /// A trace of a defect, as it was recorded.
    fn kept_trace(name: &str) -> String {
        let path = format!("{}/../../corpus/hw/objections/{name}.trace", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// What an oracle says of a trace that real KVM might have left.
    fn signature(trace: &str) -> Signature {
        let trace = hw_runner::trace::parse(trace).unwrap_or_else(|e| panic!("{e}\n{trace}"));
        let (program, mut replay) = (trace.program.clone(), hw_runner::Replay::default());
        replay.load(trace);
        gpa_oracles::Lockstep::default().run(&mut replay, &program).expect("a violation").signature
    }

    /// A defect of Linux's own, as it was recorded; and what looks like it and is another: a page that is out of reach in some other way,
    /// a page that is refused where there never was a hole, and another alias method.
    #[test]
    fn a_private_memslot_where_a_hole_was_seen_is_known_and_nothing_like_it_is() {
        let recorded = kept_trace("npt-sw-protected_private_memslot_where_a_hole_was_seen");
        let defect = signature(&recorded);
        assert!(known("linux-kvm-npt:sw-protected", &defect), "{defect}");
        assert!(!known("linux-kvm-npt", &defect) && !known("linux-kvm-npt:guest-ptes", &defect));
        for (from, to) in [
            ("  => misattributed", "  => error"),
            ("  => misattributed", "  => mmio 0x1e1"),
            ("  => misattributed", "  => memory 3"),
            ("v0 read 0x1e1\n  => mmio 0x1e1\n", ""),
            ("attributes gfn=0x1e0 pages=4 private\n  => done\n", ""),
        ] {
            let other = signature(&recorded.replacen(from, to, 1));
            assert_ne!(other, defect);
            assert!(!known("linux-kvm-npt:sw-protected", &other), "{other} for {to:?}");
        }
    }

    /// Another one; and stale pages that it does not explain: the flush begins or ends elsewhere, fails, is of another name, or is not the
    /// op's that took the page away. One of those is not hidden by one that it explains.
    #[test]
    fn what_a_walk_that_started_over_left_is_known_and_no_other_stale_page_is() {
        const TARGET: &str = "linux-kvm-stolen-yielding";
        let recorded = kept_trace("stolen-yielding_pages_taken_by_a_walk_that_gives_way");
        let defect = signature(&recorded);
        assert!(known(TARGET, &defect), "{defect}");
        assert!(!known("linux-kvm-stolen-fixed", &defect));
        let taken = "  :: spte 0x1e0@1 1 rwx 4K\n  :: spte 0x1e1@1 2 rwx 4K\n";
        for (from, to) in [
            ("  :: flush 0x1e0 1\n", ""),
            ("  :: flush 0x1e0 1\n", "  :: flush 0x1e1 1\n"),
            ("  :: flush 0x1e0 1\n", "  :: flush 0x1df 1\n"),
            ("  :: flush 0x1e0 1\n", "  :: flush 0x1e0 2\n"),
            ("  :: flush 0x1e0 1\n", "  :: flush 0x1e0 1 failed\n"),
            ("  :: flush 0x100001e0 1\n", ""),
            (taken, &format!("  :: spte 0x1e2 none\n{taken}")),
        ] {
            let other = signature(&recorded.replacen(from, to, 1));
            assert_ne!(other, defect);
            assert_eq!((other.oracle, other.clause), ("alias_flush", "stale-page"), "{to:?}");
            let why = all().into_iter().find(|known| known.matches(TARGET, &other)).map(|known| known.gap);
            // That of the alias may be forgotten for another reason.
            assert_eq!(why.as_deref(), (other.alias == "alias").then_some("G1"), "{other} for {to:?}");
        }
    }

    #[test]
    fn a_line_is_about_every_kernel_or_about_those_that_it_names() {
        for (word, target, matches) in [
            ("t", "t", true),
            ("t", "t@7.3", true),
            ("t", "t@/usr/src/linux", true),
            ("t", "t:rings@7.3", false),
            ("t:rings", "t:rings@7.3", true),
            ("t@6.1,6.12", "t", true),
            ("t@6.1,6.12", "t@6.1", true),
            ("t@6.1,6.12", "t@7.3", false),
            ("t@6.1,6.12", "t@/usr/src/linux", false),
            ("t@7.3", "t", false),
        ] {
            assert_eq!(names(word, target), matches, "{word} {target}");
        }
    }

    #[test]
    fn a_part_is_a_word_or_several_or_any() {
        for (line, matches) in [
            ("t alias_flush/stale-page/unmap/alias/user G1 why", true),
            ("t alias_flush/*/unmap|unmap-end/*/* G1 why", true),
            ("t alias_flush/stale-page/unmap-end/alias/user G1 why", false),
            ("other alias_flush/*/*/*/* G1 why", false),
            ("other|t alias_flush/*/*/*/* G1 why", true),
        ] {
            let list = parse(line).expect(line);
            assert_eq!(list[0].matches("t", &SIGNATURE), matches, "{line}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        insta::assert_snapshot!(parse("# fine\n\nt a/b/c G1 why").unwrap_err());
        insta::assert_snapshot!(parse("t a/b/c/d/e G1").unwrap_err());
    }
}
