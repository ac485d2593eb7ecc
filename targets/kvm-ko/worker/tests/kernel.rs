//! What a kernel does here, on the stock modules of one: each case has a process of its own, as a kernel is loaded once a process.
//!
//! The folder that a worker takes is named by `KVM_KO_PREPARED`. Without it nothing can be tested, and that is said.

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ko_worker::kernel::{
    Access, AlarmKind, Begun, Entered, Event, Failure, Fd, Kernel, Kind, Mode, Options, Phase, Point, Vendor, hva,
};
use std::path::Path;
use std::process::{Command, ExitCode};

const FOLDER: &str = "KVM_KO_PREPARED";
const SET_MEMORY: u64 = 0x4020_ae46;
const LOG_DIRTY: u32 = 1;

/// An MMU of KVM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mmu {
    Tdp,
    Rmap,
    Shadow,
    Ept,
    EptRmap,
}

impl Mmu {
    const ALL: [Mmu; 5] = [Mmu::Tdp, Mmu::Rmap, Mmu::Shadow, Mmu::Ept, Mmu::EptRmap];
}

type Case = fn(Setting);

/// Each on each MMU.
const CASES: [(&str, Case); 7] = [
    ("accesses_reach_memory_and_mmio", accesses_reach_memory_and_mmio),
    ("a_page_that_was_taken_away_is_gone", a_page_that_was_taken_away_is_gone),
    ("a_write_is_logged", a_write_is_logged),
    ("a_held_fault_notices_what_happens_to_its_page", a_held_fault_notices_what_happens_to_its_page),
    ("a_deletion_waits_for_a_held_fault", a_deletion_waits_for_a_held_fault),
    ("the_guest_walks_tables_of_its_own", the_guest_walks_tables_of_its_own),
    ("what_nothing_answers_is_named", what_nothing_answers_is_named),
];

