//! Which states of the model an exploration went on from: different programs lead to the same.

use crate::host::Host;
use crate::reference::Model;
use std::collections::BTreeSet;
use std::hash::Hasher;

/// The states that were seen, each as a hash of 64 bits: among millions hardly ever are two taken for one.
#[derive(Debug, Default)]
pub(super) struct States(BTreeSet<u64>);

impl States {
    /// Count this one.
    pub(super) fn note(&mut self, model: &Model, host: &Host) {
        let mut hasher = Fnv1a::default();
        model.hash_state(&mut hasher);
        host.hash_state(&mut hasher);
        self.0.insert(hasher.finish());
    }

    /// How many different ones there were.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// FNV-1a: the same on every machine.
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv1a {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
