//! The tables under every name of every frame, after each op: what has changed.

use super::Stop;
use super::host_memory::HostMemory;
use super::machine::{Machine, odd};
use super::setup::PHYSICAL_BITS;
use gpa_model::limits::{ALIASES, FRAMES};
use gpa_model::{FrameSet, Gpa, Host, Level, Rights, Spte};
use kvm_ko::wire::{Answer, Record};
use kvm_ko_worker::kernel::{Entry, Kernel, Root};

/// What was seen last.
pub(super) struct Sight {
    now: Box<[[Option<Spte>; FRAMES]; ALIASES]>,
    present: [FrameSet; ALIASES],
}

/// Bits of an entry that belong to no physical address there is, and to nothing else.
const RESERVED: u64 = (1 << 52) - (1 << PHYSICAL_BITS);

impl Default for Sight {
    fn default() -> Self {
        Self { now: Box::new([[None; FRAMES]; ALIASES]), present: [FrameSet::EMPTY; ALIASES] }
    }
}

impl Sight {
    /// A program begins: nothing is mapped yet.
    pub(super) fn begin(&mut self) {
        self.present = [FrameSet::EMPTY; ALIASES];
    }

    /// Look again, and add what has changed to `answer`; whether any translation was lost or became another.
    pub(super) fn look(
        &mut self,
        kernel: &Kernel,
        machine: &Machine,
        memory: &mut HostMemory,
        host: &Host,
        answer: &mut Answer<'_>,
    ) -> Result<bool, Stop> {
        let vm = &machine.vm;
        let roots = kernel.roots(machine.fd).map_err(odd("look at roots"))?;
        let roots = roots.into_iter().filter(|root| !root.obsolete && root.address_space == 0);
        let roots: Vec<Root> = roots.collect();
        let mut lost = false;
        for alias in 0..vm.stolen().alias_count() {
            let mut entries = [const { None::<Entry> }; FRAMES];
            for root in &roots {
                let (first, stride) = (vm.gpa(0, alias).raw(), Gpa::from_page(vm.stride()).raw());
                kernel.window(root, first, FRAMES as u64, stride, &mut |frame, entry| {
                    // An MMIO entry is one that the processor refuses.
                    if entry.raw & RESERVED == 0 {
                        entries[frame as usize] = Some(entry);
                    }
                });
            }
            for (frame, entry) in entries.into_iter().enumerate() {
                let one = FrameSet::one(frame);
                let spte = entry.and_then(|entry| {
                    let name = memory.name(kernel, host, entry.pfn);
                    Some(Spte::new(name, Rights::from_bits(entry.rights))?.at_level(level(entry.level)))
                });
                let before = self.now[alias][frame].filter(|_| self.present[alias].contains(frame));
                if spte == before {
                    continue;
                }
                lost |= before.is_some();
                self.now[alias][frame] = spte;
                let present = self.present[alias];
                self.present[alias] = if spte.is_some() { present.union(one) } else { present.minus(one) };
                answer.add(&Record::Spte { alias, frame, spte });
            }
        }
        Ok(lost)
    }
}

fn level(number: u8) -> Level {
    Level::ALL.get(usize::from(number).saturating_sub(1)).copied().unwrap_or_default()
}
