//! MMU events as lines of a trace.

use crate::kvm::mmu_debugfs::MmuEvent;
use gpa_model::text::{ParseError, Words, print_gpa};
use gpa_model::{Alias, Flush, GfnIndexed, Gpa, Level, Pfn, Rights, Spte, VcpuSet, VmConfig};

/// The largest frame number in a line.
const FRAME_MAX: u64 = (1 << 52) - 1;
/// The highest level of a table.
const TABLE_MAX: u64 = 5;

pub(super) fn print(vm: &VmConfig, seen: &MmuEvent) -> String {
    match *seen {
        MmuEvent::Spte(gpa, None) => format!("spte {} none", print_gpa(vm, gpa)),
        MmuEvent::Spte(gpa, Some(spte)) => {
            let (pfn, rights, level) = (spte.pfn().raw(), spte.rights(), spte.level().name());
            format!("spte {} {pfn} {rights} {level}", print_gpa(vm, gpa))
        }
        MmuEvent::Flush(Flush::All { .. }) => "flush all".to_owned(),
        MmuEvent::Flush(Flush::Range { gpa, pages, ok }) => {
            format!("flush {:#x} {pages}{}", gpa.page(), if ok { "" } else { " failed" })
        }
        MmuEvent::Key(key) => print_key(key),
    }
}

fn print_key(key: GfnIndexed) -> String {
    match key {
        GfnIndexed::Rmap { gfn, gpa, level, idle } => {
            format!("rmap {gfn:#x} {:#x} {}{}", gpa.page(), level.name(), if idle { " idle" } else { "" })
        }
        GfnIndexed::ShadowRmap { gfn, spte } => format!("shadow-rmap {gfn:#x} {spte:#x}"),
        GfnIndexed::ShadowLeaf { gfn, spte } => format!("shadow-leaf {gfn:#x} {spte:#x}"),
        GfnIndexed::ShadowPage { gfn, alias, level, .. } => format!("page {gfn:#x} {:#x} {level}", alias.raw()),
        GfnIndexed::NxSplit { gfn, alias, level } => format!("nx-split {gfn:#x} {:#x} {level}", alias.raw()),
        GfnIndexed::Table { gfn, alias, level, reached } => {
            format!("table {gfn:#x} {:#x} {level}{}", alias.raw(), if reached { " reached" } else { "" })
        }
        GfnIndexed::Retired { gfn, pfn, level } => format!("retired {gfn:#x} {} {}", pfn.raw(), level.name()),
        GfnIndexed::DirtyLog(gfn) => format!("dirty {gfn:#x}"),
        GfnIndexed::Mmio(gfn) => format!("mmio {gfn:#x}"),
        GfnIndexed::AsyncPf(gfn) => format!("async-pf {gfn:#x}"),
    }
}

/// Parses a line after its arrow.
pub(super) fn parse(vm: &VmConfig, words: &mut Words<'_>) -> Result<MmuEvent, ParseError> {
    let expected =
        "spte, flush, rmap, shadow-rmap, shadow-leaf, page, nx-split, table, retired, dirty, mmio or async-pf";
    let seen = match words.next(expected)? {
        "spte" => {
            let word = words.next("a gfn, with @ALIAS or without")?;
            let gpa = words.gpa(vm, word)?;
            MmuEvent::Spte(gpa, spte(words)?)
        }
        "flush" => MmuEvent::Flush(flush(words)?),
        "rmap" => {
            let (gfn, gpa, level) = (frame(words)?, Gpa::from_page(frame(words)?), level(words)?);
            MmuEvent::Key(GfnIndexed::Rmap { gfn, gpa, level, idle: flag(words, "idle")? })
        }
        "shadow-rmap" => MmuEvent::Key(GfnIndexed::ShadowRmap { gfn: frame(words)?, spte: frame(words)? }),
        "shadow-leaf" => MmuEvent::Key(GfnIndexed::ShadowLeaf { gfn: frame(words)?, spte: frame(words)? }),
        "page" => {
            let (gfn, alias, level) = (frame(words)?, alias(vm, words)?, table(words)?);
            MmuEvent::Key(GfnIndexed::direct_page(gfn, alias, level))
        }
        "nx-split" => {
            let (gfn, alias, level) = (frame(words)?, alias(vm, words)?, table(words)?);
            MmuEvent::Key(GfnIndexed::NxSplit { gfn, alias, level })
        }
        "table" => {
            let (gfn, alias, level) = (frame(words)?, alias(vm, words)?, table(words)?);
            MmuEvent::Key(GfnIndexed::Table { gfn, alias, level, reached: flag(words, "reached")? })
        }
        "retired" => {
            let (gfn, pfn, level) = (frame(words)?, pfn(words)?, level(words)?);
            MmuEvent::Key(GfnIndexed::Retired { gfn, pfn, level })
        }
        "dirty" => MmuEvent::Key(GfnIndexed::DirtyLog(frame(words)?)),
        "mmio" => MmuEvent::Key(GfnIndexed::Mmio(frame(words)?)),
        "async-pf" => MmuEvent::Key(GfnIndexed::AsyncPf(frame(words)?)),
        word => return Err(words.found(expected, word)),
    };
    words.end()?;
    Ok(seen)
}

fn spte(words: &mut Words<'_>) -> Result<Option<Spte>, ParseError> {
    if flag(words, "none")? {
        return Ok(None);
    }
    let pfn = pfn(words)?;
    let expected = "rights, as rwx or r-x";
    let word = words.next(expected)?;
    let rights = (1..8).map(Rights::from_bits).find(|rights| rights.to_string() == word);
    let spte = rights.and_then(|rights| Spte::new(pfn, rights)).ok_or_else(|| words.found(expected, word))?;
    Ok(Some(spte.at_level(level(words)?)))
}

fn flush(words: &mut Words<'_>) -> Result<Flush, ParseError> {
    if flag(words, "all")? {
        return Ok(Flush::All { vcpus: VcpuSet::ALL });
    }
    let (gpa, pages) = (Gpa::from_page(frame(words)?), frame(words)?);
    Ok(Flush::Range { gpa, pages, ok: !flag(words, "failed")? })
}

/// Whether `word` comes next; consumes it if so.
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

/// Stolen bits at their position in a frame number.
fn alias(vm: &VmConfig, words: &mut Words<'_>) -> Result<Alias, ParseError> {
    let expected = "stolen bits of this VM";
    let word = words.next(expected)?;
    let (rest, alias) = vm.stolen().split(Gpa::from_page(words.number(word, FRAME_MAX)?));
    if rest.raw() == 0 { Ok(alias) } else { Err(words.found(expected, word)) }
}

fn pfn(words: &mut Words<'_>) -> Result<Pfn, ParseError> {
    let word = words.next("the identity of a page, a number")?;
    Ok(Pfn::new(words.number(word, u64::from(u32::MAX))? as u32))
}

fn table(words: &mut Words<'_>) -> Result<u8, ParseError> {
    let expected = "the level of a table, from 1 to 5";
    let word = words.next(expected)?;
    match words.number(word, TABLE_MAX)? {
        0 => Err(words.found(expected, word)),
        level => Ok(level as u8),
    }
}

fn level(words: &mut Words<'_>) -> Result<Level, ParseError> {
    let expected = "4K, 2M or 1G";
    let word = words.next(expected)?;
    let levels = [Level::Page4K, Level::Page2M, Level::Page1G];
    levels.into_iter().find(|level| level.name() == word).ok_or_else(|| words.found(expected, word))
}
