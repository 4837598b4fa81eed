//! A description that changes with its VM.

use super::{Description, NewDevice};

impl Description {
    /// Adds a device.
    pub fn push(&mut self, device: NewDevice) {
        match device {
            NewDevice::Disk(disk) => self.disks.push(disk),
            NewDevice::Net(net) => self.nets.push(net),
            NewDevice::Raw(raw) => self.devices.push(raw),
            NewDevice::Plugin(plugin) => self.plugins.push(plugin),
        }
    }

    /// Takes the device of this name out; whether there was one.
    pub fn take_out(&mut self, id: &str) -> bool {
        let before = self.ids().count();
        self.disks.retain(|disk| disk.id.as_deref() != Some(id));
        self.nets.retain(|net| net.id.as_deref() != Some(id));
        self.devices.retain(|raw| raw.name.as_deref() != Some(id));
        self.plugins
            .retain(|plugin| plugin.name.as_deref() != Some(id));
        self.ids().count() < before
    }

    /// The names of its devices; every one has a name once the description is resolved.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let disks = self.disks.iter().filter_map(|disk| disk.id.as_deref());
        let nets = self.nets.iter().filter_map(|net| net.id.as_deref());
        let raws = self.devices.iter().filter_map(|raw| raw.name.as_deref());
        let plugins = self
            .plugins
            .iter()
            .filter_map(|plugin| plugin.name.as_deref());
        disks.chain(nets).chain(raws).chain(plugins)
    }
}
