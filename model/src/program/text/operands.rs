//! Operands of ops, each read from one word or two.

use super::words::{ParseError, Words};
use crate::addr::{Gfn, Gpa, HostPage};
use crate::limits::{GPTES, GUEST_LEVELS, INTERNAL_SLOTS, TOP_GFN, USER_SLOTS};
use crate::program::{
    Access, BackendMode, GpteFlags, Gva, HostPageRange, MemoryType, Reclaim, SlotFlags, SlotId, VmConfig,
};

impl Words<'_> {
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

    pub(super) fn gfn_number(&self, word: &str) -> Result<Gfn, ParseError> {
        self.number(word, TOP_GFN).map(Gfn::new)
    }

    pub(super) fn gfn(&mut self) -> Result<Gfn, ParseError> {
        let value = self.value("gfn")?;
        self.gfn_number(value)
    }

    pub(super) fn pages(&mut self) -> Result<u32, ParseError> {
        self.keyed_number("pages", u64::from(u32::MAX)).map(|pages| pages as u32)
    }

    pub(super) fn hva_range(&mut self) -> Result<HostPageRange, ParseError> {
        let start = HostPage::new(self.keyed_number("hva", u64::from(u32::MAX))?);
        Ok(HostPageRange { start, pages: self.pages()? })
    }

    /// The means at the end of a line, if it names one.
    pub(super) fn reclaim(&mut self) -> Result<Option<Reclaim>, ParseError> {
        if self.is_done() {
            return Ok(None);
        }
        let word = self.value("by")?;
        let known = || Reclaim::ALL.map(Reclaim::name).join(", ");
        Reclaim::named(word).map(Some).ok_or_else(|| self.found(format!("a reclaim: {}", known()), word))
    }

    pub(super) fn slot_id(&mut self) -> Result<SlotId, ParseError> {
        let expected = format!("a slot: 0 to {} or p0 to p{}", USER_SLOTS - 1, INTERNAL_SLOTS - 1);
        let word = self.next(&expected)?;
        let id = match word.strip_prefix('p') {
            Some(digits) => digits.parse().ok().filter(|&n: &u8| usize::from(n) < INTERNAL_SLOTS).map(SlotId::internal),
            None => word.parse().ok().filter(|&n: &u8| usize::from(n) < USER_SLOTS).map(SlotId::user),
        };
        id.ok_or_else(|| self.found(expected, word))
    }

    pub(super) fn flags(&mut self) -> Result<SlotFlags, ParseError> {
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

    pub(super) fn pages_and_hva(&mut self) -> Result<HostPageRange, ParseError> {
        let pages = self.pages()?;
        Ok(HostPageRange { start: HostPage::new(self.keyed_number("hva", u64::from(u32::MAX))?), pages })
    }

    pub(super) fn access(&mut self) -> Result<Access, ParseError> {
        let expected = "read, write or execute";
        let word = self.next(expected)?;
        Access::ALL.into_iter().find(|access| access.name() == word).ok_or_else(|| self.found(expected, word))
    }

    pub(super) fn private(&mut self) -> Result<bool, ParseError> {
        let expected = "private or shared";
        match self.next(expected)? {
            "private" => Ok(true),
            "shared" => Ok(false),
            word => Err(self.found(expected, word)),
        }
    }

    pub(super) fn memory_type(&mut self) -> Result<MemoryType, ParseError> {
        let expected = "write-back or uncacheable";
        let word = self.next(expected)?;
        MemoryType::ALL.into_iter().find(|memory| memory.name() == word).ok_or_else(|| self.found(expected, word))
    }

    pub(super) fn backend(&self, word: &str) -> Result<BackendMode, ParseError> {
        BackendMode::ALL
            .into_iter()
            .find(|mode| mode.name() == word)
            .ok_or_else(|| self.found("absent, works, fails-first, fails-second or fails-all", word))
    }

    pub(super) fn gpte_flags(&mut self) -> Result<GpteFlags, ParseError> {
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
    pub(super) fn gva(&mut self, vm: &VmConfig) -> Result<Gva, ParseError> {
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
}
