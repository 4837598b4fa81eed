//! Bus 0: its slots, and where their BARs are mapped.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use vm_allocator::{AddressAllocator, AllocPolicy, RangeInclusive};

use super::bar::{BarKind, BarSpec};
use super::config_space::moves_bars;
use super::function::PciFunction;
use super::host_bridge::HostBridge;
use super::lock;
use crate::arch::x86_64::layout::PCI_SLOTS;
use crate::bus::{Bus, BusDevice};

/// Bytes of one function's configuration space, the extended part included.
const CONFIG_SIZE: usize = 4096;

/// Why a function cannot be plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// The bus ends before this slot.
    #[error("there is no PCI slot {0}; choose one from 1 to 31")]
    NoSlot(u8),
    /// Another function is there.
    #[error("PCI slot {0} is taken; choose another")]
    SlotTaken(u8),
    /// The window below 4 GiB is full.
    #[error("no room for {size:#x} bytes of device registers below 4 GiB; use fewer devices")]
    NoSpace {
        /// Size of the BAR that found no place.
        size: u64,
    },
    /// The window given for BARs is empty.
    #[error("the window for device registers below 4 GiB is empty")]
    NoWindow,
}

/// The windows of guest-physical addresses where BARs may lie.
#[derive(Debug, Clone)]
pub struct BarWindows {
    /// Below 4 GiB; the VMM places BARs here.
    pub low: Range<u64>,
    /// Above RAM, for 64-bit BARs that the guest moves there; may be empty.
    pub high: Range<u64>,
}

impl BarWindows {
    fn admit(&self, kind: BarKind, address: u64, size: u64) -> bool {
        let within = |window: &Range<u64>| {
            address >= window.start
                && address
                    .checked_add(size)
                    .is_some_and(|end| end <= window.end)
        };
        within(&self.low) || (kind == BarKind::Memory64 && within(&self.high))
    }
}

/// One BAR of one function.
type BarKey = (u8, usize);

struct Placement {
    /// What the VMM gave out as initial addresses.
    allocator: AddressAllocator,
    given: BTreeMap<u8, Vec<RangeInclusive>>,
    /// Where each BAR is on the MMIO bus now.
    mapped: BTreeMap<BarKey, u64>,
}

/// A PCI root with one bus of 32 slots, each with one function, and the host bridge in slot 0.
///
/// Any thread may use it. Locks are taken in the order placement, then slots, then a function's own;
/// config and BAR accesses hold none of the root's.
pub struct PciRoot {
    mmio: Arc<Bus>,
    windows: BarWindows,
    slots: RwLock<BTreeMap<u8, Arc<dyn PciFunction>>>,
    placement: Mutex<Placement>,
}

impl PciRoot {
    /// A bus with nothing but its host bridge, whose BARs go to `mmio`.
    pub fn new(mmio: Arc<Bus>, windows: BarWindows) -> Result<Arc<Self>, PciError> {
        let size = windows.low.end.saturating_sub(windows.low.start);
        let allocator =
            AddressAllocator::new(windows.low.start, size).map_err(|_| PciError::NoWindow)?;
        let bridge: Arc<dyn PciFunction> = Arc::new(HostBridge::new());
        let placement = Placement {
            allocator,
            given: BTreeMap::new(),
            mapped: BTreeMap::new(),
        };
        Ok(Arc::new(Self {
            mmio,
            windows,
            slots: RwLock::new(BTreeMap::from([(0, bridge)])),
            placement: Mutex::new(placement),
        }))
    }

    /// Plugs a function into a slot and gives its BARs their initial addresses.
    pub fn add(&self, slot: u8, function: Arc<dyn PciFunction>) -> Result<(), PciError> {
        if slot >= PCI_SLOTS {
            return Err(PciError::NoSlot(slot));
        }
        let mut placement = lock(&self.placement);
        if self.function(slot).is_some() {
            return Err(PciError::SlotTaken(slot));
        }
        let mut given = Vec::new();
        for spec in function.bars() {
            let range = placement
                .allocator
                .allocate(spec.size, spec.size, AllocPolicy::FirstMatch);
            let Ok(range) = range else {
                release(&mut placement.allocator, given);
                return Err(PciError::NoSpace { size: spec.size });
            };
            function.assign_bar(spec.index, range.start());
            given.push(range);
        }
        placement.given.insert(slot, given);
        self.slots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(slot, function);
        self.place(&mut placement);
        Ok(())
    }

