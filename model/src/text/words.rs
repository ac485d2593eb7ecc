//! The words of a line with their columns, and the error that points at one of them.

use crate::addr::{Gfn, Gpa, HostPage, StolenMask};
use crate::flush::BackendMode;
use crate::guest_paging::{Gpte, GpteFlags, GuestPaging, Gva};
use crate::limits::{GPTES, GUEST_LEVELS, TOP_GFN};
use crate::memory_attributes::MemoryType;
use crate::op::{Access, HostPageRange, Op, SlotChange, SlotFlags, SlotId};
use crate::program::check_op;
use crate::reclaim::Reclaim;
use crate::vm::{Levels, Logging, VmConfig};
use std::fmt;

/// Where and why a file cannot be read: what was expected there and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What would have been accepted.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: expected {}, found {}", self.line, self.column, self.expected, self.found)
    }
}

impl std::error::Error for ParseError {}

/// One line, read word by word.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    text: &'a str,
    line: usize,
    at: usize,
    word_at: usize,
}

impl<'a> Words<'a> {
    /// The words of `text`, which is line number `line`, up to a `#`.
    pub fn new(text: &'a str, line: usize) -> Self {
        let end = text.find('#').unwrap_or(text.len());
        Self { text: text[..end].trim_end(), line, at: 0, word_at: 0 }
    }

    /// Whether no word is left.
    pub fn is_done(&self) -> bool {
        self.text[self.at..].trim_start().is_empty()
    }

