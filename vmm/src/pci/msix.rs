//! MSI-X: the vector table, the pending bits and the capability (PCI 3.0, section 6.8.2).
//!
//! An interrupt source is an eventfd (the call fd of a queue) mapped to a vector. While the vector is unmasked the
//! hypervisor listens on the eventfd; while it is masked nobody does, and the eventfd itself is the
//! pending bit: a read of the PBA polls it, and unmasking delivers what it holds.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::sync::Arc;

use outboard_device::ratelimit::RateLimit;
use vmm_sys_util::eventfd::EventFd;

use super::pending::is_signalled;
use super::warn;
use super::wiring::Wiring;
use crate::kvm::MsiMessage;

/// Capability id of MSI-X.
pub const CAPABILITY_ID: u8 = 0x11;
/// Message control, in the capability: MSI-X is on.
pub const CONTROL_ENABLE: u16 = 1 << 15;
/// Message control: every vector is masked.
pub const CONTROL_MASK: u16 = 1 << 14;
/// The most vectors a function may have.
pub const MAX_VECTORS: u16 = 2048;
/// Bytes of one table entry.
const ENTRY: u64 = 16;
/// Vector control, in a table entry: the vector is masked.
const VECTOR_MASKED: u32 = 1;

/// Which event of a device a vector is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A change of the device's configuration.
    Config,
    /// Used buffers in a queue.
    Queue(u16),
}

/// One row of the table.
struct Entry<W: Wiring> {
    message: MsiMessage,
    control: u32,
    /// Allocated while any source is mapped here.
    vector: Option<W::Vector>,
    /// The message the hypervisor has for `vector`.
    programmed: Option<MsiMessage>,
}

impl<W: Wiring> Entry<W> {
    fn new() -> Self {
        let message = MsiMessage {
            address: 0,
            data: 0,
        };
        Self {
            message,
            control: VECTOR_MASKED,
            vector: None,
            programmed: None,
        }
    }

    fn is_masked(&self) -> bool {
        self.control & VECTOR_MASKED != 0
    }
}

/// A source that is mapped to a vector.
struct Mapping<W: Wiring> {
    vector: u16,
    call: Option<Arc<EventFd>>,
    connection: Option<W::Connection>,
}

/// The MSI-X state of one function.
pub struct Msix<W: Wiring> {
    wiring: Arc<W>,
    control: u16,
    // Before the entries, to be dropped before them: a connection ends before its vector is freed.
    sources: BTreeMap<Source, Mapping<W>>,
    entries: Vec<Entry<W>>,
    failures: RateLimit,
}

impl<W: Wiring> Msix<W> {
    /// A table of `vectors` masked vectors, MSI-X off. At most [`MAX_VECTORS`].
    pub fn new(wiring: Arc<W>, vectors: u16) -> Self {
        let entries = (0..vectors.min(MAX_VECTORS))
            .map(|_| Entry::new())
            .collect();
        Self {
            wiring,
            control: 0,
            entries,
            sources: BTreeMap::new(),
            failures: RateLimit::new(),
        }
    }

    /// Bytes from the start of the BAR to the pending bits: the table rounded up.
    pub fn pba_offset(vectors: u16) -> u64 {
        u64::from(vectors)
            .saturating_mul(ENTRY)
            .next_power_of_two()
            .max(2048)
    }

    /// Bytes of a BAR with the table at 0 and the pending bits at [`pba_offset`](Self::pba_offset).
    pub fn bar_size(vectors: u16) -> u64 {
        Self::pba_offset(vectors).saturating_mul(2)
    }

    /// The capability's body, for a table and pending bits in BAR `bar`, and its writable bits.
    pub fn capability(vectors: u16, bar: u8) -> ([u8; 10], [u8; 2]) {
        let mut body = [0; 10];
        let pba = Self::pba_offset(vectors) as u32 | u32::from(bar);
        let parts = vectors.saturating_sub(1).to_le_bytes().into_iter();
        let parts = parts
            .chain(u32::from(bar).to_le_bytes())
            .chain(pba.to_le_bytes());
        body.iter_mut()
            .zip(parts)
            .for_each(|(byte, part)| *byte = part);
        (body, (CONTROL_ENABLE | CONTROL_MASK).to_le_bytes())
    }

    /// Whether MSI-X is on, masked or not.
    pub fn is_enabled(&self) -> bool {
        self.control & CONTROL_ENABLE != 0
    }

    /// The guest wrote the capability's message control.
    pub fn set_control(&mut self, control: u16) {
        let control = control & (CONTROL_ENABLE | CONTROL_MASK);
        if control != self.control {
            self.control = control;
            self.settle();
        }
    }

    /// Maps a source, with its eventfd where it has one, to a vector instead of the one it had.
    /// False when there is no such vector or no interrupt left for it; the source is mapped to
    /// none then.
    pub fn map(&mut self, source: Source, vector: u16, call: Option<Arc<EventFd>>) -> bool {
        self.unmap(source);
        let Some(entry) = self.entries.get_mut(usize::from(vector)) else {
            return false;
        };
        if entry.vector.is_none() {
            match self.wiring.vector() {
                Ok(new) => entry.vector = Some(new),
                Err(error) => {
                    warn(
                        &self.failures,
                        "Cannot allocate an interrupt for an MSI-X vector",
                        &*error,
                    );
                    return false;
                }
            }
        }
        self.sources.insert(
            source,
            Mapping {
                vector,
                call,
                connection: None,
            },
        );
        self.settle();
        true
    }

