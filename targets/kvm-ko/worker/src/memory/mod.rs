//! Memory as the kernel sees it: one physical memory, mapped as a whole for the kernel and in part for the host's user space.
//!
//! | from | what |
//! |---|---|
//! | [`LOW`] | code and data of the modules, below 2 GiB as `-mcmodel=kernel` needs |
//! | [`UNANSWERED`] | addresses of symbols that nothing answers; there is nothing |
//! | [`HVA`] | user space of the host: the guest's memory, below `page_offset_base` because `kvm_is_error_hva()` asks for that |
//! | [`PHYSICAL`] | the direct map, `page_offset_base` |
//! | [`PAGES`] | an array of `struct page`, `vmemmap_base` |

pub(crate) mod heap;
pub(crate) mod host;
pub(crate) mod percpu;
pub(crate) mod physical;
pub(crate) mod stack;

pub(crate) use physical::{
    HEAP_END, HVA, HVA_BYTES, LOW, LOW_BYTES, PAGE, PAGES, PHYSICAL, PHYSICAL_BYTES, UNANSWERED,
};
