//! When queue groups run: a group's worker begins with the first of its rings that is known and
//! enabled, and ends when one of them is stopped or the device is reset.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::sync::Arc;

use tracing::debug;

use super::Refused;
use super::state::{EVENT_IDX, INDIRECT_DESC, State, VERSION_1, Vring};
use crate::device::Device;
use crate::queue::RingStart;
use crate::worker::{Change, Running};

impl<D: Device> State<'_, D> {
    /// Starts the ring if all that it needs is known by now; the order in which the frontend says
    /// it does not matter. A group's worker begins with the first ring that is also enabled.
    pub(super) fn try_start(&mut self, index: u32) -> Result<(), Refused> {
        let Some(group) = self.group_of(index) else {
            return Ok(());
        };
        let vring = self.vring(index)?;
        let (enabled, known) = (vring.enabled, vring.is_known());
        if vring.running || !known || self.memory.regions().len() == 0 {
            return Ok(());
        }
        let Some(place) = self.groups.get(group) else {
            return Ok(());
        };
        if place.running.is_some() {
            return self.start_ring(index);
        }
        if !enabled {
            return Ok(());
        }
        if self.refused || self.acked & VERSION_1 == 0 {
            return Err(Refused::NoFeatures);
        }
        let queues = place.queues.clone();
        if self.groups.iter().all(|group| group.running.is_none()) {
            // All rings were stopped: as good as a reset, and all that some frontends do.
            self.breakage.clear();
        }
        self.started = true;
        let worker = self.device.start(group)?;
        let running = Running::spawn(
            format!("group-{group}"),
            worker,
            queues.clone(),
            &self.memory,
            Arc::clone(&self.breakage),
            self.counters.as_ref(),
        )?;
        if let Some(place) = self.groups.get_mut(group) {
            place.running = Some(running);
        }
        debug!(group, ?queues, "queue group started");
        let started = queues
            .map(u32::from)
            .try_for_each(|ring| self.start_ring(ring));
        if started.is_err() {
            self.stop_group(group);
        }
        started
    }

    /// The base of a ring that nobody has used: of a packed one both wrap counters begin as 1.
    fn first_base(&self) -> u32 {
        if self.is_packed() { 0x8000_8000 } else { 0 }
    }

    /// Hands the ring to its group's worker, if all that it needs is known.
    fn start_ring(&mut self, index: u32) -> Result<(), Refused> {
        let acked = self.acked;
        let packed = self.is_packed();
        let first = self.first_base();
        let vring = self.vring(index)?;
        let (Some(size), Some(addresses), Some(kick)) = (vring.size, vring.addresses, &vring.kick)
        else {
            return Ok(());
        };
        let start = RingStart {
            size,
            addresses,
            base: vring.base.unwrap_or(first),
            packed,
            event_idx: acked & EVENT_IDX != 0,
            indirect: acked & INDIRECT_DESC != 0,
        };
        let enabled = vring.enabled;
        let kick = kick.try_clone()?;
        let call = vring.call.as_ref().map(File::try_clone).transpose()?;
        if let Some((group, slot)) = self.place(index) {
            group.change(Change::Start {
                slot,
                start,
                enabled,
                kick,
                call,
            })?;
        }
        self.vring(index)?.running = true;
        debug!(index, ?start, "ring started");
        Ok(())
    }

    /// Stops a ring and says where it would have gone on. Its group stops with it, finishing what
    /// is in flight; rings of the group that still run are started again.
    pub(super) fn stop_ring(&mut self, index: u32) -> Result<u32, Refused> {
        let group = self.group_of(index).ok_or(Refused::NoSuchQueue(index))?;
        self.stop_group(group);
        let first = self.first_base();
        let vring = self.vring(index)?;
        // A stopped ring starts again with the next kick descriptor.
        vring.kick = None;
        let base = vring.base.unwrap_or(first);
        let rest = self.groups.get(group).map(|group| group.queues.clone());
        for ring in rest.into_iter().flatten() {
            if let Err(error) = self.try_start(u32::from(ring)) {
                // This request is not to blame.
                self.breakage.mark(&error);
            }
        }
        Ok(base)
    }

    fn stop_group(&mut self, group: usize) {
        let Some(place) = self.groups.get_mut(group) else {
            return;
        };
        let Some(running) = place.running.take() else {
            return;
        };
        let stopped = running.stop();
        let first = usize::from(place.queues.start);
        let count = usize::from(place.queues.end).saturating_sub(first);
        let mut bases = stopped.bases.into_iter();
        for vring in self.vrings.iter_mut().skip(first).take(count) {
            let base = bases.next();
            if std::mem::take(&mut vring.running)
                && let Some(base) = base
            {
                vring.base = Some(base);
            }
        }
        if let Some(worker) = stopped.worker {
            self.device.stop(group, worker);
        }
        debug!(group, "queue group stopped");
    }

    /// The device and its rings as they were when the connection began; memory stays.
    pub(super) fn reset(&mut self) {
        for group in 0..self.groups.len() {
            self.stop_group(group);
        }
        for (index, vring) in self.vrings.iter_mut().enumerate() {
            *vring = Vring::default();
            self.breakage.listen(index, None);
        }
        self.device.reset();
        self.breakage.clear();
        self.acked = 0;
        self.refused = false;
        self.status = 0;
        self.started = false;
        debug!("device reset");
    }
}
