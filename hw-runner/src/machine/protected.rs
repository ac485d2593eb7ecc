//! Private memory, which the host cannot reach: only the guest can give its pages their identities.

use super::Machine;
use crate::error::{Doing, MachineError};
use crate::guest;

impl Machine {
    /// Have the first vCPU write to each of `frames`, by its base name, the identity of the host page it stands for.
    pub(super) fn stamp_private(&mut self, frames: Vec<(usize, usize)>) -> Result<(), MachineError> {
        let stamps = &self.stamps;
        let requests: Vec<_> = frames
            .into_iter()
            .flat_map(|(frame, page)| guest::stamp_requests(guest::name(self.window, 0, frame), stamps[page]))
            .collect();
        if requests.is_empty() {
            return Ok(());
        }
        let (vcpu, mut outcomes) = (&mut self.vcpus[0], Vec::new());
        vcpu.use_tables(self.tables_written)?;
        self.watchdog.arm().doing("arm the watchdog")?;
        // What cannot be reached now is a page that bears no identity, and the next access will tell.
        vcpu.run(&self.own, &self.watchdog, &requests, false, &mut outcomes)
    }
}
