//! Where the guest's own page tables lead: the specification of the software walk (`walk_addr_generic()` in KVM).

use super::{Entitled, Model};
use crate::addr::{Gpa, HostPage};
use crate::host::Host;
use crate::mmu::Fault;
use crate::program::{Access, GpteFlags, Gva, Rights};

/// What a walk of the guest's tables comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestWalk {
    /// The address it leads to, or the fault that the guest gets.
    pub end: Result<Gpa, Fault>,
    /// A table on the way was being taken away: whoever reads it may also find it gone.
    pub in_flux: bool,
}

impl Model {
    /// Where `gva` leads a program of the guest from the table at `root`.
    ///
    /// In a mode that strips stolen bits every address, that of `root` too, is taken by its base name. In the others an
    /// address with a stolen bit is the address of no memory.
    pub fn guest_walk(&self, host: &Host, root: Gpa, gva: Gva, access: Access) -> GuestWalk {
        let (paging, stolen) = (self.vm().paging(), self.vm().stolen());
        let mut in_flux = false;
        let mut rights = Rights::RWX;
        let mut table = paging.taken(stolen, paging.root(root));
        let mut level = paging.levels();
        loop {
            let fault = |fault, in_flux| GuestWalk { end: Err(fault), in_flux };
            let Some((hva, unsettled)) = self.table_page(host, table) else {
                return fault(Fault::NotPresent, in_flux);
            };
            in_flux |= unsettled;
            let entry = host.gpte(hva, gva.index(level));
            if !entry.has(GpteFlags::PRESENT) {
                return fault(Fault::NotPresent, in_flux);
            }
            if paging.is_reserved(stolen, self.vm().maxphyaddr(), entry, level) {
                return fault(Fault::Reserved, in_flux);
            }
            rights = rights.intersect(paging.rights(entry));
            table = paging.taken(stolen, paging.address(entry, level));
            if level == 1 || entry.has(GpteFlags::LARGE) {
                if !rights.contains(Rights::needed(access)) {
                    return fault(Fault::Protection, in_flux);
                }
                return GuestWalk { end: Ok(table.add_pages(gva.offset(paging, level))), in_flux };
            }
            level -= 1;
        }
    }

    /// The page behind the table at `gpa`, and whether it is being taken away; `None` where there is no memory. Whatever a
    /// memslot is for, a table in it is read.
    pub(super) fn table_page(&self, host: &Host, gpa: Gpa) -> Option<(HostPage, bool)> {
        let (frame, alias) = self.vm().locate(gpa).filter(|(_, alias)| alias.is_none())?;
        let hva = self.hva(frame)?;
        Some((hva, self.entitled(host, frame, alias) == Entitled::InFlux))
    }
}
