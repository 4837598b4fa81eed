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

    /// Takes the name out again that resolving gives to a VM without one, and the cards' addresses
    /// that come of it: kept in a file, the description is to be that file's VM. `given` is what was
    /// resolved.
    pub fn forget_name(&mut self, given: &Self) {
        self.name.clone_from(&given.name);
        for (net, given) in self.nets.iter_mut().zip(&given.nets) {
            net.mac.clone_from(&given.mac);
        }
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

#[cfg(test)]
mod tests {
    use super::super::from_keyvals;
    use super::*;

    #[test]
    fn a_vm_without_a_name_gets_no_addresses_by_another_to_keep() {
        let mut given = Description {
            kernel: Some("k".into()),
            ..Description::default()
        };
        let mac = "02:00:00:00:00:01";
        for card in ["tap=a", &format!("tap=b,mac={mac}")] {
            given.nets.push(from_keyvals(card, None).unwrap());
        }
        let mut vm = given.clone();
        vm.resolve().unwrap();
        assert!(vm.name.is_some() && vm.nets[0].mac.is_some());
        vm.forget_name(&given);
        assert_eq!((vm.name, &vm.nets[0].mac), (None, &None));
        assert_eq!(vm.nets[1].mac.as_deref(), Some(mac));
        assert!(
            vm.nets.iter().all(|net| net.addr.is_some()),
            "all else stays"
        );
    }
}
