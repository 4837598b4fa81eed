//! Devices that come and go while the VM runs.
//!
//! A new device's backend comes up on a thread of its own; then the device is put into its slot and
//! the guest is told. One that shall go is taken out when its guest has let go of it (ACPI's `_EJ0`),
//! at once where no guest runs, and at the next reset at the latest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::info::bdf;
use super::request::{Plugged, Refusal, Reply};
use super::{State, Vm};
use crate::config::{DeviceConfig, NewDevice};
use crate::frontend::Device;
use crate::monitor;

/// How long a device waits for the one of the same name that is on its way out.
const SUCCESSION: Duration = Duration::from_secs(4);

/// A device whose backend has come up, or has not.
pub(super) struct Arrival {
    pub(super) slot: u8,
    /// The same as described.
    pub(super) described: NewDevice,
    pub(super) device: Result<(DeviceConfig, Arc<Device>), Refusal>,
    pub(super) reply: Reply<Option<Plugged>>,
}

/// A device that waits for another of its name to be gone.
pub(super) struct Successor {
    device: NewDevice,
    reply: Reply<Option<Plugged>>,
    until: Instant,
}

impl Vm<'_> {
    /// Begins to plug a device in.
    pub(super) fn add(&mut self, mut device: NewDevice, reply: Reply<Option<Plugged>>) {
        if device
            .id()
            .is_some_and(|id| self.machine.devices().is_leaving(id))
        {
            let until = Instant::now() + SUCCESSION;
            self.successors.push(Successor {
                device,
                reply,
                until,
            });
            return;
        }
        let taken = self.machine.devices().taken();
        if let Some(id) = device
            .id()
            .filter(|id| taken.values().any(|other| other == id))
        {
            let id = id.to_owned();
            return answer(reply, Err(Refusal::Taken(id)));
        }
        let resolved = device.resolve(&self.config.name, &self.config.runtime_dir, &taken);
        let config = match resolved {
            Ok(config) => config,
            Err(why) => return answer(reply, Err(Refusal::Description(why))),
        };
        let mut with = self.description.clone();
        with.push(device.clone());
        if let Err(why) = with.check_shared() {
            return answer(reply, Err(Refusal::Description(why)));
        }
        self.machine.devices().invite(config, device, reply);
    }

    /// A device's backend has come up, or has not.
    pub(super) fn arrived(&mut self, arrival: Arrival) {
        let Arrival {
            slot,
            described,
            device,
            reply,
        } = arrival;
        let (config, device) = match device {
            Ok(device) => device,
            Err(refusal) => {
                self.machine.devices().free(slot);
                return answer(reply, Err(refusal));
            }
        };
        let id = config.id.clone();
        if let Err(error) = self.machine.devices().seat(config, device) {
            return answer(reply, Err(Refusal::Failed(Box::new(error))));
        }
        self.machine.announce(slot);
        self.description.push(described);
        answer(reply, Ok(Some(Plugged { id, bdf: bdf(slot) })));
    }

    /// Begins to take a device out.
    pub(super) fn remove(&mut self, id: &str) -> Result<(), Refusal> {
        let Some((slot, leaving)) = self.machine.devices().find(id) else {
            let taken = self.machine.devices().taken();
            if taken.values().any(|other| other == id) {
                let what = if self.machine.devices().is_leaving(id) {
                    "taken out"
                } else {
                    "plugged in"
                };
                let id = id.to_owned();
                return Err(Refusal::Busy { id, what });
            }
            let names: Vec<_> = taken.into_values().collect();
            let known = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            let id = id.to_owned();
            return Err(Refusal::NoDevice { id, known });
        };
        tracing::info!(device = id, again = leaving, "The guest is asked to let go");
        self.description.take_out(id);
        if self.state == State::Created {
            self.machine.devices().take_out(slot);
        } else {
            self.machine.ask_out(slot);
        }
        Ok(())
    }

    /// The device of a slot is gone: one of the same name may come.
    pub(super) fn gone(&mut self, slot: u8) {
        let Some(id) = self.machine.devices().free(slot) else {
            return;
        };
        // Its guest may have ejected it unasked.
        self.description.take_out(&id);
        let properties = [("id", id.as_str()), ("bdf", &bdf(slot))];
        monitor::event("vm", "device-removed", &properties);
        let waiting = std::mem::take(&mut self.successors);
        for successor in waiting {
            if successor.device.id() == Some(id.as_str()) {
                self.add(successor.device, successor.reply);
            } else {
                self.successors.push(successor);
            }
        }
    }

    /// Answers those that have waited too long for another to be gone. When the next one has.
    pub(super) fn give_up(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let (late, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.successors)
            .into_iter()
            .partition(|successor| successor.until <= now);
        self.successors = waiting;
        for Successor { device, reply, .. } in late {
            let id = device.id().unwrap_or_default().to_owned();
            let what = "taken out";
            answer(reply, Err(Refusal::Busy { id, what }));
        }
        self.successors
            .iter()
            .map(|successor| successor.until)
            .min()
    }
}

/// Nobody may be waiting for it any more.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, Refusal>) {
    reply.send(result);
}
