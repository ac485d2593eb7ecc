//! A second-stage MMU with stolen GPA bits: the target that gpafuzz tests first, and a readable model of KVM's own MMU.
//!
//! It follows the design of KVM's direct MMU and of the RFC "KVM: x86: Add infrastructure for stolen GPA bits" (v3 31/59).
//! Memory is managed by **gfn**, which carries no stolen bit: memslots, rmap, dirty log. Tables are walked by **gpa**, so each
//! alias has a path of its own, and a shadow page is known by gfn and alias. The rmap leads from a gfn to the SPTEs of all its
//! aliases.
//!
//! ```
//! use gpa_model::{Exit, FlushBackend, Host, HostPage, Mmu, text};
//! use kvm_mmu::{Corrected, KvmMmu};
//!
//! let program = text::parse("gpafuzz-program 1\n\
//!     vm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
//!     slot 0 create gfn=0x1e0 pages=4 hva=0\n\
//!     v0 write 0x1e1@1\n").unwrap();
//! let (mut mmu, host) = (KvmMmu::<Corrected>::new(&program.vm), Host::default());
//! let mut flush = FlushBackend::default();
//! let exits: Vec<Exit> = program.ops.iter().map(|op| mmu.step(&host, &mut flush, op)).collect();
//! // The alias reaches the page behind hva 1, although no memslot lies there.
//! assert_eq!(exits, [Exit::Done, Exit::Memory(host.pfn(HostPage::new(1)))]);
//! ```
//!
//! # Entry points
//!
//! - [`SecondStage`] is the MMU: vCPU threads, the host and user space share it and call it directly.
//! - [`KvmMmu`] drives it by the ops of a program. [`KvmMmu::export`] writes its tables where hardware can walk them.
//! - [`Policy`] has one method for each decision that aliasing adds. [`Corrected`] decides rightly, [`DirectMirror`] as upstream
//!   does since Linux 6.14, [`RfcV3`] as the RFC was posted. Each of the [`mutants`] makes one mistake.
//! - [`Format`] is the layout of entries: [`Ept`], [`EptNoAd`] without accessed and dirty bits, [`Npt`].
//!
//! # What it does
//!
//! Leaves of 4 KiB, 2 MiB and 1 GiB; four or five levels; dirty bitmaps, PML and dirty rings; write tracking; memory types and
//! attributes; MMIO entries; async page faults; recycling; NX huge pages; the guest's own tables under shadow paging
//! ([`SecondStage::guest_access`]).
//!
//! # What it does not do
//!
//! - It holds no guest memory and emulates no instruction. An emulated access is an exit.
//! - It maps large pages only where no stolen bit lies below the tables that hold leaves.
//! - It has no nested second stage: a nested guest appears as a mode of the guest's tables.
//! - It frees no memory while it lives: a table page stays allocated until the MMU is dropped.
//! - The ops model races at a few points of a fault or zap. Other interleavings are in `tests/threads.rs`.
//! - It has never run a production guest. `gpafuzz walk` lets a real page walker use its tables.

/// The README's example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod adapter;
mod changes;
mod dirty;
mod fault;
mod guest;
mod host;
mod memslots;
#[cfg(feature = "mutants")]
pub mod mutants;
mod policy;
mod second_stage;
mod sync;
mod tables;
mod zap;

pub use adapter::{ExportError, KvmMmu, Placement};
pub use guest::shadow::ShadowError;
pub use host::{HostPages, PfnError, TlbFlush};
pub use memslots::dirty_ring::DirtyGfn;
pub use memslots::slots::SlotError;
pub use policy::{AliasFault, Corrected, DirectMirror, Family, HasPolicy, LargeSeen, Mistake, Policy, RfcV3, SlotSeen};
pub use second_stage::SecondStage;
pub use tables::roots::GfnFilter;
pub use tables::shadow_pages::SpKey;
pub use tables::spte::{Ept, EptNoAd, Format, Npt};
