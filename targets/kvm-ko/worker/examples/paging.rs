//! A guest with page tables of its own, walked by the processor under nested tables, or shadowed by KVM.

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ko_worker::kernel::{Access, Kernel, Kind, Mode, Options, Vendor, hva};
use std::path::PathBuf;

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("a prepared folder"));
    let shadow = std::env::args().nth(2).is_some_and(|arg| arg == "shadow");
    let options = Options {
        vendor: Vendor::Amd,
        tdp: !shadow,
        tdp_mmu: !shadow,
        physical_bits: 48,
        flush_backend: false,
        parameters: Vec::new(),
    };
    let kernel = Kernel::load(&folder, &options).unwrap_or_else(|error| panic!("{error}"));
    let vm = kernel.create_vm(0).unwrap();
    let vcpu = kernel.create_vcpu(vm, 0).unwrap();
    kernel.start_vcpu(vcpu, Mode::Flat).unwrap();
    let mut region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: 64 << 12,
        userspace_addr: hva(0),
    };
    kernel.ioctl_with(vm, 0x4020_ae46, &mut region).unwrap();
    let access = |address: u64, kind, value, linear| Access { address, linear, kind, value, size: 4 };
    println!("flat: {:x?}", kernel.enter(vcpu, access(0x5000, Kind::Write, 0x42, false)));
    println!("flat: {:x?}", kernel.enter(vcpu, access(0x5000, Kind::Read, 0, false)));
    println!(
        "flat mmio: {:x?} {:x?}",
        kernel.enter(vcpu, access(0x500000, Kind::Read, 0, false)),
        kernel.finish_mmio(vcpu, 7)
    );
    let write = |page: u64, index: u64, value: u64| kernel.write(kernel.pfn(page).unwrap(), index * 8, value);
    // Four levels: 10 -> 11 -> 12 -> 13, whose entries 0 to 3 are pages 5, 6 (read-only), none, MMIO.
    write(10, 0, 0xb067);
    write(11, 0, 0xc067);
    write(12, 0, 0xd067);
    write(13, 0, 0x5067);
    write(13, 1, 0x6065);
    write(13, 3, 0x50_0067);
    for (name, mode) in [("long", Mode::Long(0xa000)), ("pae", Mode::Pae(0xe000)), ("legacy", Mode::Legacy(0xf000))] {
        // PAE: page 14 has four pointers, to page 12. 32 bit: page 15 leads to page 16.
        write(14, 0, 0xc001);
        write(15, 0, 0x1_0067);
        write(16, 0, 0x6065_0000_5067);
        write(16, 1, 0x50_0067_0000_0000);
        println!("{name}: {:?}", kernel.set_mode(vcpu, mode, true));
        for (gva, kind) in
            [(0, Kind::Read), (0, Kind::Write), (0x1000, Kind::Read), (0x1000, Kind::Write), (0x2000, Kind::Read)]
        {
            println!("  {gva:x} {kind:?}: {:x?}", kernel.enter(vcpu, access(gva, kind, 0x43, true)));
        }
        println!("  3000 Read: {:x?}", kernel.enter(vcpu, access(0x3000, Kind::Read, 0, true)));
        println!("  mmio done: {:x?}", kernel.finish_mmio(vcpu, 9));
        println!(
            "  cr3: {:x?}",
            kernel.enter(
                vcpu,
                access(
                    0,
                    Kind::LoadRoot,
                    if let Mode::Long(r) | Mode::Pae(r) | Mode::Legacy(r) = mode { r } else { 0 },
                    true
                )
            )
        );
        println!("  invlpg: {:x?}", kernel.enter(vcpu, access(0x1000, Kind::InvalidatePage, 0, true)));
        println!("  0 Read: {:x?}", kernel.enter(vcpu, access(0, Kind::Read, 0, true)));
    }
    for page in kernel.pages(vm).unwrap() {
        println!("{page:x?}");
    }
    println!("{:x?}", kernel.rmap(vm, 0));
    println!("{:#?}", kernel.take_events());
    kernel.close(vcpu).unwrap();
    kernel.close(vm).unwrap();
    println!("{:?} {:?}", kernel.reset(), kernel.take_events());
}
