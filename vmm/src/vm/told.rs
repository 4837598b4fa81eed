//! How a VM is described, and what has come of it: what `vm.info` and `vm.counters` are made of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::info::DeviceInfo;
use super::{State, Vm};
use crate::config::{Description, Port};

/// Counters by name, of each vCPU by its name: those of KVM.
pub type Counters = BTreeMap<String, BTreeMap<String, u64>>;

/// How long the daemon of a pseudo-terminal is waited for to say where it is: it has, as a rule.
const PLACE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);

/// A VM at one moment.
#[derive(Debug, Clone)]
pub struct Told {
    /// As described, with what has been added and without what has been removed since.
    pub description: Description,
    /// Where it is in its life.
    pub state: State,
    /// Every virtio device, in slot order, of a VM that is booted.
    pub devices: Option<Vec<DeviceInfo>>,
    /// The pseudo-terminals of `ttyS0` and `console0`, where they are on one.
    pub ptys: Vec<(String, PathBuf)>,
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

    pub(super) fn counters(&self) -> Counters {
        let counters = self.machine.counters().into_iter().enumerate();
        counters
            .map(|(index, counters)| (format!("vcpu{index}"), counters))
            .collect()
    }

    fn ptys(&self) -> Vec<(String, PathBuf)> {
        let ports = [
            ("ttyS0", Some(&self.config.serial)),
            ("console0", self.config.console.as_ref()),
        ];
        let ptys = ports.into_iter().filter(|(_, to)| *to == Some(&Port::Pty));
        let end = Instant::now() + PLACE;
        ptys.filter_map(|(port, _)| {
            loop {
                let place = self.machine.place(port);
                if place.is_some() || Instant::now() >= end {
                    break Some((port.to_owned(), place?));
                }
                std::thread::sleep(LOOK);
            }
        })
        .collect()
    }
}
