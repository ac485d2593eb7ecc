//! Evidence from KVM's counters that guest accesses went through its MMU, and not through its instruction emulator.
//!
//! Some hypervisors emulate guest code instead of running it. Then every answer is right and proves nothing, because the
//! MMU under test translated nothing. The counters tell the two apart.

use crate::kvm::stats::Stats;
use std::fmt;

/// The names of the counters that are read, as the kernel spells them.
pub const COUNTERS: [&str; 11] = [
    "insn_emulation",
    "pf_taken",
    "pf_fixed",
    "pages_4k",
    "pages_2m",
    "mmu_shadow_zapped",
    "tlb_flush",
    "remote_tlb_flush",
    "mmio_exits",
    "pf_mmio_spte_created",
    "pf_spurious",
];
const INSN_EMULATION: usize = 0;
const PF_FIXED: usize = 2;
const PAGES_4K: usize = 3;

/// KVM's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Witness {
    /// Guest accesses so far, counted by this runner.
    pub accesses: u64,
    /// Exits so far, counted by this runner. KVM emulates one instruction for each.
    pub exits: u64,
    /// The value of each of [`COUNTERS`], in that order; `None` if the kernel lacks it.
    pub counters: [Option<u64>; COUNTERS.len()],
}

impl Witness {
    /// Sums each counter over the files of the VM and its vCPUs that have it.
    pub(crate) fn read(accesses: u64, exits: u64, files: &[&Stats]) -> Self {
        let sum = |name| files.iter().filter_map(|stats| stats.read(name)).reduce(u64::wrapping_add);
        Self { accesses, exits, counters: COUNTERS.map(sum) }
    }

    /// The counter `name`, one of [`COUNTERS`].
    pub fn get(&self, name: &str) -> Option<u64> {
        self.counters[COUNTERS.iter().position(|known| *known == name)?]
    }

    pub(crate) fn has_counters(&self) -> bool {
        self.counters.iter().any(Option::is_some)
    }

    /// Whether the counters prove that the accesses since `before` ran natively: beyond those that exited, KVM
    /// emulated far fewer instructions than there were accesses, and its MMU mapped pages. A missing counter
    /// proves nothing.
    pub fn is_native_since(&self, before: &Witness) -> bool {
        let accesses = self.accesses.saturating_sub(before.accesses);
        let exits = self.exits.saturating_sub(before.exits);
        let emulated = self.since(before, INSN_EMULATION).map(|emulated| emulated.saturating_sub(exits));
        let mapped = self.since(before, PF_FIXED).is_some_and(|fixed| fixed > 0)
            || self.counters[PAGES_4K].is_some_and(|pages| pages > 0);
        accesses > 0 && mapped && emulated.is_some_and(|emulated| emulated.saturating_mul(4) < accesses)
    }

    fn since(&self, before: &Witness, counter: usize) -> Option<u64> {
        Some(self.counters[counter]?.saturating_sub(before.counters[counter]?))
    }

    /// The words of a fingerprint: each counter with its growth since `before`.
    pub(crate) fn words_since(&self, before: &Witness) -> Vec<String> {
        let text = self.show_since(before).to_string();
        text.split(", ").map(|pair| pair.replace(' ', "=")).collect()
    }

    /// The counters with their growth since `before`.
    pub fn show_since(&self, before: &Witness) -> impl fmt::Display {
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let mut out =
            format!("accesses {}, exits {}", since(self.accesses, before.accesses), since(self.exits, before.exits));
        for (counter, name) in COUNTERS.iter().enumerate() {
            // The number of mapped pages is a level, not a count of events.
            let shown = if name.starts_with("pages_") { self.counters[counter] } else { self.since(before, counter) };
            let shown = shown.map_or_else(|| "unknown".into(), |value| value.to_string());
            out.push_str(&format!(", {name} {shown}"));
        }
        out
    }
}
