//! The walk of the guest's own tables: what the paging modes make of the same tables, and how entries look in memory.

use gpa_model::limits::GPTES;
use gpa_model::{
    Access, BackendMode, Exit, Fault, Gfn, Gpa, Gpte, GpteFlags, GuestPaging, Gva, Host, HostPage, HostPageRange,
    Model, Op, Pfn, SlotChange, SlotFlags, SlotId, StolenMask, VmConfig,
};

const PLAIN: GpteFlags = GpteFlags::PLAIN;
const PAGES: u32 = 8;
const MAXPHYADDR: u8 = 46;

/// A VM with one memslot, whose frames are its guest's tables.
struct Guest {
    vm: VmConfig,
    model: Model,
    host: Host,
}

impl Guest {
    fn new(bits: &[u8], paging: GuestPaging) -> Self {
        let stolen = StolenMask::new(bits).expect("legal bits");
        let vm =
            VmConfig::new(stolen, 1, Gfn::new(0x1f0), BackendMode::Works).and_then(|vm| vm.with_maxphyaddr(MAXPHYADDR));
        let vm = vm.expect("a legal VM").with_paging(paging);
        let mut guest = Self { vm, model: Model::new(&vm), host: Host::default() };
        let (gfn, hva) = (vm.gfn(0), HostPage::new(0));
        let change = SlotChange::Create { gfn, pages: PAGES, hva, flags: SlotFlags::default() };
        guest.step(Op::Slot { id: SlotId::user(0), change }, Exit::Done);
        guest
    }

    fn step(&mut self, op: Op, exit: Exit) {
        assert!(self.model.accepts(&self.host, &op), "{op:?}");
        self.host.apply(&op);
        self.host.settle(&op, &exit);
        let allowed = self.model.step(&self.host, &op, &exit);
        assert!(allowed.admits(&exit), "{op:?} {exit:?}: {allowed:?}");
    }

    fn pfn(&self, frame: usize) -> Pfn {
        self.host.pfn(HostPage::new(frame as u64))
    }

    fn write(&mut self, table: usize, index: u8, gpa: Gpa, flags: GpteFlags) {
        let (at, exit) = (self.vm.gpa(table, 0), Exit::Memory(self.pfn(table)));
        self.step(Op::WriteGpte { vcpu: 0, gpa: at, index, gpte: Gpte::new(gpa, flags) }, exit);
    }

    fn walk(&self, root: Gpa, indices: &[u8], access: Access) -> Result<Gpa, Fault> {
        self.model.guest_walk(&self.host, root, Gva::new(indices), access).end
    }

    /// A chain of tables from frame 0, each with entry 1 for the next under alias `alias`; where the leaf leads, or why not.
    fn chain(bits: &[u8], paging: GuestPaging, alias: usize) -> (Self, Result<Gpa, Fault>) {
        let mut guest = Self::new(bits, paging);
        let levels = usize::from(paging.levels());
        for table in 0..levels {
            guest.write(table, 1, guest.vm.gpa(table + 1, alias), PLAIN);
        }
        let end = guest.walk(guest.vm.gpa(0, alias), &[1; 5][..levels], Access::Write);
        (guest, end)
    }
}

#[test]
fn modes_that_know_of_stolen_bits_strip_every_entry_and_the_others_none() {
    for paging in GuestPaging::ALL {
        for bits in [&[40][..], &[30], &[MAXPHYADDR]] {
            let (guest, base) = Guest::chain(bits, paging, 0);
            let leaf = usize::from(paging.levels());
            assert_eq!(base, Ok(guest.vm.gpa(leaf, 0)), "{paging:?}");
            let (_, aliased) = Guest::chain(bits, paging, 1);
            let fits = paging != GuestPaging::Legacy || bits[0] < 32;
            // An aliased root is no memory, so the walk ends before it can find that a bit is reserved.
            let right = if paging.strips_stolen_bits() || !fits { base } else { Err(Fault::NotPresent) };
            assert_eq!(aliased, right, "{paging:?} {bits:?}");
        }
    }
}

