//! What the guest's processors say they are: CPUID.
//!
//! [`tables`] is a pure function from what KVM supports to what each vCPU gets. Nothing of the
//! host reaches the guest but by KVM's own list of what it can virtualize; what describes the
//! host's shape (APIC ids, cores, shared caches) is replaced by the VM's.

mod error;
mod features;
mod mask;
mod names;
mod topology;
mod xsave;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

pub use error::CpuidError;

use crate::config::FeatureToggle;
use features::{Register, Word};

/// One leaf of a table.
pub type Entry = kvm_cpuid_entry2;

/// What AMD's processors say in EBX, EDX, ECX of leaf 0.
const AUTHENTIC_AMD: [u32; 3] = [0x6874_7541, 0x6974_6e65, 0x444d_4163];
/// Hygon's, which are AMD's by another name.
const HYGON_GENUINE: [u32; 3] = [0x6f67_7948, 0x656e_6975, 0x6e65_476e];

/// KVM's own leaves: the signature "KVMKVMKVM\0\0\0" and its features.
const KVM_SIGNATURE: u32 = 0x4000_0000;
const KVM_FEATURES: u32 = 0x4000_0001;

/// The tables of `count` vCPUs whose APIC ids are 0, 1, 2...
///
/// `supported` is what `KVM_GET_SUPPORTED_CPUID` gives; `tsc_deadline` is whether KVM has
/// `KVM_CAP_TSC_DEADLINE_TIMER`, which older kernels leave out of that list. `toggles` apply in
/// order.
///
/// # Errors
/// A toggle names a feature that nobody knows, or demands one that this host has not.
pub fn tables(
    supported: &[Entry],
    count: u32,
    toggles: &[FeatureToggle],
    tsc_deadline: bool,
) -> Result<Vec<Vec<Entry>>, CpuidError> {
    let mut table = Table(supported.to_vec());
    table.say_virtual(tsc_deadline);
    mask::apply(&mut table, toggles)?;
    xsave::agree_with_features(&mut table);
    Ok((0..count)
        .map(|id| topology::describe(&table, id, count).0)
        .collect())
}

/// A table being made.
#[derive(Debug, Clone)]
struct Table(Vec<Entry>);

impl Table {
    fn get(&self, leaf: u32, index: u32) -> Option<&Entry> {
        self.0
            .iter()
            .find(|entry| entry.function == leaf && entry.index == index)
    }

    fn get_mut(&mut self, leaf: u32, index: u32) -> Option<&mut Entry> {
        self.0
            .iter_mut()
            .find(|entry| entry.function == leaf && entry.index == index)
    }

    fn all_mut(&mut self, leaf: u32) -> impl Iterator<Item = &mut Entry> {
        self.0
            .iter_mut()
            .filter(move |entry| entry.function == leaf)
    }

    fn remove(&mut self, leaf: u32) {
        self.0.retain(|entry| entry.function != leaf);
    }

    /// Adds a leaf that depends on its index.
    fn push(&mut self, leaf: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) {
        let flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        self.0.push(Entry {
            function: leaf,
            index,
            flags,
            eax,
            ebx,
            ecx,
            edx,
            ..Entry::default()
        });
    }

    /// The highest basic leaf.
    fn max_leaf(&self) -> u32 {
        self.get(0, 0).map_or(0, |leaf| leaf.eax)
    }

    fn is_amd(&self) -> bool {
        let vendor = self.get(0, 0).map(|leaf| [leaf.ebx, leaf.edx, leaf.ecx]);
        matches!(vendor, Some(AUTHENTIC_AMD | HYGON_GENUINE))
    }

    fn word(&self, word: Word) -> u32 {
        self.get(word.leaf, word.index)
            .map_or(0, |entry| *register(&mut entry.clone(), word.register))
    }

    fn has(&self, (word, bit): (Word, u32)) -> bool {
        self.word(word) & 1 << bit != 0
    }

    fn clear(&mut self, (word, bit): (Word, u32)) {
        if let Some(entry) = self.get_mut(word.leaf, word.index) {
            *register(entry, word.register) &= !(1 << bit);
        }
    }

    /// Sets what a virtual processor says, and clears what KVM fills in by itself while the guest
    /// runs or what needs more than CPUID to work.
    fn say_virtual(&mut self, tsc_deadline: bool) {
        if let Some(leaf) = self.get_mut(1, 0) {
            leaf.ecx |= features::HYPERVISOR;
            leaf.ecx |= if tsc_deadline {
                features::TSC_DEADLINE
            } else {
                0
            };
            leaf.ecx &= !features::OSXSAVE;
        }
        if let Some(leaf) = self.get_mut(7, 0) {
            leaf.ecx &= !features::OSPKE;
            // Without a part of the host's enclave memory, SGX is a promise we cannot keep.
            leaf.ebx &= !features::SGX;
            leaf.ecx &= !features::SGX_LC;
        }
        self.remove(0x12);
        if self.get(KVM_SIGNATURE, 0).is_none() {
            let [ebx, ecx, edx] = [0x4b4d_564b, 0x564b_4d56, 0x4d];
            let signature = Entry {
                function: KVM_SIGNATURE,
                eax: KVM_FEATURES,
                ebx,
                ecx,
                edx,
                ..Entry::default()
            };
            self.0.push(signature);
        }
    }
}

fn register(entry: &mut Entry, register: Register) -> &mut u32 {
    match register {
        Register::Eax => &mut entry.eax,
        Register::Ebx => &mut entry.ebx,
        Register::Ecx => &mut entry.ecx,
        Register::Edx => &mut entry.edx,
    }
}

#[cfg(test)]
mod tests;
