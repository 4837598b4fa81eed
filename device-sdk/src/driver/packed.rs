//! The driver's side of a packed ring (virtio 1.2, section 2.8).
//!
//! Slots are counted on through two laps: the first has wrap counter 1, the second 0, and then it is the
//! first again. What the device writes is checked before it is believed.

use std::sync::atomic::{Ordering, fence};

use super::descriptor::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Segment, Used};
use super::layout::{DESCRIPTOR_SIZE, RingLayout};
use super::memory::Window;
use super::ring::{IndirectTables, RingError};

/// Descriptor flags: the driver's wrap counter, and the device's (section 2.8.1).
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// The wrap counter of a position, in events and bases.
const WRAP: u16 = 1 << 15;
/// Event suppression flags (section 2.8.14).
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESC: u16 = 2;

/// What the driver remembers of an outstanding chain, by its id.
#[derive(Clone, Copy, Debug, Default)]
struct Outstanding {
    token: u64,
    /// Slots it takes; 0 means not outstanding.
    slots: u16,
}

/// The driver's half of a packed ring.
#[derive(Debug)]
pub struct PackedRing {
    memory: Window,
    layout: RingLayout,
    event_idx: bool,
    indirect: Option<IndirectTables>,
    chains: Box<[Outstanding]>,
    /// Ids of no outstanding chain, and how many slots are free.
    ids: Vec<u16>,
    free: u16,
    /// The next slot to fill, the next to read, and the next to fill when a kick was last decided on.
    available: u32,
    used: u32,
    decided: u32,
    /// The flags that will show the device what was added since the last [`publish`](Self::publish), and
    /// where they go.
    unpublished: Option<(usize, u16)>,
}

impl PackedRing {
    /// Lays out an empty ring of `layout.size` entries in `memory`, of which `base` slots have been passed.
    pub fn new(
        memory: Window,
        layout: RingLayout,
        event_idx: bool,
        indirect: Option<IndirectTables>,
        base: u16,
    ) -> Self {
        memory.part(0, layout.len).fill(0);
        let size = layout.size;
        let base = u32::from(base) % (2 * u32::from(size));
        let ring = Self {
            memory,
            layout,
            event_idx,
            indirect,
            chains: vec![Outstanding::default(); usize::from(size)].into(),
            ids: (0..size).rev().collect(),
            free: size,
            available: base,
            used: base,
            decided: base,
            unpublished: None,
        };
        // As if all had been used: before `base` in this lap, behind it in the last one.
        for slot in 0..u32::from(size) {
            let lap = if slot < base % u32::from(size) {
                base
            } else {
                base + u32::from(size)
            };
            let flags = if ring.wraps(lap) { AVAIL | USED } else { 0 };
            ring.store(
                slot as usize * DESCRIPTOR_SIZE + 14,
                flags,
                Ordering::Relaxed,
            );
        }
        ring
    }

    /// The ring's memory, for tests that write it by hand.
    pub fn memory(&self) -> &Window {
        &self.memory
    }

    /// Where the parts of the ring are.
    pub fn layout(&self) -> &RingLayout {
        &self.layout
    }

    /// How many chains the device has.
    pub fn outstanding(&self) -> u16 {
        self.layout.size - self.ids.len() as u16
    }

    /// What `SET_VRING_BASE` says when `base` slots have been passed on both sides.
    pub fn wire_base(&self, base: u16) -> u32 {
        let position = u32::from(self.position(u32::from(base) % self.laps()));
        position | position << 16
    }

    /// The slots in two laps.
    fn laps(&self) -> u32 {
        2 * u32::from(self.layout.size)
    }

    fn after(&self, slot: u32, by: u16) -> u32 {
        (slot + u32::from(by)) % self.laps()
    }

    /// The wrap counter in a slot's lap.
    fn wraps(&self, slot: u32) -> bool {
        slot % self.laps() < u32::from(self.layout.size)
    }

    /// The slot within the ring.
    fn index(&self, slot: u32) -> u16 {
        (slot % u32::from(self.layout.size)) as u16
    }

    fn position(&self, slot: u32) -> u16 {
        self.index(slot) | if self.wraps(slot) { WRAP } else { 0 }
    }

    /// The offset of a slot's descriptor.
    fn at(&self, slot: u32) -> usize {
        usize::from(self.index(slot)) * DESCRIPTOR_SIZE
    }

    fn store(&self, offset: usize, value: u16, order: Ordering) {
        self.memory.store_u16(offset, value, order);
    }