    /// Unplugs the function of a slot. The caller resets it; accesses that have begun may still be running.
    pub fn remove(&self, slot: u8) -> Option<Arc<dyn PciFunction>> {
        let mut placement = lock(&self.placement);
        let function = self
            .slots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&slot)?;
        for spec in function.bars() {
            self.unmap(&mut placement, (slot, spec.index), &*function);
        }
        let given = placement.given.remove(&slot).unwrap_or_default();
        release(&mut placement.allocator, given);
        self.place(&mut placement);
        Some(function)
    }

    /// The VM resets: every function as after power-on, with its initial BARs. What takes time is
    /// posted; the VM must not use its memory anew before [`is_reset`](Self::is_reset).
    pub fn reset(&self) {
        for (_, function) in self.functions() {
            function.reset();
        }
        self.place(&mut lock(&self.placement));
    }

    /// Whether the last [`reset`](Self::reset) has ended in every function.
    pub fn is_reset(&self) -> bool {
        self.functions()
            .iter()
            .all(|(_, function)| function.is_reset())
    }

    /// Where BARs are now: slot, number, addresses.
    pub fn mapped(&self) -> Vec<(u8, usize, Range<u64>)> {
        let placement = lock(&self.placement);
        let mapped = placement.mapped.iter().filter_map(|((slot, bar), start)| {
            let specs = self.function(*slot)?.bars();
            let size = specs.iter().find(|spec| spec.index == *bar)?.size;
            Some((*slot, *bar, *start..start.saturating_add(size)))
        });
        mapped.collect()
    }

    /// Reads the config space of a slot of bus 0; all ones where there is no function.
    pub(super) fn config_read(&self, slot: u8, offset: u16, data: &mut [u8]) {
        match self.function(slot) {
            Some(function) if fits(offset, data.len()) => function.config_read(offset, data),
            _ => data.fill(0xff),
        }
    }

    /// Writes the config space of a slot of bus 0; dropped where there is no function.
    pub(super) fn config_write(&self, slot: u8, offset: u16, data: &[u8]) {
        let Some(function) = self.function(slot).filter(|_| fits(offset, data.len())) else {
            return;
        };
        function.config_write(offset, data);
        if moves_bars(offset, data.len()) {
            self.place(&mut lock(&self.placement));
        }
    }

    fn function(&self, slot: u8) -> Option<Arc<dyn PciFunction>> {
        self.slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&slot)
            .cloned()
    }

    fn functions(&self) -> Vec<(u8, Arc<dyn PciFunction>)> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots
            .iter()
            .map(|(slot, function)| (*slot, function.clone()))
            .collect()
    }

    /// Brings the MMIO bus in line with what the guest wrote. A BAR outside the windows, or on top
    /// of another, is nowhere until the guest moves it or the other one.
    fn place(&self, placement: &mut Placement) {
        let bars: Vec<_> = self
            .functions()
            .into_iter()
            .flat_map(|(slot, function)| {
                let specs = function.bars();
                specs
                    .into_iter()
                    .map(move |spec| (slot, function.clone(), spec))
            })
            .map(|(slot, function, spec)| {
                let wanted = self.wanted(&*function, &spec);
                (slot, function, spec, wanted)
            })
            .collect();
        for (slot, function, spec, wanted) in &bars {
            let key = (*slot, spec.index);
            if placement
                .mapped
                .get(&key)
                .is_some_and(|address| Some(*address) != *wanted)
            {
                self.unmap(placement, key, &**function);
            }
        }
        for (slot, function, spec, wanted) in bars {
            let key = (slot, spec.index);
            let Some(address) = wanted.filter(|_| !placement.mapped.contains_key(&key)) else {
                continue;
            };
            let behind = Arc::new(BarAccess {
                function: function.clone(),
                bar: spec.index,
            });
            if self.mmio.insert(address, spec.size, behind).is_ok() {
                placement.mapped.insert(key, address);
                function.bar_mapped(spec.index, Some(address));
            }
        }
    }

    fn wanted(&self, function: &dyn PciFunction, spec: &BarSpec) -> Option<u64> {
        let address = function.decoded_bar(spec.index)?;
        self.windows
            .admit(spec.kind, address, spec.size)
            .then_some(address)
    }

    fn unmap(&self, placement: &mut Placement, key: BarKey, function: &dyn PciFunction) {
        if let Some(address) = placement.mapped.remove(&key) {
            function.bar_mapped(key.1, None);
            self.mmio.remove(address);
        }
    }
}

fn fits(offset: u16, len: usize) -> bool {
    usize::from(offset)
        .checked_add(len)
        .is_some_and(|end| end <= CONFIG_SIZE)
}

fn release(allocator: &mut AddressAllocator, ranges: Vec<RangeInclusive>) {
    for range in ranges {
        // It was given out by this allocator and is given back once.
        let _ = allocator.free(&range);
    }
}

/// What the MMIO bus calls for one BAR.
struct BarAccess {
    function: Arc<dyn PciFunction>,
    bar: usize,
}

impl BusDevice for BarAccess {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.function.bar_read(self.bar, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.function.bar_write(self.bar, offset, data);
    }
}