    /// The next word, if there is one.
    pub fn peek(&self) -> Option<&'a str> {
        self.text[self.at..].split_whitespace().next()
    }

    /// Take the next word.
    ///
    /// # Errors
    /// If the line ends here; `expected` says what should have come.
    pub fn next(&mut self, expected: &str) -> Result<&'a str, ParseError> {
        let rest = &self.text[self.at..];
        self.word_at = self.at + (rest.len() - rest.trim_start().len());
        let word = rest.split_whitespace().next();
        match word {
            Some(word) => {
                self.at = self.word_at + word.len();
                Ok(word)
            }
            None => Err(self.error(expected, "the end of the line")),
        }
    }

    /// An error at the word taken last.
    pub fn error(&self, expected: impl Into<String>, found: impl Into<String>) -> ParseError {
        let column = self.text.get(..self.word_at).map_or(1, |before| before.chars().count() + 1);
        ParseError { line: self.line, column, expected: expected.into(), found: found.into() }
    }

    /// An error at the word taken last that shows `word` as what was found, cut short if it is long.
    pub fn found(&self, expected: impl Into<String>, word: &str) -> ParseError {
        let shown: String = word.chars().take(40).flat_map(char::escape_debug).collect();
        let dots = if word.chars().count() > 40 { "…" } else { "" };
        self.error(expected, format!("`{shown}{dots}`"))
    }

    /// An error about the line as a whole: words that are right one by one and wrong together.
    fn whole(&self, expected: impl Into<String>) -> ParseError {
        let line = self.text.trim_start();
        let start = Words { word_at: self.text.len() - line.len(), ..self.clone() };
        start.error(expected, format!("`{line}`"))
    }

    /// Check that the line ends here.
    ///
    /// # Errors
    /// If a word is left.
    pub fn end(&mut self) -> Result<(), ParseError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => {
                let word = self.next("")?;
                Err(self.found("the end of the line", word))
            }
        }
    }

    /// Take `key=VALUE` and return the value.
    ///
    /// # Errors
    /// If the next word is not of that form.
    pub fn value(&mut self, key: &str) -> Result<&'a str, ParseError> {
        let expected = format!("{key}=…");
        let word = self.next(&expected)?;
        match word.split_once('=') {
            Some((found, value)) if found == key => Ok(value),
            _ => Err(self.found(expected, word)),
        }
    }

    /// Read `word` as a number up to `max`.
    ///
    /// # Errors
    /// If it is none, or larger.
    pub fn number(&self, word: &str, max: u64) -> Result<u64, ParseError> {
        let parsed = match word.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
            None if !word.starts_with('+') => word.parse().ok(),
            _ => None,
        };
        parsed.filter(|&n| n <= max).ok_or_else(|| self.found(format!("a number from 0 to {max:#x}"), word))
    }

    /// Take `key=NUMBER`.
    ///
    /// # Errors
    /// If the next word is not of that form or the number is above `max`.
    pub fn keyed_number(&mut self, key: &str, max: u64) -> Result<u64, ParseError> {
        let value = self.value(key)?;
        self.number(value, max)
    }

    /// Take a word of the form `v0` and so on: `letter` and a number.
    fn tagged(&self, word: &str, letter: char, expected: &str) -> Result<u8, ParseError> {
        word.strip_prefix(letter)
            .and_then(|digits| digits.parse().ok().filter(|_| digits.len() <= 3 && !digits.starts_with('+')))
            .ok_or_else(|| self.found(expected, word))
    }

    /// Read `word` as `GFN` or `GFN@ALIAS`.
    ///
    /// # Errors
    /// If it is neither, or the alias is none of this VM's.
    pub fn gpa(&self, vm: &VmConfig, word: &str) -> Result<Gpa, ParseError> {
        let (gfn, alias) = word.split_once('@').unwrap_or((word, "0"));
        let gfn = self.gfn_number(gfn)?;
        let max = vm.stolen().alias_count() as u64 - 1;
        let alias = self
            .number(alias, max)
            .map_err(|_| self.found(format!("an alias from 0 to {max} (the VM's stolen bits)"), word))?;
        Ok(vm.stolen().join(gfn, vm.stolen().alias(alias as usize)))
    }

    fn gfn_number(&self, word: &str) -> Result<Gfn, ParseError> {
        self.number(word, TOP_GFN).map(Gfn::new)
    }

    fn gfn(&mut self) -> Result<Gfn, ParseError> {
        let value = self.value("gfn")?;
        self.gfn_number(value)
    }

    fn pages(&mut self) -> Result<u32, ParseError> {
        self.keyed_number("pages", u64::from(u32::MAX)).map(|pages| pages as u32)
    }

    fn hva_range(&mut self) -> Result<HostPageRange, ParseError> {
        let start = HostPage::new(self.keyed_number("hva", u64::from(u32::MAX))?);
        Ok(HostPageRange { start, pages: self.pages()? })
    }

    /// The means at the end of a line, if it names one.
    fn reclaim(&mut self) -> Result<Option<Reclaim>, ParseError> {
        if self.is_done() {
            return Ok(None);
        }
        let word = self.value("by")?;
        let known = || Reclaim::ALL.map(Reclaim::name).join(", ");
        Reclaim::named(word).map(Some).ok_or_else(|| self.found(format!("a reclaim: {}", known()), word))
    }

    fn slot_id(&mut self) -> Result<SlotId, ParseError> {
        let expected =
            format!("a slot: 0 to {} or p0 to p{}", crate::limits::USER_SLOTS - 1, crate::limits::INTERNAL_SLOTS - 1);
        let word = self.next(&expected)?;
        let id = match word.strip_prefix('p') {
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|&n: &u8| usize::from(n) < crate::limits::INTERNAL_SLOTS)
                .map(SlotId::internal),
            None => word.parse().ok().filter(|&n: &u8| usize::from(n) < crate::limits::USER_SLOTS).map(SlotId::user),
        };
        id.ok_or_else(|| self.found(expected, word))
    }

    fn flags(&mut self) -> Result<SlotFlags, ParseError> {
        let mut flags = SlotFlags::default();
        while let Some(word) = self.peek() {
            self.next("")?;
            match word {
                "readonly" if !flags.readonly => flags.readonly = true,
                "log-dirty" if !flags.log_dirty => flags.log_dirty = true,
                _ => return Err(self.found("readonly or log-dirty, each once", word)),
            }
        }
        Ok(flags)
    }

    /// A whole change. Only here a new slot may be asked for under an alias, which is an op of its own.
    fn slot(&mut self, vm: &VmConfig) -> Result<Op, ParseError> {
        let id = self.slot_id()?;
        let mut ahead = self.clone();
        let creates = ahead.next("").is_ok_and(|word| word == "create");
        if creates && ahead.peek().is_some_and(|word| word.contains('@')) {
            let gpa = ahead.value("gfn")?;
            let gpa = ahead.gpa(vm, gpa)?;
            let HostPageRange { start: hva, pages } = ahead.pages_and_hva()?;
            *self = ahead;
            return Ok(Op::SlotAliased { id, gpa, pages, hva });
        }
        Ok(Op::Slot { id, change: self.slot_change()? })
    }

    fn pages_and_hva(&mut self) -> Result<HostPageRange, ParseError> {
        let pages = self.pages()?;
        Ok(HostPageRange { start: HostPage::new(self.keyed_number("hva", u64::from(u32::MAX))?), pages })
    }

    fn slot_change(&mut self) -> Result<SlotChange, ParseError> {
        let expected = "create, delete, move or flags";
        Ok(match self.next(expected)? {
            "create" => {
                let gfn = self.gfn()?;
                let HostPageRange { start: hva, pages } = self.pages_and_hva()?;
                SlotChange::Create { gfn, pages, hva, flags: self.flags()? }
            }
            "delete" => SlotChange::Delete,
            "move" => SlotChange::Move { gfn: self.gfn()? },
            "flags" if self.peek() == Some("none") => {
                self.next("")?;
                SlotChange::Flags(SlotFlags::default())
            }
            "flags" if self.is_done() => {
                self.next("none, readonly or log-dirty")?;
                SlotChange::Flags(SlotFlags::default())
            }
            "flags" => SlotChange::Flags(self.flags()?),
            word => return Err(self.found(expected, word)),
        })
    }

    fn access(&mut self) -> Result<Access, ParseError> {
        let expected = "read, write or execute";
        let word = self.next(expected)?;
        Access::ALL.into_iter().find(|access| access.name() == word).ok_or_else(|| self.found(expected, word))
    }

    fn private(&mut self) -> Result<bool, ParseError> {
        let expected = "private or shared";
        match self.next(expected)? {
            "private" => Ok(true),
            "shared" => Ok(false),
            word => Err(self.found(expected, word)),
        }
    }

    fn memory_type(&mut self) -> Result<MemoryType, ParseError> {
        let expected = "write-back or uncacheable";
        let word = self.next(expected)?;
        MemoryType::ALL.into_iter().find(|memory| memory.name() == word).ok_or_else(|| self.found(expected, word))
    }

    fn backend(&self, word: &str) -> Result<BackendMode, ParseError> {
        BackendMode::ALL
            .into_iter()
            .find(|mode| mode.name() == word)
            .ok_or_else(|| self.found("absent, works, fails-first, fails-second or fails-all", word))
    }

    fn vcpu_op(&mut self, vm: &VmConfig, vcpu: u8) -> Result<Op, ParseError> {
        let expected = "read, write, execute, fault-begin, fault-end, prefault, translate, write-gpte, guest-walk, \
                        guest-access, guest-flush, page-ready or async-pf-clear";
        let word = self.next(expected)?;
        Ok(match word {
            "fault-begin" => {
                let access = self.access()?;
                let word = self.next("a gfn, with @ALIAS or without")?;
                Op::FaultBegin { vcpu, gpa: self.gpa(vm, word)?, access }
            }
            "fault-end" => Op::FaultEnd { vcpu },
            "prefault" => {
                let word = self.next("a gfn, with @ALIAS or without")?;
                Op::Prefault { vcpu, gpa: self.gpa(vm, word)? }
            }
            "translate" => {
                let table = self.value("table")?;
                let table = self.gpa(vm, table)?;
                let leaf = self.value("leaf")?;
                Op::Translate { vcpu, table, leaf: self.gpa(vm, leaf)? }
            }
            "write-gpte" => {
                let word = self.next("a gfn, with @ALIAS or without")?;
                let gpa = self.gpa(vm, word)?;
                let index = self.keyed_number("index", u64::from(u8::MAX))? as u8;
                let target = self.value("gpa")?;
                let target = self.gpa(vm, target)?;
                Op::WriteGpte { vcpu, gpa, index, gpte: Gpte::new(target, self.gpte_flags()?) }
            }
            "guest-walk" | "guest-access" => {
                let access = self.access()?;
                let root = self.value("root")?;
                let root = self.gpa(vm, root)?;
                let gva = self.gva(vm)?;
                let walks = word == "guest-walk";
                if walks {
                    Op::GuestWalk { vcpu, root, gva, access }
                } else {
                    Op::GuestAccess { vcpu, root, gva, access }
                }
            }
            "guest-flush" => Op::GuestFlush { vcpu },
            "page-ready" => Op::PageReady { vcpu },
            "async-pf-clear" => Op::AsyncPfClear { vcpu },
            _ => {
                let access = Access::ALL.into_iter().find(|access| access.name() == word);
                let access = access.ok_or_else(|| self.found(expected, word))?;
                let word = self.next("a gfn, with @ALIAS or without")?;
                Op::Access { vcpu, gpa: self.gpa(vm, word)?, access }
            }
        })
    }

    fn stride(&mut self) -> Result<u64, ParseError> {
        match self.peek() {
            Some(word) if word.starts_with("stride=") => self.keyed_number("stride", u64::from(u32::MAX)),
            _ => Ok(1),
        }
    }

    /// The rest of the `vm` line, each word of which may be left out.
    fn vm_options(&mut self, mut vm: VmConfig) -> Result<VmConfig, ParseError> {
        let next = |words: &Self, key: &str| words.peek().is_some_and(|word| word.starts_with(key));
        let mut levels = Levels::Four;
        if next(self, "levels=") {
            levels = match self.value("levels")? {
                "4" => Levels::Four,
                "5" => Levels::Five,
                word => return Err(self.found("levels=4 or levels=5", word)),
            };
        }
        vm = vm.with_levels(levels).map_err(|e| self.whole(format!("a legal VM ({e})")))?;
        if next(self, "maxphyaddr=") {
            let bits = self.keyed_number("maxphyaddr", u64::from(u8::MAX))? as u8;
            vm = vm.with_maxphyaddr(bits).map_err(|e| self.whole(format!("a legal VM ({e})")))?;
        }
        if next(self, "log=") {
            vm = vm.with_logging(match self.value("log")? {
                "write-protect" => Logging::WriteProtect,
                "pml" => Logging::Pml,
                word => return Err(self.found("log=write-protect or log=pml", word)),
            });
        }
        if next(self, "paging=") {
            let word = self.value("paging")?;
            let named = GuestPaging::ALL.into_iter().find(|paging| paging.name() == word);
            vm = vm.with_paging(
                named.ok_or_else(|| self.found("4-level, 5-level, pae, 32-bit, nested-ept or nested-npt", word))?,
            );
        }
        if next(self, "nx-huge-pages=") {
            vm = vm.with_nx_huge_pages(match self.value("nx-huge-pages")? {
                "on" => true,
                "off" => false,
                word => return Err(self.found("nx-huge-pages=on or nx-huge-pages=off", word)),
            });
        }
        if next(self, "slot-zap-all=") {
            vm = vm.with_slot_zap_all(match self.value("slot-zap-all")? {
                "on" => true,
                "off" => false,
                word => return Err(self.found("slot-zap-all=on or slot-zap-all=off", word)),
            });
        }
        if next(self, "dirty-ring=") {
            let entries = self.keyed_number("dirty-ring", u64::from(u8::MAX))? as u8;
            vm = vm.with_dirty_ring(entries).map_err(|e| self.whole(format!("a legal VM ({e})")))?;
        }
        if next(self, "async-pf=") {
            vm = vm.with_async_pf(match self.value("async-pf")? {
                "on" => true,
                "off" => false,
                word => return Err(self.found("async-pf=on or async-pf=off", word)),
            });
        }
        if let Some(word) = self.peek() {
            self.next("")?;
            let expected = "stride=…, levels=…, maxphyaddr=…, log=…, paging=…, nx-huge-pages=…, slot-zap-all=…, dirty-ring=… or \
                            async-pf=… in this order, or the end of the line";
            return Err(self.found(expected, word));
        }
        Ok(vm)
    }

    fn gpte_flags(&mut self) -> Result<GpteFlags, ParseError> {
        let mut flags = GpteFlags::NONE;
        while let Some(word) = self.peek() {
            self.next("")?;
            let named = GpteFlags::NAMES.into_iter().find(|(flag, name)| *name == word && !flags.contains(*flag));
            let (flag, _) = named
                .ok_or_else(|| self.found("present, writable, user, nx, large or bit51, each at most once", word))?;
            flags = flags.union(flag);
        }
        Ok(flags)
    }

    /// One index for each level of the VM's guest, the root's first.
    fn gva(&mut self, vm: &VmConfig) -> Result<Gva, ParseError> {
        let levels = usize::from(vm.paging().levels());
        let word = self.value("gva")?;
        let mut indices = [0; GUEST_LEVELS];
        let mut found = 0;
        for (n, index) in word.split('.').enumerate().take(levels + 1) {
            found = n + 1;
            if n < levels {
                indices[n] = self.number(index, GPTES as u64 - 1)? as u8;
            }
        }
        if found == levels {
            return Ok(Gva::new(&indices[..levels]));
        }
        let expected = format!("{levels} indices with dots between them, one for each level of the VM's paging=");
        Err(self.found(expected, word))
    }

    /// Read the `vm` line.
    pub(super) fn vm(&mut self) -> Result<VmConfig, ParseError> {
        let expected = "vm";
        let word = self.next(expected)?;
        if word != "vm" {
            return Err(self.found("`vm stolen=… vcpus=… base=… flush=…` before the first op", word));
        }
        let list = self.value("stolen")?;
        let mut bits = Vec::new();
        if list != "none" {
            for bit in list.split(',').take(crate::limits::STOLEN_BITS + 1) {
                bits.push(self.number(bit, 63)? as u8);
            }
        }
        let stolen = StolenMask::new(&bits).map_err(|e| self.found(format!("legal stolen bits ({e})"), list))?;
        let vcpus = self.value("vcpus")?;
        let vcpus = self.number(vcpus, u64::from(u8::MAX))? as u8;
        let base = self.value("base")?;
        let base = Gfn::new(self.number(base, u64::MAX >> 1)?);
        let mode = self.value("flush")?;
        let mode = self.backend(mode)?;
        let plain = VmConfig::new(StolenMask::NONE, vcpus, Gfn::new(0), mode);
        let stride = self.stride()?;
        let vm = plain.and_then(|vm| vm.with_frames(base, stride)?.with_stolen(stolen));
        let vm = self.vm_options(vm.map_err(|e| self.whole(format!("a legal VM ({e})")))?)?;
        self.end()?;
        Ok(vm)
    }
}