    /// Adds a chain; the device sees it after [`publish`](Self::publish). `token` comes back with it.
    #[inline]
    pub fn add(&mut self, chain: &[Segment], token: u64) -> Result<(), RingError> {
        if chain.is_empty() {
            return Err(RingError::Empty);
        }
        let tables = self.indirect.as_ref();
        let table = tables.filter(|t| (2..=usize::from(t.entries)).contains(&chain.len()));
        let slots = if table.is_some() { 1 } else { chain.len() };
        let (true, Some(&id)) = (slots <= usize::from(self.free), self.ids.last()) else {
            return Err(RingError::Full {
                needed: slots,
                free: usize::from(self.free),
            });
        };
        if let Some(table) = table {
            let start = usize::from(id) * usize::from(table.entries) * DESCRIPTOR_SIZE;
            for (n, segment) in chain.iter().enumerate() {
                let at = start + n * DESCRIPTOR_SIZE;
                // Chained by being behind each other: of the flags only this one counts.
                put(&table.window, at, segment, 0);
                let flags = if segment.writable { DESC_WRITE } else { 0 };
                table.window.store_u16(at + 14, flags, Ordering::Relaxed);
            }
            let whole = Segment::readable(
                table.window.addr() + start as u64,
                (chain.len() * DESCRIPTOR_SIZE) as u32,
            );
            self.fill(&whole, id, DESC_INDIRECT);
        } else {
            for (n, segment) in chain.iter().enumerate() {
                let write = if segment.writable { DESC_WRITE } else { 0 };
                let next = if n + 1 < chain.len() { DESC_NEXT } else { 0 };
                self.fill(segment, id, write | next);
            }
        }
        self.ids.pop();
        self.free -= slots as u16;
        self.chains[usize::from(id)] = Outstanding {
            token,
            slots: slots as u16,
        };
        Ok(())
    }

    /// Fills the next slot. Of all that is added at once the first slot's flags come last.
    #[inline]
    fn fill(&mut self, segment: &Segment, id: u16, flags: u16) {
        let at = self.at(self.available);
        let wrap = if self.wraps(self.available) {
            AVAIL
        } else {
            USED
        };
        let flags = flags | wrap;
        put(&self.memory, at, segment, id);
        if self.unpublished.is_none() {
            self.unpublished = Some((at + 14, flags));
        } else {
            self.store(at + 14, flags, Ordering::Relaxed);
        }
        self.available = self.after(self.available, 1);
    }

    /// Shows the device every chain added so far.
    #[inline]
    pub fn publish(&mut self) {
        if let Some((at, flags)) = self.unpublished.take() {
            self.store(at, flags, Ordering::Release);
        }
    }

    /// Whether the device asked to be kicked for what was published since the last call.
    #[inline]
    pub fn needs_kick(&mut self) -> bool {
        // The device re-reads the ring after it arms; we read its wish after we store.
        fence(Ordering::SeqCst);
        let old = std::mem::replace(&mut self.decided, self.available);
        if old == self.available {
            return false;
        }
        let flags = self
            .memory
            .load_u16(self.layout.used + 2, Ordering::Acquire);
        match flags & 3 {
            DISABLE => false,
            DESC if self.event_idx => {
                let event = self.memory.load_u16(self.layout.used, Ordering::Relaxed);
                let other = if event & WRAP == 0 {
                    self.layout.size
                } else {
                    0
                };
                let event = u32::from(event & !WRAP) + u32::from(other);
                let ahead = |slot: u32| (slot + self.laps() - old) % self.laps();
                ahead(event) < ahead(self.available)
            }
            _ => true,
        }
    }

    /// Whether the next chain has been used.
    #[inline]
    fn is_used(&self) -> bool {
        let flags = self
            .memory
            .load_u16(self.at(self.used) + 14, Ordering::Acquire);
        let wrap = self.wraps(self.used);
        (flags & AVAIL != 0) == wrap && (flags & USED != 0) == wrap
    }

    /// Takes back one completed chain, in the order the device completed them.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Used>, RingError> {
        // With nothing outstanding the slot still says what it said a lap ago.
        if self.outstanding() == 0 || !self.is_used() {
            return Ok(None);
        }
        let at = self.at(self.used);
        let id = self.memory.load_u16(at + 12, Ordering::Relaxed);
        let written = self.memory.load_u32(at + 8, Ordering::Relaxed);
        let Some(chain) = self.chains.get_mut(usize::from(id)).filter(|c| c.slots > 0) else {
            return Err(RingError::NotOutstanding(id.into()));
        };
        let Outstanding { token, slots } = std::mem::take(chain);
        self.ids.push(id);
        self.free += slots;
        self.used = self.after(self.used, slots);
        Ok(Some(Used { token, written }))
    }

    /// Asks to be notified of the next completion. True if one is already there: then poll again
    /// instead of sleeping.
    #[inline]
    pub fn arm(&mut self) -> bool {
        let flags = if self.event_idx {
            self.store(
                self.layout.available,
                self.position(self.used),
                Ordering::Relaxed,
            );
            DESC
        } else {
            ENABLE
        };
        self.store(self.layout.available + 2, flags, Ordering::Release);
        fence(Ordering::SeqCst);
        self.outstanding() > 0 && self.is_used()
    }

    /// Asks not to be notified, until the next [`arm`](Self::arm).
    #[inline]
    pub fn disarm(&mut self) {
        self.store(self.layout.available + 2, DISABLE, Ordering::Relaxed);
    }
}

/// Stores all of a descriptor but its flags.
#[inline]
fn put(table: &Window, at: usize, segment: &Segment, id: u16) {
    table.store_u64(at, segment.addr, Ordering::Relaxed);
    table.store_u32(at + 8, segment.len, Ordering::Relaxed);
    table.store_u16(at + 12, id, Ordering::Relaxed);
}
