//! Why a vCPU left the guest and came to the VMM, counted. What KVM settles by itself is in its own
//! statistics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// What KVM handed to the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    PortRead,
    PortWrite,
    MemoryRead,
    MemoryWrite,
    Msr,
    /// A signal: the vCPU is wanted elsewhere.
    Interrupted,
    Other,
}

/// The names, each with its counter's place.
const NAMES: [(&str, Exit); 7] = [
    ("port-read", Exit::PortRead),
    ("port-write", Exit::PortWrite),
    ("memory-read", Exit::MemoryRead),
    ("memory-write", Exit::MemoryWrite),
    ("msr", Exit::Msr),
    ("interrupted", Exit::Interrupted),
    ("other", Exit::Other),
];

/// The counters of one vCPU. Its thread alone counts, so it costs no locked instruction.
#[derive(Debug, Default)]
pub(super) struct Exits([AtomicU64; NAMES.len()]);

impl Exits {
    /// One more. Called on the vCPU's thread.
    pub(super) fn count(&self, exit: Exit) {
        if let Some(counter) = self.0.get(exit as usize) {
            let counted = counter.load(Ordering::Relaxed);
            counter.store(counted.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// All of them by name; any thread may ask.
    pub(super) fn read(&self) -> BTreeMap<String, u64> {
        let counters = NAMES.iter().zip(&self.0);
        counters
            .map(|((name, _), counter)| ((*name).to_owned(), counter.load(Ordering::Relaxed)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        let exits = Exits::default();
        for (place, (name, exit)) in NAMES.iter().enumerate() {
            assert_eq!(place, *exit as usize, "{name}");
            for _ in 0..=place {
                exits.count(*exit);
            }
        }
        let counted = exits.read();
        for (place, (name, _)) in NAMES.iter().enumerate() {
            assert_eq!(counted[*name], place as u64 + 1, "{name}");
        }
    }
}
