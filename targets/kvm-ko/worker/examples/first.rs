//! Loads a kernel from a prepared folder and makes a few accesses.

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ko_worker::kernel::{Access, Fd, Kernel, Kind, Mode, Options, Phase, Vendor, hva};
use std::path::PathBuf;
use std::time::Instant;

fn slot(kernel: &Kernel, vm: Fd, id: u32, gfn: u64, pages: u64, host: u64, flags: u32) {
    let mut region = kvm_userspace_memory_region {
        slot: id,
        flags,
        guest_phys_addr: gfn << 12,
        memory_size: pages << 12,
        userspace_addr: hva(host),
    };
    println!("slot {id}: {:?}", kernel.ioctl_with(vm, 0x4020_ae46, &mut region));
}

fn access(gpa: u64, kind: Kind, value: u64) -> Access {
    Access { address: gpa, linear: false, kind, value, size: 4 }
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
    let begin = Instant::now();
    let kernel = Kernel::load(&folder, &options).unwrap_or_else(|error| panic!("{error}"));
    println!("loaded in {:?}", begin.elapsed());
    let vm = kernel.create_vm(0).unwrap();
    let vcpu = kernel.create_vcpu(vm, 0).unwrap();
    kernel.start_vcpu(vcpu, Mode::Flat).unwrap();
    slot(&kernel, vm, 0, 0x1e0, 16, 0, 0);
    let first = kernel.enter(vcpu, access(0x1e0_120, Kind::Write, 0x42));
    println!("{first:x?}");
    if first == kvm_ko_worker::kernel::Entered::Dead {
        panic!("{:#?}", kernel.take_events());
    }
    println!("{:x?}", kernel.enter(vcpu, access(0x1e0_123 & !3, Kind::Read, 0)));
    println!("{:x?}", kernel.enter(vcpu, access(0x200_0000, Kind::Read, 0)));
    println!("{:x?}", kernel.finish_mmio(vcpu, 0x77));
    println!("{:x?}", kernel.enter(vcpu, access(0x200_0000, Kind::Write, 0x99)));
    println!("{:x?}", kernel.finish_mmio(vcpu, 0));
    for root in kernel.roots(vm).unwrap() {
        println!("{root:x?} {:x?}", kernel.leaves(&root));
    }
    println!("{:x?}", kernel.tlb(vcpu));
    println!("{:?}", kernel.take_events());
    kernel.invalidate(Phase::Start, 0, 1).unwrap();
    kernel.take_away(0, 1);
    kernel.invalidate(Phase::End, 0, 1).unwrap();
    println!("{:?} pending {:?}", kernel.take_events(), kernel.flush_pending(vcpu));
    println!("{:x?}", kernel.enter(vcpu, access(0x1e0_120, Kind::Read, 0)));
    slot(&kernel, vm, 0, 0x1e0, 16, 0, 1);
    println!("{:?}", kernel.take_events());
    println!("{:x?}", kernel.enter(vcpu, access(0x1e0_120, Kind::Write, 1)));
    println!("{:x?}", kernel.slot(vm, 0).unwrap().and_then(|slot| kernel.dirty_bitmap(&slot)));
    let begin = Instant::now();
    for index in 0..1_000_000_u64 {
        kernel.enter(vcpu, access(0x1e0_000 + (index & 15) * 4096, Kind::Write, index));
    }
    println!("access: {:?}", begin.elapsed() / 1_000_000);
    slot(&kernel, vm, 0, 0x1e0, 0, 0, 0);
    kernel.close(vcpu).unwrap();
    kernel.close(vm).unwrap();
    kernel.reset().unwrap();
    println!("{:?}", kernel.take_events());
    let begin = Instant::now();
    for _ in 0..1000 {
        let vm = kernel.create_vm(0).unwrap();
        let vcpu = kernel.create_vcpu(vm, 0).unwrap();
        kernel.start_vcpu(vcpu, Mode::Flat).unwrap();
        kernel.close(vcpu).unwrap();
        kernel.close(vm).unwrap();
        kernel.reset().unwrap();
    }
    println!("vm: {:?} {:?}", begin.elapsed() / 1000, kernel.take_events());
}
