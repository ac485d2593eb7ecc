//! KVM's interface: its ioctls, memslots, dirty rings, eventfds, guest_memfds and counters, and which KVM this is.

pub(crate) mod address_space;
pub(crate) mod alias_method;
pub(crate) mod fingerprint;
pub(crate) mod guest_memfd;
pub(crate) mod ioctl;
pub(crate) mod ioeventfd;
pub(crate) mod memslots;
pub(crate) mod mmu_debugfs;
pub(crate) mod ring;
pub(crate) mod slot_window;
pub(crate) mod stats;
pub(crate) mod witness;
