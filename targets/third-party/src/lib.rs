//! Page tables of other projects behind [`gpa_model::Mmu`]: each crate is pinned by its exact version and judged as it is.
//!
//! A crate's tables are put under a hypervisor that is as plain as a correct one can be, so that what oracles object to is the
//! crate's doing. Files named for a crate hold what that crate needs and nothing else; the hypervisor is in `eager.rs`, for crates
//! that are told which memory of the host is behind a guest's, and in `lazy.rs`, for those that allocate it themselves.
//!
//! Crates write their tables by `unsafe` code. The memory they write is that of `arena.rs`, where a page that is gone is a panic;
//! what a crate does beyond that is not caught.

mod arena;
mod axaddrspace_lazy;
mod axaddrspace_linear;
mod eager;
mod housed;
mod lazy;
mod memslots;
mod nested;
mod tables;

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

/// Every one.
pub const ALL: [Adapter; 3] = [
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
];

fn eager<T: Tables + 'static>() -> Box<dyn Mmu> {
    Box::new(Eager::<T>::new())
}
