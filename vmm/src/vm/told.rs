//! How a VM is described, and what has come of it: what `vm.info` is made of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::info::{DeviceInfo, Info, QueueCounts};
use super::{State, Vm};
use crate::config::{Description, Port};

/// Counters by name, of each vCPU by its name, which are those of KVM, and of each virtio device by its
/// own, which are its queues'.
pub type Counters = BTreeMap<String, BTreeMap<String, u64>>;

/// A VM at one moment.
#[derive(Debug, Clone)]
pub struct Told {
    /// As described, with what has been added and without what has been removed since.
    pub description: Description,
    /// Where it is in its life.
    pub state: State,
    /// Every virtio device, in slot order, of a VM that is booted.
    pub devices: Option<Vec<DeviceInfo>>,
    /// The pseudo-terminals of `ttyS0` and `console0`, where they are on one; `None` until its daemon
    /// has said where it is.
    pub ptys: Vec<(String, Option<PathBuf>)>,
}

impl Told {
    /// A daemon has yet to say where its pseudo-terminal is.
    pub(super) fn waits_for_a_pty(&self) -> bool {
        self.ptys.iter().any(|(_, place)| place.is_none())
    }
}

impl Vm<'_> {
    pub(super) fn tell(&mut self) -> Told {
        Told {
            description: self.description.clone(),
            state: self.state,
            ptys: self.ptys(),
            devices: Some(self.machine.devices().info()),
        }
    }

    fn ptys(&self) -> Vec<(String, Option<PathBuf>)> {
        let ports = [
            ("ttyS0", Some(&self.config.serial)),
            ("console0", self.config.console.as_ref()),
        ];
        let ptys = ports.into_iter().filter(|(_, to)| *to == Some(&Port::Pty));
        ptys.map(|(port, _)| (port.to_owned(), self.machine.place(port)))
            .collect()
    }
}

/// What is counted of a VM.
pub(super) fn counters(info: Info) -> Counters {
    let vcpus = info.vcpus.into_iter();
    let vcpus = vcpus.map(|vcpu| (format!("vcpu{}", vcpu.index), vcpu.counters));
    let devices = info.devices.into_iter().filter_map(of_queues);
    devices.chain(vcpus).collect()
}

/// The counters of a device; `None` of one that does not count.
fn of_queues(device: DeviceInfo) -> Option<(String, BTreeMap<String, u64>)> {
    let mut counters = BTreeMap::new();
    for queue in &device.queues {
        for (name, count) in queue.counts.iter().flat_map(QueueCounts::each) {
            counters.insert(format!("queue{}_{name}", queue.index), count);
        }
    }
    (!counters.is_empty()).then_some((device.id, counters))
}
