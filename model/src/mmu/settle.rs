//! What the guest has done to memory, once its MMU has said how an op ended.

use super::Exit;
use crate::host::Host;
use crate::program::Op;

impl Host {
    /// Carry out what the guest has done to memory, once its MMU has said how `op` ended: a page that it reached was read in, and
    /// a page-table entry that it wrote is in the page that the write reached.
    pub fn settle(&mut self, op: &Op, exit: &Exit) {
        if let Exit::Memory(pfn) | Exit::Emulated(pfn) = *exit {
            let written = if let Op::WriteGpte { index, gpte, .. } = *op { Some((index, gpte)) } else { None };
            self.reached(pfn, written);
        }
    }
}