/// Read one op from the words of a line.
///
/// # Errors
/// A [`ParseError`] with the place, what was expected and what was found.
pub fn parse_op_words(vm: &VmConfig, words: &mut Words<'_>) -> Result<Op, ParseError> {
    let expected = "an op: slot, slot-begin, slot-end, v0 …, unmap, unmap-begin, unmap-end, collapse, page-out, page-in, prot-none, age, \
                    dirty-get, dirty-clear, write-protect, track, untrack, attributes, attributes-begin, attributes-end, memory-type, zap-begin, \
                    zap-end, nx-recover, mmu-pages or backend";
    let op = match words.next(expected)? {
        "slot" => words.slot(vm)?,
        "slot-begin" => Op::SlotBegin { id: words.slot_id()?, change: words.slot_change()? },
        "slot-end" => Op::SlotEnd,
        "unmap" => Op::Unmap { range: words.hva_range()?, by: words.reclaim()? },
        "unmap-begin" => {
            let word = words.next("w0 or w1")?;
            Op::UnmapBegin { window: words.tagged(word, 'w', "w0 or w1")?, range: words.hva_range()? }
        }
        "unmap-end" => {
            let word = words.next("w0 or w1")?;
            Op::UnmapEnd { window: words.tagged(word, 'w', "w0 or w1")? }
        }
        "collapse" => Op::Collapse { range: words.hva_range()? },
        "page-out" => Op::PageOut { range: words.hva_range()? },
        "prot-none" => Op::ProtNone { range: words.hva_range()? },
        "page-in" => Op::PageIn { range: words.hva_range()? },
        "age" => Op::Age { range: words.hva_range()? },
        "dirty-get" => Op::DirtyGet { id: words.slot_id()? },
        "dirty-clear" => Op::DirtyClear { id: words.slot_id()?, gfn: words.gfn()?, pages: words.pages()? },
        "write-protect" => Op::WriteProtect { gfn: words.gfn()? },
        "track" => Op::WriteTrack { gfn: words.gfn()? },
        "untrack" => Op::WriteUntrack { gfn: words.gfn()? },
        "attributes" => Op::Attributes { gfn: words.gfn()?, pages: words.pages()?, private: words.private()? },
        "attributes-begin" => {
            Op::AttributesBegin { gfn: words.gfn()?, pages: words.pages()?, private: words.private()? }
        }
        "attributes-end" => Op::AttributesEnd,
        "memory-type" => Op::MemoryType { gfn: words.gfn()?, pages: words.pages()?, memory: words.memory_type()? },
        "zap-begin" => Op::ZapBegin {
            gfn: words.gfn()?,
            pages: words.pages()?,
            leaves: words.keyed_number("yield", u64::from(u8::MAX))? as u8,
        },
        "zap-end" => Op::ZapEnd,
        "nx-recover" => Op::NxRecover,
        "mmu-pages" => {
            let word = words.next("how many shadow pages")?;
            Op::MmuPages { pages: words.number(word, u64::from(u8::MAX))? as u8 }
        }
        "backend" => {
            let word = words.next("a back-end mode")?;
            Op::Backend(words.backend(word)?)
        }
        word if word.starts_with('v') && word[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let vcpu = words.tagged(word, 'v', "a vCPU: v0, v1, …")?;
            words.vcpu_op(vm, vcpu)?
        }
        word => return Err(words.found(expected, word)),
    };
    words.end()?;
    check_op(vm, &op).map_err(|e| words.whole(e.to_string()))?;
    Ok(op)
}
