//! VMs: how many stolen bits and where, how far apart the frames lie, how writes are logged.

use super::generator::Generator;
use crate::addr::{Gfn, Level, StolenMask};
use crate::explore::choices::Choices;
use crate::limits::{MAXPHYADDR_MAX, MAXPHYADDR_MIN, VCPUS};
use crate::program::{Aliasing, BackendMode, GuestPaging, Levels, Logging, OpKind, VmConfig};

impl Generator {
    pub(super) fn vm(&self, choices: &mut impl Choices) -> VmConfig {
        let plain = self.frames(choices);
        let high = self.profile.stolen_high;
        let low = self.profile.stolen_low.max(StolenMask::lowest_bit(plain.largest_leaf()));
        let wanted = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3][choices.below(16) as usize]
            .min(self.profile.stolen_bits_max as usize);
        let levels = match high.checked_sub(Levels::Four.highest_bit()) {
            Some(1..) if choices.chance(1, 8) => Levels::Five,
            _ => Levels::Four,
        };
        let high = high.min(levels.highest_bit());
        let mut bits = [0u8; 3];
        let mut len = 0;
        while len < wanted {
            let bit = match choices.below(4) {
                0 => low + choices.below(u32::from(high - low) + 1) as u8,
                1 => low.max(30),
                2 => high.min(39 + choices.below(8) as u8).max(low),
                _ => high - choices.below(8).min(u32::from(high - low)) as u8,
            };
            if bits[..len].contains(&bit) {
                // Take the next free one instead of drawing until it differs, so that bytes can never loop.
                let Some(free) = (low..=high).find(|bit| !bits[..len].contains(bit)) else { break };
                bits[len] = free;
            } else {
                bits[len] = bit;
            }
            len += 1;
        }
        let mode = match choices.below(8) {
            0 => BackendMode::Absent,
            1 => BackendMode::FailsFirst,
            2 => BackendMode::FailsSecond,
            3 => BackendMode::FailsAll,
            _ => BackendMode::Works,
        };
        let rings = self.profile.dirty_rings && choices.chance(1, 8);
        let pml = self.profile.pml && choices.chance(if plain.stride() > 1 || rings { 2 } else { 1 }, 4);
        let logging = if pml { Logging::Pml } else { Logging::WriteProtect };
        let drawn = 1 + choices.below(VCPUS as u32) as u8;
        let vcpus = self.profile.vcpus.unwrap_or(drawn);
        let stolen = StolenMask::new(&bits[..len]).unwrap_or(StolenMask::NONE);
        // The lowest legal bits leave room only below gfn 0x200, so they need a lower window.
        let lower = || plain.with_frames(Gfn::new(0x1c0), 1).and_then(|vm| vm.with_stolen(stolen));
        let vm = plain.with_stolen(stolen).or_else(|_| lower()).and_then(|vm| vm.with_vcpus(vcpus));
        let vm = vm.and_then(|vm| vm.with_levels(levels)?.with_maxphyaddr(self.maxphyaddr(choices)));
        let nx = plain.stride() > 1 && self.profile.allows(OpKind::NxRecover) && choices.chance(1, 2);
        let vm = vm.unwrap_or_default().with_backend(mode).with_logging(logging).with_nx_huge_pages(nx);
        let slot_zap_all = self.profile.slot_zap_all > 0 && choices.chance(1, self.profile.slot_zap_all);
        let vm = vm.with_slot_zap_all(slot_zap_all).with_paging(self.paging(choices));
        let ringed = if rings { vm.with_dirty_ring(choices.pick(&[4, 4, 8, 16])) } else { Ok(vm) };
        let async_pf = self.profile.allows(OpKind::PageOut) && choices.chance(1, 8);
        let vm = ringed.unwrap_or(vm).with_async_pf(async_pf);
        let shared = self.profile.shared_private > 0 && choices.chance(1, self.profile.shared_private);
        if shared { vm.with_aliasing(Aliasing::SharedPrivate).unwrap_or(vm) } else { vm }
    }

    /// A way to translate that the target's guests can have; most often the default.
    fn paging(&self, choices: &mut impl Choices) -> GuestPaging {
        let any = self.profile.allows(OpKind::GuestWalk) && choices.chance(1, 2);
        if any { choices.pick(&GuestPaging::ALL) } else { GuestPaging::default() }
    }

    /// A VM without stolen bits, whose frames lie far apart if there is a legal place for stolen bits then.
    fn frames(&self, choices: &mut impl Choices) -> VmConfig {
        let plain = VmConfig::default().with_stolen(StolenMask::NONE).unwrap_or_default();
        if self.profile.stride_max == 1 || !choices.chance(1, 3) {
            return plain;
        }
        let stride = [VmConfig::STRIDE_2M, VmConfig::STRIDE_2M, VmConfig::STRIDE_1G, VmConfig::STRIDE_MIXED]
            [choices.below(4) as usize];
        let stride = stride.min(self.profile.stride_max);
        // From an edge between large leaves, or a frame before one.
        let before = if choices.chance(1, 4) { stride } else { 0 };
        let vm = plain.with_frames(Gfn::new(Level::Page1G.pages() - before), stride).unwrap_or(plain);
        if StolenMask::lowest_bit(vm.largest_leaf()) <= self.profile.stolen_high { vm } else { plain }
    }

    /// Only the walk of a guest's own tables looks at it, for reserved bits.
    fn maxphyaddr(&self, choices: &mut impl Choices) -> u8 {
        if self.profile.allows(OpKind::GuestWalk) && choices.chance(1, 2) {
            MAXPHYADDR_MIN + choices.below(u32::from(MAXPHYADDR_MAX - MAXPHYADDR_MIN)) as u8
        } else {
            MAXPHYADDR_MAX
        }
    }
}
