//! `aarch64-paging` 0.12.3, by itself.

use aarch64_paging::descriptor::{PhysicalAddress, Stage2Attributes};
use aarch64_paging::idmap::IdTranslation;
use aarch64_paging::paging::{Constraints, MemoryRegion, RootTable, Stage2};

/// Where arithmetic is checked, as it is in debug builds. The address is documented to be ignored when memory is unmapped.
#[test]
#[should_panic(expected = "attempt to subtract with overflow")]
fn unmap_of_what_was_never_mapped_panics_if_the_physical_address_is_0() {
    let mut table = RootTable::new(IdTranslation::<Stage2Attributes>::new(), 1, Stage2);
    let (page, nothing) = (MemoryRegion::new(0x1000, 0x2000), Stage2Attributes::empty());
    let _ = table.map_range(&page, PhysicalAddress(0), nothing, Constraints::empty());
}
