//! An op, read from the words of its line.

use super::words::{ParseError, Words};
use crate::program::{Access, Gpte, HostPageRange, Op, SlotChange, SlotFlags, VmConfig, check_op};

impl Words<'_> {
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
