//! Which device owns an address: one map for ports, one for MMIO.
//!
//! The map is read at every exit and changed only when a device comes, goes or moves a BAR. A
//! device is called with no lock of the bus held, so it may change the bus from within a call.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use outboard_device::register::RegisterDevice;

/// Something that answers reads and writes of a range of addresses.
///
/// Called on the vCPU thread that made the access, which waits meanwhile: implementations do not
/// block. `data` is 1, 2, 4 or 8 bytes, little endian, and does not pass the end of the range.
/// The guest chooses offset, length and value: any combination must be harmless.
pub trait BusDevice: Send + Sync {
    /// Fills `data`, which holds all ones on entry, with what the guest reads at `offset` from the
    /// start of the range.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes what the guest wrote at `offset` from the start of the range.
    fn write(&self, offset: u64, data: &[u8]);
}

impl<T: RegisterDevice> BusDevice for Mutex<T> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(offset, data);
    }
}

/// Why a range cannot be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Another device answers part of it.
    #[error("{len:#x} bytes at {base:#x} overlap a device at {other:#x}; move one of them")]
    Overlap {
        /// Start of the refused range.
        base: u64,
        /// Its length in bytes.
        len: u64,
        /// Start of the range that is already there.
        other: u64,
    },
    /// Empty, or past the end of the address space.
    #[error("{len:#x} bytes at {base:#x} are no range of addresses; give a length that fits")]
    NoRange {
        /// Start of the refused range.
        base: u64,
        /// Its length in bytes.
        len: u64,
    },
}

/// A map from addresses to devices. Any thread may use it.
#[derive(Default)]
pub struct Bus {
    ranges: RwLock<BTreeMap<u64, Range>>,
}

#[derive(Clone)]
struct Range {
    /// The last address, inclusive.
    last: u64,
    device: Arc<dyn BusDevice>,
}

impl Bus {
    /// A bus with no devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `len` addresses from `base` to `device`.
    pub fn insert(&self, base: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        let last = len
            .checked_sub(1)
            .and_then(|rest| base.checked_add(rest))
            .ok_or(BusError::NoRange { base, len })?;
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((&other, range)) = ranges.range(..=last).next_back()
            && range.last >= base
        {
            return Err(BusError::Overlap { base, len, other });
        }
        ranges.insert(base, Range { last, device });
        Ok(())
    }

    /// Takes the range that begins at `base` off the bus, and returns its device. A call on it that
    /// has begun may still be running.
    pub fn remove(&self, base: u64) -> Option<Arc<dyn BusDevice>> {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        ranges.remove(&base).map(|range| range.device)
    }

    /// Reads `data.len()` bytes at `address`. Where nobody answers, `data` is all ones and the
    /// result is `false`.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        match self.find(address, data.len()) {
            Some((offset, device)) => {
                device.read(offset, data);
                true
            }
            None => false,
        }
    }

    /// Writes `data` at `address`. Where nobody answers it is dropped and the result is `false`.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        match self.find(address, data.len()) {
            Some((offset, device)) => {
                device.write(offset, data);
                true
            }
            None => false,
        }
    }

    /// The device that owns all of the access, and the offset in its range.
    fn find(&self, address: u64, len: usize) -> Option<(u64, Arc<dyn BusDevice>)> {
        if !matches!(len, 1 | 2 | 4 | 8) {
            return None;
        }
        let last = address.checked_add((len as u64).checked_sub(1)?)?;
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (base, range) = ranges.range(..=address).next_back()?;
        let offset = address.checked_sub(*base)?;
        (last <= range.last).then(|| (offset, range.device.clone()))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let ends = ranges
            .iter()
            .map(|(base, range)| format!("{base:#x}..={:#x}", range.last));
        f.debug_list().entries(ends).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers writes; reads give the offset.
    #[derive(Default)]
    struct Probe(Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Probe {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }

        fn write(&self, offset: u64, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    fn bus_with(base: u64, len: u64) -> (Bus, Arc<Probe>) {
        let (bus, probe) = (Bus::new(), Arc::new(Probe::default()));
        bus.insert(base, len, probe.clone()).unwrap();
        (bus, probe)
    }

    #[test]
    fn an_access_reaches_its_owner_with_the_offset() {
        let (bus, probe) = bus_with(0x100, 0x10);
        let mut data = [0; 2];
        assert!(bus.read(0x104, &mut data));
        assert_eq!(data, [4, 4]);
        assert!(bus.write(0x10f, &[7]));
        assert_eq!(*probe.0.lock().unwrap(), [(15, vec![7])]);
    }

    #[test]
    fn unclaimed_crossing_and_odd_accesses_read_all_ones() {
        let (bus, probe) = bus_with(0x100, 0x10);
        for (address, len) in [
            (0xfe, 4),
            (0x10e, 4),
            (0x110, 1),
            (0x50, 8),
            (0x100, 3),
            (u64::MAX, 8),
        ] {
            let mut data = vec![0; len];
            assert!(!bus.read(address, &mut data), "{address:#x}+{len}");
            assert!(data.iter().all(|&byte| byte == 0xff));
            assert!(!bus.write(address, &data));
        }
        assert!(!bus.write(0x100, &[]));
        assert!(probe.0.lock().unwrap().is_empty());
    }

    #[test]
    fn overlaps_are_refused_and_neighbours_are_not() {
        let (bus, probe) = bus_with(0x100, 0x10);
        for (base, len) in [
            (0x100, 0x10),
            (0xff, 2),
            (0x10f, 1),
            (0, 0x1000),
            (0x104, 4),
        ] {
            let refused = bus.insert(base, len, probe.clone()).unwrap_err();
            assert_eq!(
                refused,
                BusError::Overlap {
                    base,
                    len,
                    other: 0x100
                }
            );
        }
        bus.insert(0x110, 1, probe.clone()).unwrap();
        bus.insert(0xf0, 0x10, probe.clone()).unwrap();
        let no_range = BusError::NoRange {
            base: u64::MAX,
            len: 2,
        };
        assert_eq!(bus.insert(u64::MAX, 2, probe.clone()), Err(no_range));
        assert_eq!(
            bus.insert(5, 0, probe),
            Err(BusError::NoRange { base: 5, len: 0 })
        );
    }

    #[test]
    fn a_removed_range_is_free_again() {
        let (bus, probe) = bus_with(0x100, 0x10);
        assert!(bus.remove(0x101).is_none());
        assert!(bus.remove(0x100).is_some());
        assert!(!bus.read(0x100, &mut [0]));
        bus.insert(0x108, 8, probe).unwrap();
    }
}
