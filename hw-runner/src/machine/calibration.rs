//! Programs that calibrate a machine: whether it runs natively, and which bits it strips.

use gpa_model::limits::{FRAMES, OPS};
use gpa_model::{Access, BackendMode, HostPage, Op, Program, SlotChange, SlotFlags, SlotId, StolenMask, VmConfig};

/// Reads and writes of every frame, as many as fit, through both names if there is a bit to steal.
pub(super) fn accesses(stolen: Option<u8>) -> Program {
    let vm = stealing(stolen);
    let mut ops = vec![whole_window(&vm)];
    let names = vm.stolen().alias_count();
    ops.extend((1..OPS).map(|n| {
        let access = if n % 2 == 0 { Access::Read } else { Access::Write };
        Op::Access { vcpu: 0, gpa: vm.gpa(n / 2 % FRAMES, n / 2 / FRAMES % names), access }
    }));
    Program { vm, ops, comment: Vec::new() }
}

/// Reads one frame through the alias of `bit`.
pub(super) fn one_alias(bit: u8) -> Program {
    let vm = stealing(Some(bit));
    let ops = vec![whole_window(&vm), Op::Access { vcpu: 0, gpa: vm.gpa(0, 1), access: Access::Read }];
    Program { vm, ops, comment: Vec::new() }
}

fn stealing(bit: Option<u8>) -> VmConfig {
    let stolen = StolenMask::new(bit.as_slice()).unwrap_or(StolenMask::NONE);
    VmConfig::new(stolen, 1, VmConfig::DEFAULT_BASE, BackendMode::Works).unwrap_or_default()
}

fn whole_window(vm: &VmConfig) -> Op {
    let flags = SlotFlags::default();
    let change = SlotChange::Create { gfn: vm.base(), pages: FRAMES as u32, hva: HostPage::new(0), flags };
    Op::Slot { id: SlotId::user(0), change }
}
