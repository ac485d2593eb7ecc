//! Page tables of other projects behind [`gpa_model::Mmu`]: each crate is pinned by its exact version and judged as it is.
//!
//! A crate's tables are put under a hypervisor that is as plain as a correct one can be, so that what oracles object to is the
//! crate's doing. Files named for a crate hold what that crate needs and nothing else; the hypervisor is in `eager.rs`, for crates
//! that are told which memory of the host is behind a guest's, and in `lazy.rs`, for those that allocate it themselves.
//!
//! Crates write their tables by `unsafe` code. The memory they write is that of `arena.rs`, where a page that is gone is a panic;
//! what a crate does beyond that is not caught.

mod aarch64_paging;
mod arena;
mod ax_page_table_multiarch;
mod axaddrspace_lazy;
mod axaddrspace_linear;
mod eager;
mod flushes;
mod housed;
mod hyperlight;
mod lazy;
mod memslots;
mod nested;
mod page_table_generic;
mod tables;
mod vm_memory;
mod x86_64;

use crate::aarch64_paging::Aarch64Paging;
use crate::ax_page_table_multiarch::AxPageTableMultiarch;
use crate::hyperlight::Hyperlight;
use crate::page_table_generic::PageTableGeneric;
use crate::vm_memory::Regions;
use crate::x86_64::X86_64;
use axaddrspace_lazy::AxAddrSpaceLazy;
use axaddrspace_linear::AxAddrSpaceLinear;
use eager::Eager;
use gpa_model::Mmu;
use lazy::Lazy;
use tables::Tables;

/// A crate under a hypervisor.
#[derive(Clone, Copy, Debug)]
pub struct Adapter {
    /// The name, which is the crate's and says how it is used where there is a choice.
    pub name: &'static str,
    /// Which crate, which version, and how it is used.
    pub about: &'static str,
    /// A new one.
    pub open: fn() -> Box<dyn Mmu>,
}

/// Every one. It is no constant, so that the crates are compiled here, with this package's checks of arithmetic.
pub static ALL: [Adapter; 9] = [
    Adapter {
        name: "axaddrspace-linear",
        about: "axaddrspace 0.6.0 over page-table-generic 0.9.1, with linear mappings",
        open: eager::<AxAddrSpaceLinear<3>>,
    },
    Adapter {
        name: "axaddrspace-linear-4k",
        about: "the same with no leaf larger than 4 KiB",
        open: eager::<AxAddrSpaceLinear<1>>,
    },
    Adapter {
        name: "axaddrspace-lazy",
        about: "axaddrspace 0.6.0 over page-table-generic 0.9.1, with memory that it allocates when the guest faults",
        open: || Box::new(Lazy::<AxAddrSpaceLazy>::new()),
    },
    Adapter {
        name: "page-table-generic",
        about: "page-table-generic 0.9.1 as a RISC-V G-stage in mode Sv39x4",
        open: eager::<PageTableGeneric>,
    },
    Adapter {
        name: "ax-page-table-multiarch",
        about: "ax-page-table-multiarch 0.8.15 as nested page tables",
        open: eager::<AxPageTableMultiarch>,
    },
    Adapter {
        name: "aarch64-paging",
        about: "aarch64-paging 0.12.3 as a stage 2 that is not in use while it changes",
        open: eager::<Aarch64Paging<false>>,
    },
    Adapter {
        name: "aarch64-paging-live",
        about: "the same in use, in pages alone, with its own TLB maintenance",
        open: eager::<Aarch64Paging<true>>,
    },
    Adapter {
        name: "x86_64",
        about: "the mappers of x86_64 0.15.5 as nested page tables, with regions of vm-memory 0.18.0 as memslots",
        open: || Box::new(Eager::<X86_64, Regions>::new()),
    },
    Adapter {
        name: "hyperlight",
        about: "the page tables of Hyperlight, in hyperlight-common 0.18.0",
        open: eager::<Hyperlight>,
    },
];

fn eager<T: Tables + 'static>() -> Box<dyn Mmu> {
    Box::new(Eager::<T>::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Refused;
    use gpa_model::{Gpa, Pfn, Rights, Spte, text};
    use gpa_oracles::Lockstep;

    /// Says that it flushes by itself, and does not.
    struct Silent(Hyperlight);

    impl Tables for Silent {
        const HOLES: bool = true;
        const FLUSHES: bool = true;

        fn new() -> Self {
            Self(Hyperlight::new())
        }

        fn map(&mut self, gpa: Gpa, pfn: Pfn, pages: u64, rights: Rights) -> Result<(), Refused> {
            self.0.map(gpa, pfn, pages, rights)
        }

        fn unmap(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused> {
            self.0.unmap(gpa, pages)
        }

        fn find(&self, gpa: Gpa) -> Option<Spte> {
            self.0.find(gpa)
        }
    }

    #[test]
    fn a_crate_that_does_not_flush_what_it_unmaps_is_found_out() {
        let program = "gpafuzz-program 1\n\
            vm stolen=none vcpus=1 base=0x1e0 flush=works\n\
            slot 0 create gfn=0x1e0 pages=4 hva=0x0\n\
            unmap hva=0x1 pages=1\n";
        let program = text::parse(program).unwrap();
        let violation = Lockstep::default().run(&mut Eager::<Silent>::new(), &program).unwrap();
        assert_eq!(violation.signature.to_string(), "alias_flush/stale-page/unmap/base/user");
        assert_eq!(Lockstep::default().run(&mut Eager::<Hyperlight>::new(), &program), None);
    }
}
