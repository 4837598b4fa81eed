//! Which of a VM's plugin devices are virtio devices, which are registers, and who hosts them.

use std::collections::BTreeMap;

use super::inspect::{Inspected, InspectedKind, inspect_unless};
use super::library::Library;
use crate::config::{DeviceConfig, Host, PluginConfig, PluginHost, VirtioId, VmConfig};

/// A plugin's device cannot be part of the VM.
#[derive(Debug, thiserror::Error)]
#[error("Device '{id}': {why}")]
pub struct PluginsError {
    /// The device.
    pub id: String,
    /// Why, as a sentence that goes on.
    pub why: String,
}

/// The plugins of a VM, sorted out.
#[derive(Debug, Default)]
pub struct Settled {
    /// Virtio devices, in slot order with those of the VM that are no plugins.
    pub devices: Vec<DeviceConfig>,
    /// Registers.
    pub registers: Vec<RegistersConfig>,
    /// All plugins, each with its device and version known.
    pub plugins: Vec<PluginConfig>,
}

/// A device of registers, of a plugin.
#[derive(Debug, Clone)]
pub struct RegistersConfig {
    /// Unique in the VM.
    pub id: String,
    /// The plugin.
    pub library: Library,
    /// The device's name in the plugin.
    pub device: String,
    /// Its options, not checked.
    pub options: BTreeMap<String, String>,
}

/// Asks each plugin what it is; gives up when `cancelled` says so.
///
/// # Errors
/// One does not load, has no such device, or its device cannot be hosted as asked.
pub fn settle(config: &VmConfig, cancelled: &dyn Fn() -> bool) -> Result<Settled, PluginsError> {
    let mut settled = Settled {
        devices: config.devices.clone(),
        registers: Vec::new(),
        plugins: Vec::new(),
    };
    for plugin in &config.plugins {
        let inspected = inspect_unless(&plugin.path, cancelled);
        let added = inspected.and_then(|inspected| settled.add(plugin, &inspected));
        added.map_err(|why| PluginsError {
            id: plugin.id.clone(),
            why,
        })?;
    }
    settled.devices.sort_by_key(|device| device.slot);
    Ok(settled)
}

/// Asks the plugin of a device that comes while the VM runs; gives up when `cancelled` says so.
///
/// # Errors
/// As for [`settle`], or the device is of registers: the guest is not told of those.
pub fn settle_one(
    plugin: &PluginConfig,
    cancelled: &dyn Fn() -> bool,
) -> Result<DeviceConfig, PluginsError> {
    let mut settled = Settled::default();
    let inspected = inspect_unless(&plugin.path, cancelled);
    let added = inspected.and_then(|inspected| settled.add(plugin, &inspected));
    let device = added.and_then(|()| {
        settled.devices.pop().ok_or_else(|| {
            "a device of registers is part of the machine; give it to outboard run".to_owned()
        })
    });
    device.map_err(|why| PluginsError {
        id: plugin.id.clone(),
        why,
    })
}

impl Settled {
    fn add(&mut self, plugin: &PluginConfig, inspected: &Inspected) -> Result<(), String> {
        let names = || {
            let names: Vec<_> = inspected.devices.iter().map(|d| d.name.as_str()).collect();
            names.join(", ")
        };
        let device = match &plugin.device {
            Some(name) => inspected.devices.iter().find(|d| d.name == *name),
            None => inspected
                .devices
                .first()
                .filter(|_| inspected.devices.len() == 1),
        };
        let device = device.ok_or_else(|| match &plugin.device {
            Some(name) => format!(
                "{} has no device '{name}'; it has {}",
                plugin.path.display(),
                names()
            ),
            None => format!(
                "{} has several devices; say which, by device=NAME: {}",
                plugin.path.display(),
                names()
            ),
        })?;
        self.plugins.push(PluginConfig {
            device: Some(device.name.clone()),
            version: Some(format!("{} {}", inspected.name, inspected.version)),
            ..plugin.clone()
        });
        match (device.kind, plugin.host) {
            (InspectedKind::Registers, Some(PluginHost::Process)) => Err(format!(
                "'{}' is a device of registers: the guest's vCPU waits for each access, which vhost-user cannot \
                 carry to another process; write host=vmm",
                device.name
            )),
            (InspectedKind::Registers, _) => {
                self.registers.push(RegistersConfig {
                    id: plugin.id.clone(),
                    library: Library::File(plugin.path.clone()),
                    device: device.name.clone(),
                    options: plugin.options.clone(),
                });
                Ok(())
            }
            (InspectedKind::Virtio(id), host) => {
                let virtio_id: VirtioId = id.to_string().parse()?;
                self.devices.push(DeviceConfig {
                    id: plugin.id.clone(),
                    virtio_id,
                    slot: plugin.slot,
                    host: virtio_host(plugin, &device.name, host.unwrap_or_default()),
                    queues: plugin.queues,
                    queue_size: None,
                    tag: None,
                    on_exit: plugin.on_exit,
                });
                Ok(())
            }
        }
    }
}

fn virtio_host(plugin: &PluginConfig, device: &str, host: PluginHost) -> Host {
    match host {
        PluginHost::Vmm => Host::Plugin {
            path: plugin.path.clone(),
            device: device.to_owned(),
            options: plugin.options.clone(),
        },
        PluginHost::Process => {
            let twice = |text: &str| text.replace(',', ",,");
            let mut value = twice(&plugin.path.display().to_string());
            value.push_str(",device=");
            value.push_str(device);
            for (key, text) in &plugin.options {
                value.extend([",", key, "=", &twice(text)]);
            }
            Host::Process {
                program: "outboard-plugin-host".into(),
                args: vec!["--plugin".into(), value],
            }
        }
    }
}
