//! Default PCI slots: by kind, and by order within the kind, so that adding a disk never renames
//! the card.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The kinds that have a range of slots of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Console,
    Net,
    Disk,
    /// Behind all disks, so that it does not rename them.
    Cdrom,
    Other,
}

impl Kind {
    fn range(self) -> RangeInclusive<u8> {
        match self {
            Self::Console => 1..=1,
            Self::Net => 2..=7,
            Self::Disk => 8..=23,
            Self::Cdrom => 23..=23,
            Self::Other => 24..=27,
        }
    }
}

/// The slots of PCI bus 0; slot 0 is the host bridge's.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<u8, String>);

impl Slots {
    /// Takes the slot that `addr=` names. Call for every such device before [`Self::any`].
    pub(super) fn fixed(&mut self, id: &str, slot: u8) -> Result<(), String> {
        if !(1..=31).contains(&slot) {
            return Err(format!(
                "device '{id}': addr={slot} is no PCI slot; choose 1 to 31"
            ));
        }
        if let Some(other) = self.0.get(&slot) {
            return Err(format!(
                "device '{id}': addr={slot} is taken by '{other}'; choose another slot"
            ));
        }
        self.0.insert(slot, id.to_owned());
        Ok(())
    }

    /// Takes the first free slot of the kind's range, then the highest free one.
    pub(super) fn any(&mut self, id: &str, kind: Kind) -> Result<u8, String> {
        let slot = kind
            .range()
            .chain((1..=31).rev())
            .find(|slot| !self.0.contains_key(slot))
            .ok_or_else(|| format!("device '{id}': all 31 PCI slots are taken; remove a device"))?;
        self.0.insert(slot, id.to_owned());
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_fills_its_own_range_first() {
        let mut slots = Slots::default();
        assert_eq!(slots.any("disk0", Kind::Disk), Ok(8));
        assert_eq!(slots.any("net0", Kind::Net), Ok(2));
        assert_eq!(slots.any("disk1", Kind::Disk), Ok(9));
        assert_eq!(slots.any("net1", Kind::Net), Ok(3));
    }

    #[test]
    fn taken_and_impossible_slots_are_refused_by_name() {
        let mut slots = Slots::default();
        slots.fixed("disk0", 5).unwrap();
        assert!(slots.fixed("net0", 5).unwrap_err().contains("disk0"));
        assert!(slots.fixed("net0", 0).is_err());
        assert!(slots.fixed("net0", 32).is_err());
    }

    #[test]
    fn a_full_bus_says_so() {
        let mut slots = Slots::default();
        for n in 0..31 {
            slots.any(&format!("disk{n}"), Kind::Disk).unwrap();
        }
        assert!(
            slots
                .any("disk31", Kind::Disk)
                .unwrap_err()
                .contains("31 PCI slots")
        );
    }
}
