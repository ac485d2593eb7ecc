//! One op, seen from every side, and what is left when a program has ended.

use super::view::View;
use gpa_model::{
    Access, Alias, Allowed, Capabilities, Exit, Flush, GfnIndexed, Gpa, Host, Model, Op, Sample, TlbEvent,
};

/// One op, seen from every side.
#[derive(Debug)]
pub struct Step<'a> {
    /// Number of the op in the program, from 0.
    pub at: usize,
    /// The op.
    pub op: &'a Op,
    /// The address a vCPU accessed, if the op is an access or the end of one.
    pub accessed: Option<Gpa>,
    /// What it did there.
    pub access: Option<Access>,
    /// What the target answered.
    pub exit: Exit,
    /// What the model allows.
    pub allowed: &'a Allowed,
    /// The model after the op.
    pub model: &'a Model,
    /// The host after the op.
    pub host: &'a Host,
    /// The flushes the target asked for, in order.
    pub flushes: &'a [Flush],
    /// The ordered log of the op: flushes, freed table pages, and the tables at these points.
    pub events: &'a [TlbEvent],
    /// The translations that [`TlbEvent::Tables`] points to.
    pub samples: &'a [Sample],
    /// What the target's tables held before and hold now.
    pub view: &'a View,
    /// What the op made the target warn of.
    pub warning: Option<&'static str>,
    /// What the target can show.
    pub capabilities: Capabilities,
}

impl Step<'_> {
    /// The `(frame, alias)` that was accessed.
    pub fn accessed_frame(&self) -> Option<(usize, Alias)> {
        self.accessed.and_then(|gpa| self.model.vm().locate(gpa))
    }

    /// Whether the answer is one that the model allows and the design of the target has a reason for.
    pub fn admits(&self) -> bool {
        let prefault = matches!(self.op, Op::Prefault { .. });
        let undeclared = prefault && self.exit == Exit::Refused && !self.capabilities.refuses_aliased_prefault;
        !undeclared && (self.allowed.admits(&self.exit) || self.is_told_with_fewer_bits())
    }

    /// Whether the answer is an exit to user space for the address that is right, without the bits that this target does not tell.
    fn is_told_with_fewer_bits(&self) -> bool {
        let (Exit::Mmio(told), Some(right)) = (self.exit, self.allowed.mmio) else { return false };
        let stolen = self.model.vm().stolen();
        let (gfn, alias) = stolen.split(right);
        let kept = stolen.alias_index(alias) & usize::from(self.capabilities.told_alias_bits);
        told == stolen.join(gfn, stolen.alias(kept))
    }

    /// The frame of a private slot that an access of a guest of the guest led to, where it must not find it.
    pub fn hidden_frame(&self) -> Option<usize> {
        let Op::GuestAccess { root, gva, access, .. } = *self.op else { return None };
        let gpa = self.model.guest_walk(self.host, root, gva, access).end.ok()?;
        self.model.vm().locate(gpa).map(|(frame, _)| frame).filter(|&frame| self.model.hides(frame))
    }
}

/// What is left when a program has ended.
#[derive(Debug)]
pub struct End<'a> {
    /// The model.
    pub model: &'a Model,
    /// The host.
    pub host: &'a Host,
    /// What the target's tables hold.
    pub view: &'a View,
    /// Everything the target keeps by gfn.
    pub keys: &'a [GfnIndexed],
    /// What the target can show.
    pub capabilities: Capabilities,
}