    /// Ends a source's mapping, if it has one.
    pub fn unmap(&mut self, source: Source) {
        let Some(mapping) = self.sources.remove(&source) else {
            return;
        };
        let vector = mapping.vector;
        drop(mapping);
        if self.sources.values().all(|other| other.vector != vector)
            && let Some(entry) = self.entries.get_mut(usize::from(vector))
        {
            entry.vector = None;
            entry.programmed = None;
        }
    }

    /// Ends every source's mapping.
    pub fn unmap_all(&mut self) {
        self.sources.clear();
        for entry in &mut self.entries {
            entry.vector = None;
            entry.programmed = None;
        }
    }

    /// Gives a mapped source its eventfd, or takes it away. Nothing when the source has no vector.
    pub fn set_call(&mut self, source: Source, call: Option<Arc<EventFd>>) {
        if let Some(mapping) = self.sources.get_mut(&source) {
            mapping.connection = None;
            mapping.call = call;
            self.settle();
        }
    }

    /// Reads the BAR. Bytes of no register are 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let pba = Self::pba_offset(self.entries.len() as u16);
        if offset >= pba {
            return self.read_pending(offset.saturating_sub(pba), data);
        }
        let first = usize::try_from(offset / ENTRY).unwrap_or(usize::MAX);
        let skip = (offset % ENTRY) as usize;
        let bytes = self.entries.iter().skip(first).take(2).flat_map(|entry| {
            let address = entry.message.address.to_le_bytes().into_iter();
            address
                .chain(entry.message.data.to_le_bytes())
                .chain(entry.control.to_le_bytes())
        });
        data.iter_mut()
            .zip(bytes.skip(skip))
            .for_each(|(byte, value)| *byte = value);
    }

    /// Writes the BAR. Only aligned writes of 4 or 8 bytes to the table have an effect, as the
    /// specification asks of software.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len() as u64) {
            return;
        }
        for (place, dword) in (offset..).step_by(4).zip(data.as_chunks().0) {
            self.write_dword(place, u32::from_le_bytes(*dword));
        }
        self.settle();
    }

    /// Everything as after power-on, with no source mapped.
    pub fn reset(&mut self) {
        self.sources.clear();
        self.control = 0;
        self.entries
            .iter_mut()
            .for_each(|entry| *entry = Entry::new());
    }

    fn write_dword(&mut self, offset: u64, value: u32) {
        let index = usize::try_from(offset / ENTRY).unwrap_or(usize::MAX);
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let address = entry.message.address;
        match offset % ENTRY {
            0 => entry.message.address = address & !0xffff_ffff | u64::from(value & !3),
            4 => entry.message.address = address & 0xffff_ffff | u64::from(value) << 32,
            8 => entry.message.data = value,
            _ => entry.control = value & VECTOR_MASKED,
        }
    }

    fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let first = offset.saturating_mul(8);
        for mapping in self.sources.values() {
            let Some(bit) = u64::from(mapping.vector).checked_sub(first) else {
                continue;
            };
            let byte = usize::try_from(bit / 8)
                .ok()
                .and_then(|byte| data.get_mut(byte));
            if let (Some(byte), Some(call), None) = (byte, &mapping.call, &mapping.connection)
                && is_signalled(call)
            {
                *byte |= 1 << (bit % 8);
            }
        }
    }

    /// Brings the hypervisor in line with the table: first the messages of the vectors that can be
    /// delivered, in one batch, then the connections.
    fn settle(&mut self) {
        let open = self.control & (CONTROL_ENABLE | CONTROL_MASK) == CONTROL_ENABLE;
        if open {
            self.program();
        }
        for mapping in self.sources.values_mut() {
            let entry = self.entries.get(usize::from(mapping.vector));
            let live = entry.filter(|entry| {
                open && !entry.is_masked() && entry.programmed == Some(entry.message)
            });
            let vector = live.and_then(|entry| entry.vector.as_ref());
            match (vector, &mapping.call, &mapping.connection) {
                (Some(vector), Some(call), None) => match self.wiring.connect(call, vector) {
                    Ok(connection) => mapping.connection = Some(connection),
                    Err(error) => warn(&self.failures, "Cannot connect an interrupt", &*error),
                },
                (None, _, Some(_)) => mapping.connection = None,
                _ => {}
            }
        }
    }

    /// Hands the hypervisor the messages it does not have yet. When it refuses the batch, a message that it
    /// cannot deliver spoils only its own vector.
    fn program(&mut self) {
        let mut stale: Vec<_> = self
            .entries
            .iter_mut()
            .filter(|entry| !entry.is_masked() && entry.programmed != Some(entry.message))
            .filter(|entry| entry.vector.is_some())
            .collect();
        let batch: Vec<_> = stale
            .iter()
            .filter_map(|entry| Some((entry.vector.as_ref()?, entry.message)))
            .collect();
        let all = batch.is_empty() || self.wiring.program(&batch).is_ok();
        for entry in &mut stale {
            let Some(vector) = &entry.vector else {
                continue;
            };
            entry.programmed = Some(entry.message);
            if !all && let Err(error) = self.wiring.program(&[(vector, entry.message)]) {
                entry.programmed = None;
                warn(&self.failures, "Cannot route an MSI-X message", &*error);
            }
        }
    }
}