#[test]
fn a_stolen_bit_above_the_address_width_is_reserved_only_where_it_is_not_stripped() {
    for paging in GuestPaging::ALL {
        let (mut guest, _) = Guest::chain(&[MAXPHYADDR], paging, 0);
        let table = usize::from(paging.levels()) - 1;
        guest.write(table, 1, guest.vm.gpa(7, 1), PLAIN);
        let end = guest.walk(guest.vm.gpa(0, 0), &[1; 5][..usize::from(paging.levels())], Access::Read);
        let room = paging != GuestPaging::Legacy;
        let right = if paging.strips_stolen_bits() || !room { Ok(guest.vm.gpa(7, 0)) } else { Err(Fault::Reserved) };
        assert_eq!(end, right, "{paging:?}");
    }
}

#[test]
fn a_right_that_any_level_withholds_is_withheld() {
    let withheld =
        [(GpteFlags::WRITABLE, Access::Write), (GpteFlags::USER, Access::Read), (GpteFlags::NX, Access::Execute)];
    for table in 0..4 {
        for (flag, access) in withheld {
            let (mut guest, _) = Guest::chain(&[40], GuestPaging::FourLevel, 0);
            let flags = if PLAIN.contains(flag) { PLAIN.minus(flag) } else { PLAIN.union(flag) };
            guest.write(table, 1, guest.vm.gpa(table + 1, 0), flags);
            let end = |access| guest.walk(guest.vm.gpa(0, 0), &[1; 4], access);
            assert_eq!(end(access), Err(Fault::Protection), "{flag:?} at table {table}");
            assert_eq!(end(Access::Read).is_ok(), flag != GpteFlags::USER);
        }
    }
}

#[test]
fn what_is_not_present_is_nothing_else() {
    let (mut guest, _) = Guest::chain(&[40], GuestPaging::FourLevel, 0);
    let garbage = GpteFlags::BIT51.union(GpteFlags::LARGE).union(GpteFlags::NX);
    guest.write(0, 1, guest.vm.gpa(1, 1), garbage);
    assert_eq!(guest.walk(guest.vm.gpa(0, 0), &[1; 4], Access::Read), Err(Fault::NotPresent));
    guest.write(0, 1, guest.vm.gpa(1, 1), garbage.union(PLAIN));
    assert_eq!(guest.walk(guest.vm.gpa(0, 0), &[1; 4], Access::Read), Err(Fault::Reserved));
}

#[test]
fn large_pages_are_where_the_mode_has_them_and_aligned() {
    let large = PLAIN.union(GpteFlags::LARGE);
    for paging in GuestPaging::ALL {
        for level in 2..=paging.levels() {
            // The frames from gfn 0x200 on begin a page of 2 MiB and are inside of one of 4 MiB or 1 GiB.
            for (frame, aligned) in [(15, true), (16, paging != GuestPaging::Legacy && level == 2)] {
                let (mut guest, _) = Guest::chain(&[40], paging, 0);
                guest.write(usize::from(paging.levels() - level), 1, guest.vm.gpa(frame, 0), large);
                let indices = [1; 5];
                let end = guest.walk(guest.vm.gpa(0, 0), &indices[..usize::from(paging.levels())], Access::Write);
                // An entry holds the start of the page, so 4 MiB are always aligned.
                let aligned = aligned || paging == GuestPaging::Legacy;
                let right = paging.has_large(level) && aligned;
                let block = guest.vm.gpa(frame, 0).align_down(paging.pages(2));
                let offset = (1..level).map(|below| paging.pages(below)).sum();
                assert_eq!(
                    end,
                    if right { Ok(block.add_pages(offset)) } else { Err(Fault::Reserved) },
                    "{paging:?} {level}"
                );
            }
        }
    }
}