fn main() -> ExitCode {
    let Some(folder) = std::env::var_os(FOLDER) else {
        println!("SKIPPED: {FOLDER} names no folder that a kernel can be loaded from");
        return ExitCode::SUCCESS;
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [case, mmu] = &*arguments
        && let Some((_, run)) = CASES.iter().find(|(name, _)| name == case)
    {
        let mmu = Mmu::ALL.into_iter().find(|known| format!("{known:?}") == *mmu).expect("an MMU");
        run(Setting::new(Path::new(&folder), mmu));
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, _) in CASES {
        for mmu in Mmu::ALL {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            let status = command.arg(name).arg(format!("{mmu:?}")).status().expect("this program starts");
            println!("{name} {mmu:?} ... {}", if status.success() { "ok" } else { "FAILED" });
            failed += u32::from(!status.success());
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A VM with two vCPUs.
#[derive(Clone, Copy)]
struct Setting {
    kernel: &'static Kernel,
    vm: Fd,
    vcpus: [Fd; 2],
}

impl Setting {
    fn new(folder: &Path, mmu: Mmu) -> Self {
        let options = Options {
            vendor: if matches!(mmu, Mmu::Ept | Mmu::EptRmap) { Vendor::Intel } else { Vendor::Amd },
            tdp: mmu != Mmu::Shadow,
            tdp_mmu: matches!(mmu, Mmu::Tdp | Mmu::Ept),
            physical_bits: 48,
            flush_backend: false,
            parameters: Vec::new(),
        };
        let kernel: &'static Kernel = Box::leak(Box::new(Kernel::load(folder, &options).expect("the modules load")));
        let vm = kernel.create_vm(0).unwrap();
        let vcpus = [0, 1].map(|id| kernel.create_vcpu(vm, id).unwrap());
        for vcpu in vcpus {
            kernel.start_vcpu(vcpu, Mode::Flat).unwrap();
        }
        Self { kernel, vm, vcpus }
    }

    fn slot(self, id: u32, gfn: u64, pages: u64, page: u64, flags: u32) -> bool {
        let mut region = kvm_userspace_memory_region {
            slot: id,
            flags,
            guest_phys_addr: gfn << 12,
            memory_size: pages << 12,
            userspace_addr: hva(page),
        };
        self.kernel.ioctl_with(self.vm, SET_MEMORY, &mut region).is_ok()
    }

    fn enter(self, vcpu: usize, address: u64, kind: Kind, value: u64) -> Entered {
        self.kernel.enter(self.vcpus[vcpu], Access { address, linear: false, kind, value, size: 4 })
    }

    /// The page that a write by vCPU 0 reaches.
    fn write(self, gfn: u64) -> u64 {
        match self.enter(0, gfn << 12, Kind::Write, gfn) {
            Entered::Memory { pfn, .. } => pfn,
            other => panic!("a write to gfn {gfn:#x} reached {other:?}: {:#?}", self.kernel.take_events().last()),
        }
    }

    fn take_away(self, page: u64) {
        self.kernel.invalidate(Phase::Start, page, 1).unwrap();
        self.kernel.take_away(page, 1);
        self.kernel.invalidate(Phase::End, page, 1).unwrap();
    }

    /// A write by vCPU 0 that is held.
    fn hold(self, gfn: u64, point: Point) -> Begun<Entered> {
        self.kernel.begin(&[point], move |_| self.enter(0, gfn << 12, Kind::Write, 1))
    }

    /// No alarm, and nothing is left.
    fn end(self) {
        for file in [self.vcpus[0], self.vcpus[1], self.vm] {
            self.kernel.close(file).unwrap();
        }
        self.kernel.reset().unwrap();
        let alarms: Vec<Event> =
            self.kernel.take_events().into_iter().filter(|event| matches!(event, Event::Alarm(_))).collect();
        assert!(alarms.is_empty(), "{alarms:#?}");
    }
}

fn accesses_reach_memory_and_mmio(on: Setting) {
    assert!(on.slot(0, 0x1e0, 16, 3, 0));
    let pfn = on.write(0x1e1);
    assert_eq!(on.kernel.pfn(4), Some(pfn), "gfn 0x1e1 is the second page of the slot");
    assert_eq!(on.kernel.read(pfn, 0), 0x1e1);
    let again = on.enter(0, 0x1e1 << 12, Kind::Read, 0);
    assert_eq!(again, Entered::Memory { pfn, value: 0x1e1, from_tlb: true, faults: 0 });
    assert_eq!(on.enter(1, 0x300_0004, Kind::Write, 7), Entered::Mmio { gpa: 0x300_0004, write: true, value: 7 });
    assert!(matches!(on.kernel.finish_mmio(on.vcpus[1], 0), Entered::Emulated { faults: 1, .. }));
    assert_eq!(on.enter(1, 0x300_0000, Kind::Read, 0), Entered::Mmio { gpa: 0x300_0000, write: false, value: 0 });
    assert!(matches!(on.kernel.finish_mmio(on.vcpus[1], 0x77), Entered::Emulated { value: 0x77, .. }));
    on.end();
}

fn a_page_that_was_taken_away_is_gone(on: Setting) {
    assert!(on.slot(0, 0x1e0, 16, 0, 0));
    let pfn = on.write(0x1e0);
    on.kernel.take_events();
    on.take_away(0);
    assert!(on.kernel.take_events().contains(&Event::FlushAll), "who maps a page is flushed when it goes");
    assert!(on.kernel.flush_pending(on.vcpus[0]).unwrap());
    let fresh = on.write(0x1e0);
    assert_ne!(fresh, pfn);
    assert_eq!(on.kernel.pfn(0), Some(fresh));
    on.end();
}

fn a_write_is_logged(on: Setting) {
    assert!(on.slot(0, 0x1e0, 16, 0, 0));
    on.write(0x1e2);
    assert!(on.slot(0, 0x1e0, 16, 0, LOG_DIRTY));
    let bitmap = || on.kernel.dirty_bitmap(&on.kernel.slot(on.vm, 0).unwrap().unwrap()).unwrap();
    assert_eq!(bitmap(), [0]);
    on.write(0x1e2);
    assert_eq!(bitmap(), [1 << 2]);
    on.end();
}

fn a_held_fault_notices_what_happens_to_its_page(on: Setting) {
    assert!(on.slot(0, 0x200, 64, 0, 0));
    // Eight frames apart: the older MMU maps those beside one that faults.
    for (page, point) in [(8, Point::PageLookup), (24, Point::Fault), (40, Point::Guest)] {
        let Begun::Held(thread, at) = on.hold(0x200 + page, point) else { panic!("the fault is held at {point:?}") };
        assert_eq!(at, point);
        let before = on.kernel.pfn(page);
        assert!(matches!(on.enter(1, (0x200 + page) << 12, Kind::Write, 5), Entered::Memory { .. }));
        on.take_away(page);
        let Begun::Finished(Entered::Memory { pfn, .. }) = on.kernel.resume(thread, &[]) else { panic!("it goes on") };
        assert_ne!(Some(pfn), before);
        assert_eq!(Some(pfn), on.kernel.pfn(page), "a fault held at {point:?} maps the page that is there now");
    }
    on.end();
}

fn a_deletion_waits_for_a_held_fault(on: Setting) {
    assert!(on.slot(0, 0x200, 16, 0, 0));
    let Begun::Held(fault, _) = on.hold(0x201, Point::PageLookup) else { panic!("the fault is held") };
    let deletion = on.kernel.begin(&[Point::Srcu], move |_| on.slot(0, 0x200, 0, 0, 0));
    let Begun::Held(deletion, Point::Srcu) = deletion else { panic!("it is held: {deletion:?}") };
    assert!(
        matches!(on.kernel.resume::<bool>(deletion, &[]), Begun::Held(_, Point::Blocked)),
        "a fault reads memslots"
    );
    assert!(matches!(on.kernel.resume(fault, &[]), Begun::Finished(Entered::Memory { .. })));
    assert_eq!(on.kernel.resume(deletion, &[]), Begun::Finished(true));
    assert!(matches!(on.enter(1, 0x201 << 12, Kind::Read, 0), Entered::Mmio { .. }), "the slot is gone");
    on.kernel.finish_mmio(on.vcpus[1], 0);
    on.end();
}

fn the_guest_walks_tables_of_its_own(on: Setting) {
    assert!(on.slot(0, 0, 64, 0, 0));
    let write = |page: u64, index: u64, value: u64| on.kernel.write(on.kernel.pfn(page).unwrap(), index * 8, value);
    // Four levels: pages 10, 11, 12, 13; of the last entry 0 is page 5, 1 page 6 without writing, 2 nothing, 3 no memory.
    let four_levels =
        [(10, 0, 0xb067), (11, 0, 0xc067), (12, 0, 0xd067), (13, 0, 0x5067), (13, 1, 0x6065), (13, 3, 0x50_0067)];
    // PAE: page 14 leads to page 12. 32 bit: page 15 to page 16, with the same four entries.
    let others = [(14, 0, 0xc001), (15, 0, 0x1_0067), (16, 0, 0x6065_0000_5067), (16, 1, 0x50_0067 << 32)];
    for (page, index, value) in four_levels.into_iter().chain(others) {
        write(page, index, value);
    }
    let [page_5, page_6] = [5, 6].map(|page| on.kernel.pfn(page).unwrap());
    for mode in [Mode::Long(0xa000), Mode::Pae(0xe000), Mode::Legacy(0xf000)] {
        on.kernel.set_mode(on.vcpus[0], mode, true).unwrap();
        let enter = |address: u64, kind| {
            on.kernel.enter(on.vcpus[0], Access { address, linear: true, kind, value: 1, size: 4 })
        };
        let reaches = |entered: Entered, page: u64| matches!(entered, Entered::Memory { pfn, .. } if pfn == page);
        assert!(reaches(enter(0, Kind::Write), page_5), "{mode:?}");
        assert!(reaches(enter(0x1000, Kind::Read), page_6), "{mode:?}");
        // Present, a write, of a user; not present, of a user.
        assert_eq!(enter(0x1000, Kind::Write), Entered::GuestFault { code: 7 }, "{mode:?}");
        assert_eq!(enter(0x2000, Kind::Read), Entered::GuestFault { code: 4 }, "{mode:?}");
        assert!(matches!(enter(0x3000, Kind::Read), Entered::Mmio { gpa: 0x50_0000, .. }), "{mode:?}");
        on.kernel.finish_mmio(on.vcpus[0], 0);
        assert!(matches!(enter(0x1000, Kind::InvalidatePage), Entered::Emulated { .. }), "{mode:?}");
    }
    on.end();
}

fn what_nothing_answers_is_named(on: Setting) {
    // KVM_GET_XSAVE copies the state of a floating-point unit, and there is none here.
    let mut state = [0_u8; 4096];
    assert_eq!(on.kernel.ioctl_with(on.vcpus[0], 0x9000_aea4, &mut state), Err(Failure::Dead));
    let events = on.kernel.take_events();
    let Some(Event::Alarm(alarm)) = events.last() else { panic!("{events:?}") };
    assert_eq!(alarm.kind, AlarmKind::Unanswered);
    assert!(alarm.text.starts_with("fpu_copy_guest_fpstate_to_uabi was called"), "{}", alarm.text);
    assert!(alarm.place.starts_with("kvm_arch_vcpu_ioctl"), "{}", alarm.place);
    assert_eq!(on.enter(0, 0, Kind::Read, 0), Entered::Dead, "nothing can be asked of it any more");
}
