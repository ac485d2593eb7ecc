//! Holds threads of the kernel at chosen points while other things happen.

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ko_worker::kernel::{Access, Begun, Fd, Kernel, Kind, Mode, Options, Phase, Point, Vendor, hva};
use std::path::PathBuf;

fn region(id: u32, gfn: u64, pages: u64, host: u64, flags: u32) -> kvm_userspace_memory_region {
    kvm_userspace_memory_region {
        slot: id,
        flags,
        guest_phys_addr: gfn << 12,
        memory_size: pages << 12,
        userspace_addr: hva(host),
    }
}

fn slot(kernel: &Kernel, vm: Fd, mut region: kvm_userspace_memory_region) -> i64 {
    kernel.ioctl_with(vm, 0x4020_ae46, &mut region).map_or(-1, |value| value as i64)
}

fn access(gfn: u64, kind: Kind, value: u64) -> Access {
    Access { address: gfn << 12, linear: false, kind, value, size: 4 }
}

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("a prepared folder"));
    let options = Options {
        vendor: Vendor::Amd,
        tdp: true,
        tdp_mmu: std::env::args().nth(2).is_none_or(|arg| arg != "rmap"),
        physical_bits: 48,
        flush_backend: false,
        parameters: Vec::new(),
    };
    let kernel: &'static Kernel = Box::leak(Box::new(Kernel::load(&folder, &options).unwrap()));
    let vm = kernel.create_vm(0).unwrap();
    let vcpu = kernel.create_vcpu(vm, 0).unwrap();
    let other = kernel.create_vcpu(vm, 1).unwrap();
    kernel.start_vcpu(vcpu, Mode::Flat).unwrap();
    kernel.start_vcpu(other, Mode::Flat).unwrap();
    slot(kernel, vm, region(0, 0x1e0, 16, 0, 0));
    slot(kernel, vm, region(1, 0x200, 16, 16, 0));
    let fault =
        |gfn, points: &[Point]| kernel.begin(points, move |kernel| kernel.enter(vcpu, access(gfn, Kind::Write, 1)));
    println!("A. {:?}", fault(0x1e0, &[]));
    for (page, point) in [(1, Point::PageLookup), (2, Point::Fault), (3, Point::Guest)] {
        let gfn = 0x1e0 + page;
        let Begun::Held(thread, at) = fault(gfn, &[point]) else { panic!("held") };
        println!("B. held at {at:?}; other: {:?}", kernel.enter(other, access(gfn, Kind::Write, 5)));
        kernel.invalidate(Phase::Start, page, 1).unwrap();
        kernel.take_away(page, 1);
        kernel.invalidate(Phase::End, page, 1).unwrap();
        println!("   {:?}", kernel.resume::<kvm_ko_worker::kernel::Entered>(thread, &[]));
    }
    let Begun::Held(thread, at) = fault(0x201, &[Point::PageLookup]) else { panic!("held") };
    println!("C. held at {at:?}; delete the slot");
    let delete = kernel.begin(&[Point::Srcu], move |kernel| slot(kernel, vm, region(1, 0x200, 0, 16, 0)));
    println!("   {delete:?}");
    let Begun::Held(deletion, _) = delete else { panic!("held") };
    println!("   {:?}", kernel.resume::<i64>(deletion, &[]));
    println!("   other: {:?}", kernel.enter(other, access(0x202, Kind::Read, 0)));
    println!("   {:?}", kernel.resume::<kvm_ko_worker::kernel::Entered>(thread, &[]));
    println!("   {:?}", kernel.resume::<i64>(deletion, &[]));
    println!("   after: {:?}", kernel.enter(other, access(0x1e3, Kind::Read, 0)));
    let Begun::Held(thread, at) = fault(0x1e5, &[Point::PageLookup]) else { panic!("held") };
    println!("D. held at {at:?}; delete the slot at once: {}", slot(kernel, vm, region(0, 0x1e0, 0, 0, 0)));
    println!("   {:?}", kernel.resume::<kvm_ko_worker::kernel::Entered>(thread, &[]));
    slot(kernel, vm, region(0, 0x1e0, 16, 0, 0));
    kernel.invalidate(Phase::Start, 1, 1).unwrap();
    let change = kernel.begin(&[], move |kernel| slot(kernel, vm, region(0, 0x1e0, 0, 0, 0)));
    println!("E. {change:?}");
    kernel.invalidate(Phase::End, 1, 1).unwrap();
    if let Begun::Held(thread, _) = change {
        println!("   {:?}", kernel.resume::<i64>(thread, &[]));
    }
    println!("{:?}", kernel.take_events());
    kernel.close(vcpu).unwrap();
    kernel.close(other).unwrap();
    kernel.close(vm).unwrap();
    println!("{:?} {:?}", kernel.reset(), kernel.take_events());
}
