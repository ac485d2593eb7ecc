//! Planted faults: functions of the kernel that do nothing. With one left out, what watches the kernel has to object.

use super::Kernel;
use super::load::LoadError;
use crate::loader::{self, Low};

/// `xor %eax, %eax; ret`.
const RETURN_0: [u8; 3] = [0x31, 0xc0, 0xc3];

impl Kernel {
    /// From now on `function` of one of KVM's modules returns 0 and does nothing. A call that the compiler has made part of its caller
    /// goes on as before.
    ///
    /// # Errors
    /// If there is no such function.
    pub fn leave_out(&self, function: &str) -> Result<(), LoadError> {
        let at = loader::with_modules(|modules| modules.iter().find_map(|module| module.symbol(function)));
        let at =
            at.ok_or_else(|| LoadError(format!("expected the function {function} in a module of KVM, found none")))?;
        Low::copy(at, &RETURN_0);
        Ok(())
    }
}
