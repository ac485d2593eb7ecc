//! What was seen inside KVM, as a line of a trace.

use crate::sight::Seen;
use gpa_model::text::{ParseError, Words, print_gpa};
use gpa_model::{Flush, Gpa, Keyed, Level, Pfn, Rights, Spte, VcpuSet, Vm};

/// The largest frame number a line can have.
const FRAME_MAX: u64 = (1 << 52) - 1;

pub(super) fn print(vm: &Vm, seen: &Seen) -> String {
    match *seen {
        Seen::Spte(gpa, None) => format!("spte {} none", print_gpa(vm, gpa)),
        Seen::Spte(gpa, Some(spte)) => {
            let (pfn, rights, level) = (spte.pfn().raw(), spte.rights(), spte.level().name());
            format!("spte {} {pfn} {rights} {level}", print_gpa(vm, gpa))
        }
        Seen::Flush(Flush::All { .. }) => "flush all".to_owned(),
        Seen::Flush(Flush::Range { gpa, pages, ok }) => {
            format!("flush {:#x} {pages}{}", gpa.page(), if ok { "" } else { " failed" })
        }
        Seen::Key(Keyed::ShadowPage { gfn, alias, level }) => format!("page {gfn:#x} {:#x} {level}", alias.raw()),
        Seen::Key(Keyed::Rmap { gfn, gpa, level, idle }) => {
            format!("rmap {gfn:#x} {:#x} {}{}", gpa.page(), level.name(), if idle { " idle" } else { "" })
        }
        Seen::Key(Keyed::NxSplit { gfn, alias, level }) => format!("nx-split {gfn:#x} {:#x} {level}", alias.raw()),
        Seen::Key(Keyed::DirtyLog(gfn)) => format!("dirty {gfn:#x}"),
        Seen::Key(Keyed::Mmio(gfn)) => format!("mmio {gfn:#x}"),
        // Roots are not looked at: what a line says that nobody can read is refused.
        Seen::Key(Keyed::Table { .. } | Keyed::Retired { .. }) => "root".to_owned(),
    }
}

/// Read a line after its first word.
pub(super) fn parse(vm: &Vm, words: &mut Words<'_>) -> Result<Seen, ParseError> {
    let expected = "spte, flush, page, rmap, nx-split, dirty or mmio";
    let seen = match words.next(expected)? {
        "spte" => {
            let word = words.next("a gfn, with @ALIAS or without")?;
            let gpa = words.gpa(vm, word)?;
            Seen::Spte(gpa, spte(words)?)
        }
        "flush" => Seen::Flush(flush(words)?),
        "page" => {
            let (gfn, alias, level) = (frame(words)?, frame(words)?, table(words)?);
            Seen::Key(Keyed::ShadowPage { gfn, alias: vm.stolen().split(Gpa::from_page(alias)).1, level })
        }
        "nx-split" => {
            let (gfn, alias, level) = (frame(words)?, frame(words)?, table(words)?);
            Seen::Key(Keyed::NxSplit { gfn, alias: vm.stolen().split(Gpa::from_page(alias)).1, level })
        }
        "rmap" => {
            let (gfn, gpa, level) = (frame(words)?, Gpa::from_page(frame(words)?), level(words)?);
            Seen::Key(Keyed::Rmap { gfn, gpa, level, idle: flag(words, "idle")? })
        }
        "dirty" => Seen::Key(Keyed::DirtyLog(frame(words)?)),
        "mmio" => Seen::Key(Keyed::Mmio(frame(words)?)),
        word => return Err(words.found(expected, word)),
    };
    words.end()?;
    Ok(seen)
}

fn spte(words: &mut Words<'_>) -> Result<Option<Spte>, ParseError> {
    let word = words.next("none, or the identity of a page, a number")?;
    if word == "none" {
        return Ok(None);
    }
    let pfn = Pfn::new(words.number(word, u64::from(u32::MAX))? as u32);
    let expected = "rights, as rwx or r-x";
    let word = words.next(expected)?;
    let rights = (1..8).map(Rights::from_bits).find(|rights| rights.to_string() == word);
    let spte = rights.and_then(|rights| Spte::new(pfn, rights)).ok_or_else(|| words.found(expected, word))?;
    Ok(Some(spte.at_level(level(words)?)))
}

fn flush(words: &mut Words<'_>) -> Result<Flush, ParseError> {
    if words.peek() == Some("all") {
        words.next("all")?;
        return Ok(Flush::All { vcpus: VcpuSet::ALL });
    }
    let (gpa, pages) = (Gpa::from_page(frame(words)?), frame(words)?);
    Ok(Flush::Range { gpa, pages, ok: !flag(words, "failed")? })
}

/// Whether the line ends in `word`.
fn flag(words: &mut Words<'_>, word: &str) -> Result<bool, ParseError> {
    let there = words.peek() == Some(word);
    if there {
        words.next(word)?;
    }
    Ok(there)
}

fn frame(words: &mut Words<'_>) -> Result<u64, ParseError> {
    let word = words.next("the number of a frame")?;
    words.number(word, FRAME_MAX)
}

fn table(words: &mut Words<'_>) -> Result<u8, ParseError> {
    let word = words.next("the level of a table")?;
    Ok(words.number(word, 5)? as u8)
}

fn level(words: &mut Words<'_>) -> Result<Level, ParseError> {
    let expected = "4K, 2M or 1G";
    let word = words.next(expected)?;
    let levels = [Level::Page4K, Level::Page2M, Level::Page1G];
    levels.into_iter().find(|level| level.name() == word).ok_or_else(|| words.found(expected, word))
}
