//! A second-stage MMU with stolen GPA bits: memslots, shadow pages, rmap, faults, notifier and dirty log, after the design
//! of KVM's direct MMU and of the RFC "KVM: x86: Add infrastructure for stolen GPA bits" (v3 31/59).
//!
//! The frame of a GPA is known by its gfn, without stolen bits, wherever memory is managed: memslots, rmap, dirty log. The
//! tables are walked by the raw gpa, so each alias has its own path through them; a shadow page is therefore known by gfn
//! **and** alias. What one host page backs is found by gfn through the rmap, which leads to the SPTEs of all aliases.
//!
//! Upstream's design is a second family of policies, [`DirectMirror`]: one bit is stolen, each of the two names of a frame has a
//! root of its own, gfns in shadow pages and iterator carry no stolen bit, and there is no rmap.
//!
//! A guest's own tables may be shadowed, too ([`SecondStage::guest_access`]): in pages of the indirect kind, beside the direct ones.
//!
//! Entries are in one of three layouts, each a [`Format`]: [`Ept`], [`EptNoAd`] without accessed and dirty bits, and [`Npt`].
//! Tables have four or five levels; [`KvmMmu::export`] places them where hardware can walk them.
//!
//! The decisions that aliasing adds are a [`Policy`]: [`Corrected`] holds the right answers, [`RfcV3`] those of the RFC as
//! posted, and each of the [`mutants`] overrides one of them. Leaves are 4 KiB, 2 MiB or 1 GiB: as large as host and memslot allow,
//! and small where writes are logged or tracked. A stolen bit lies above every table that holds leaves.
//!
//! ```
//! use gpa_model::{Exit, FlushBackend, Host, Mmu, VmConfig, text};
//! use kvm_mmu::KvmMmu;
//!
//! let program = text::parse("gpafuzz-program 1\n\
//!     vm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
//!     slot 0 create gfn=0x1e0 pages=4 hva=0\n\
//!     v0 write 0x1e1@1\n").unwrap();
//! let (mut mmu, host) = (KvmMmu::<kvm_mmu::Corrected>::new(&program.vm), Host::default());
//! let mut flush = FlushBackend::default();
//! let exits: Vec<Exit> = program.ops.iter().map(|op| mmu.step(&host, &mut flush, op)).collect();
//! // The alias reached the page behind hva 1 although no memslot lies there.
//! assert_eq!(exits, [Exit::Done, Exit::Memory(host.pfn(gpa_model::HostPage::new(1)))]);
//! ```

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
pub use policy::{AliasFault, Corrected, DirectMirror, Family, HasPolicy, LargeSeen, Policy, RfcV3, SlotSeen};
pub use second_stage::SecondStage;
pub use tables::roots::GfnFilter;
pub use tables::shadow_pages::SpKey;
pub use tables::spte::{Ept, EptNoAd, Format, Npt};
