//! What `vm.info` answers.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::config::{ConsoleMode, VmConfig};
use crate::config::Description;
use crate::vm::{DeviceInfo, State, Told};

/// A VM at one moment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VmInfo {
    config: VmConfig,
    state: VmState,
    /// In bytes.
    memory_actual_size: u64,
    /// Of a VM that is booted.
    device_tree: Option<BTreeMap<String, DeviceNode>>,
}

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) enum VmState {
    /// Described, and not booted; also after a shutdown.
    Created,
    Running,
    Paused,
    /// Its end is under way.
    Shutdown,
}

/// A device, or the PCI function that shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceNode {
    id: String,
    resources: [String; 0],
    parent: Option<String>,
    children: Vec<String>,
    /// `0000:00:08.0`.
    pci_bdf: Option<String>,
}

impl VmInfo {
    /// Of what the VM's owner tells, as Cloud Hypervisor writes it: what is nothing is left out.
    pub(crate) fn json(told: &Told) -> Value {
        let info = Self::new(told);
        without_nulls(serde_json::to_value(info).unwrap_or_default())
    }

    fn new(told: &Told) -> Self {
        let mut config = VmConfig::of(&told.description);
        for (port, place) in &told.ptys {
            let place = place.clone();
            match port.as_str() {
                "ttyS0" if config.serial.mode == ConsoleMode::Pty => config.serial.file = place,
                "console0" if config.console.mode == ConsoleMode::Pty => {
                    config.console.file = place;
                }
                _ => {}
            }
        }
        Self {
            memory_actual_size: memory(&told.description),
            config,
            state: match told.state {
                State::Created => VmState::Created,
                State::Running => VmState::Running,
                State::Paused => VmState::Paused,
                State::Stopped => VmState::Shutdown,
            },
            device_tree: told.devices.as_deref().map(tree),
        }
    }
}

fn memory(vm: &Description) -> u64 {
    vm.memory.clone().unwrap_or_default().size.0
}

fn tree(devices: &[DeviceInfo]) -> BTreeMap<String, DeviceNode> {
    let nodes = devices.iter().flat_map(|device| {
        let function = format!("_virtio-pci-{}", device.id);
        [
            DeviceNode {
                id: function.clone(),
                resources: [],
                parent: None,
                children: vec![device.id.clone()],
                pci_bdf: Some(device.bdf.clone()),
            },
            DeviceNode {
                id: device.id.clone(),
                resources: [],
                parent: Some(function),
                children: Vec::new(),
                pci_bdf: None,
            },
        ]
    });
    nodes.map(|node| (node.id.clone(), node)).collect()
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(k, v)| (k, without_nulls(v))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
