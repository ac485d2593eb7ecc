//! The line of a program that configures its VM.

use super::words::{ParseError, Words};
use crate::addr::{Gfn, StolenMask};
use crate::limits::STOLEN_BITS;
use crate::program::vm_option::{Values, VmOption};
use crate::program::{VmConfig, VmError};

impl<'a> Words<'a> {
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
            for bit in list.split(',').take(STOLEN_BITS + 1) {
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
        let stride = self.option(&VmOption::STRIDE)?.unwrap_or(1);
        let vm = plain.and_then(|vm| vm.with_frames(base, stride)?.with_stolen(stolen));
        let vm = self.vm_options(vm.map_err(|error| self.no_vm(&error))?)?;
        self.end()?;
        Ok(vm)
    }

    /// The rest of the `vm` line, each word of which may be left out.
    fn vm_options(&mut self, mut vm: VmConfig) -> Result<VmConfig, ParseError> {
        for option in &VmOption::AFTER_STRIDE {
            let changed = match option.values {
                Values::Number { set, .. } => self.option(option)?.map(|number| set(vm, number)),
                Values::Switch { .. } | Values::Words { .. } => match self.option_word(option)? {
                    Some(word) => Some(option.set(vm, word).ok_or_else(|| self.found(option.expected(), word))?),
                    None => None,
                },
            };
            vm = changed.unwrap_or_else(|| option.usual(vm)).map_err(|error| self.no_vm(&error))?;
        }
        if let Some(word) = self.peek() {
            self.next("")?;
            let keys = VmOption::ALL.map(|option| format!("{}=…", option.key));
            let (last, keys) = keys.split_last().expect("there are options");
            let expected = format!("{} or {last} in this order, or the end of the line", keys.join(", "));
            return Err(self.found(expected, word));
        }
        Ok(vm)
    }

    /// The value of `option`, if it comes next.
    fn option_word(&mut self, option: &VmOption) -> Result<Option<&'a str>, ParseError> {
        let next = self.peek().and_then(|word| word.split_once('='));
        if next.is_some_and(|(key, _)| key == option.key) { self.value(option.key).map(Some) } else { Ok(None) }
    }

    fn option(&mut self, option: &VmOption) -> Result<Option<u64>, ParseError> {
        let Some(word) = self.option_word(option)? else { return Ok(None) };
        let most = if let Values::Number { most, .. } = option.values { most } else { 0 };
        self.number(word, most).map(Some)
    }

    fn no_vm(&self, error: &VmError) -> ParseError {
        self.whole(format!("a legal VM ({error})"))
    }
}