#[test]
fn tables_go_with_their_page() {
    let (mut guest, end) = Guest::chain(&[40], GuestPaging::Pae, 1);
    assert!(end.is_ok());
    let range = HostPageRange { start: HostPage::new(1), pages: 1 };
    let walk = |guest: &Guest| guest.model.guest_walk(&guest.host, guest.vm.gpa(0, 0), Gva::new(&[1, 1]), Access::Read);
    guest.step(Op::UnmapBegin { window: 0, range }, Exit::Done);
    assert!(walk(&guest).in_flux);
    assert_eq!(walk(&guest).end, end);
    guest.step(Op::UnmapEnd { window: 0 }, Exit::Done);
    assert!(!walk(&guest).in_flux);
    assert_eq!(walk(&guest).end, Err(Fault::NotPresent));
}

#[test]
fn a_write_that_reached_no_page_is_in_no_table() {
    let mut guest = Guest::new(&[40], GuestPaging::Pae);
    let gpte = Gpte::new(guest.vm.gpa(1, 0), PLAIN);
    let op = Op::WriteGpte { vcpu: 0, gpa: guest.vm.gpa(0, 1), index: 2, gpte };
    for exit in [Exit::Retry, Exit::Mmio(guest.vm.gpa(0, 1)), Exit::Done] {
        guest.host.settle(&op, &exit);
        assert_eq!(guest.host.gpte(HostPage::new(0), 2), Gpte::default());
    }
    guest.host.settle(&op, &Exit::Emulated(guest.pfn(0)));
    assert_eq!(guest.host.gpte(HostPage::new(0), 2), gpte);
    guest.host.reset(&guest.vm);
    assert_eq!(guest.host.gpte(HostPage::new(0), 2), Gpte::default());
}

/// By the manuals: SDM vol. 3A, tables 4-6, 4-18 and 4-20; vol. 3C, tables 29-6 and 29-7.
#[test]
fn entries_look_in_memory_as_the_manuals_say() {
    let gpa = Gpa::new(1 << 36 | 0x40_1000);
    let of = |paging, flags| Gpte::new(gpa, flags).raw(paging);
    let large = PLAIN.union(GpteFlags::LARGE);
    assert_eq!(of(GuestPaging::FourLevel, PLAIN), 0x10_0040_1067);
    assert_eq!(of(GuestPaging::NestedNpt, large.union(GpteFlags::NX)), 0x8000_0010_0040_00e7);
    assert_eq!(of(GuestPaging::Pae, GpteFlags::BIT51.union(GpteFlags::PRESENT)), 0x0008_0010_0040_1061);
    assert_eq!(of(GuestPaging::Legacy, PLAIN.union(GpteFlags::NX)), 0x40_1067);
    assert_eq!(of(GuestPaging::Legacy, large), 0x40_0000 | 0x10 << 13 | 0xe7);
    assert_eq!(of(GuestPaging::NestedEpt, PLAIN), 0x10_0040_1007);
    assert_eq!(of(GuestPaging::NestedEpt, GpteFlags::PRESENT.union(GpteFlags::NX)), 0x10_0040_1001);
    assert_eq!(of(GuestPaging::NestedEpt, GpteFlags::WRITABLE), 0x10_0040_1000);
    assert_eq!(Gpte::default().raw(GuestPaging::FourLevel), 0);
}

#[test]
fn a_gva_is_its_indices() {
    let gva = Gva::new(&[3, 0, 2, 1]);
    assert_eq!(gva.indices(4).collect::<Vec<u8>>(), [3, 0, 2, 1]);
    assert_eq!([gva.index(1), gva.index(2), gva.index(4), gva.index(5)], [1, 2, 3, 0]);
    assert_eq!(gva.of_levels(2), Gva::new(&[2, 1]));
    assert_eq!(gva.offset(GuestPaging::FourLevel, 3), 2 * 512 + 1);
    assert_eq!(gva.offset(GuestPaging::Legacy, 2), 1);
    assert_eq!(Gva::new(&[GPTES as u8 + 1]), Gva::new(&[1]));
}
