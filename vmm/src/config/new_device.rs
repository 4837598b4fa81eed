//! A device described while the VM runs.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::resolve::{OUR_OWN, check_id, disk_device, net_device, raw_device};
use super::slots::{Kind, Slots};
use super::{Description, DeviceConfig, Disk, Mac, Net, PluginConfig, PluginDevice, RawDevice};

/// A device to plug into a VM that runs, as a person describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewDevice {
    /// As of `--disk`.
    Disk(Disk),
    /// As of `--net`.
    Net(Net),
    /// As of `--device`.
    #[serde(rename = "device")]
    Raw(RawDevice),
    /// As of `--device plugin=`.
    Plugin(PluginDevice),
}

/// A new device, checked and complete, but for what only its plugin knows.
#[derive(Debug, Clone)]
pub enum NewConfig {
    /// Everything is known of it.
    Device(DeviceConfig),
    /// What it is, its plugin has to be asked.
    Plugin(PluginConfig),
}

impl NewConfig {
    /// Unique in the VM.
    pub fn id(&self) -> &str {
        match self {
            Self::Device(device) => &device.id,
            Self::Plugin(plugin) => &plugin.id,
        }
    }

    /// PCI slot.
    pub fn slot(&self) -> u8 {
        match self {
            Self::Device(device) => device.slot,
            Self::Plugin(plugin) => plugin.slot,
        }
    }
}

/// The devices that a VM has: their slots and names.
pub type Taken = BTreeMap<u8, String>;

impl NewDevice {
    /// The name it is given; none where the VM is to choose.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Disk(disk) => disk.id.as_deref(),
            Self::Net(net) => net.id.as_deref(),
            Self::Raw(raw) => raw.name.as_deref(),
            Self::Plugin(plugin) => plugin.name.as_deref(),
        }
    }

    /// Makes every path absolute, so that it means the same to another process.
    pub fn make_absolute(&mut self) {
        let mut alone = Description::default();
        match self {
            Self::Disk(disk) => {
                alone.disks.push(std::mem::take(disk));
                alone.make_absolute();
                *disk = alone.disks.pop().unwrap_or_default();
            }
            Self::Net(net) => {
                alone.nets.push(std::mem::take(net));
                alone.make_absolute();
                *net = alone.nets.pop().unwrap_or_default();
            }
            Self::Raw(raw) => {
                if let Some(socket) = &mut raw.socket
                    && let Ok(path) = std::path::absolute(&socket)
                {
                    *socket = path;
                }
            }
            Self::Plugin(plugin) => {
                if let Ok(path) = std::path::absolute(&plugin.plugin) {
                    plugin.plugin = path;
                }
            }
        }
    }

    /// Checks it, and fills in, in place, what it leaves open, beside the devices that the VM called
    /// `vm` has.
    ///
    /// # Errors
    /// One sentence that names the key, the value and the remedy.
    pub fn resolve(
        &mut self,
        vm: &str,
        runtime_dir: &Path,
        taken: &Taken,
    ) -> Result<NewConfig, String> {
        let free = |kind: &str| {
            let is_free = |number: &usize| {
                let id = format!("{kind}{number}");
                taken.values().all(|other| *other != id)
            };
            // There are 31 slots, so that one of these is free.
            let number = (0..=taken.len()).find(is_free).unwrap_or_default();
            (format!("{kind}{number}"), number)
        };
        let mut slots = Slots::default();
        for (slot, id) in taken {
            slots.fixed(id, *slot)?;
        }
        let (kind, id, addr) = match self {
            Self::Disk(disk) => ("disk".to_owned(), &mut disk.id, disk.addr),
            Self::Net(net) => ("net".to_owned(), &mut net.id, net.addr),
            Self::Raw(raw) => (raw.id.name(), &mut raw.name, raw.addr),
            Self::Plugin(plugin) => (plugin.stem(), &mut plugin.name, plugin.addr),
        };
        let (default, number) = free(&kind);
        let id = id.get_or_insert(default);
        check_id(id)?;
        if taken.values().any(|other| other == id) || OUR_OWN.contains(&id.as_str()) {
            return Err(format!(
                "id: the VM has a device called '{id}'; give this one another name"
            ));
        }
        if let Some(slot) = addr {
            slots.fixed(id, slot)?;
        }
        let id = id.clone();
        let device = match self {
            Self::Disk(disk) => disk_device(disk, &mut slots),
            Self::Net(net) => net_device(net, Mac::derived(vm, number), &mut slots),
            Self::Raw(raw) => raw_device(raw, &mut slots, runtime_dir),
            Self::Plugin(plugin) => {
                let slot = plugin.addr.map_or_else(|| slots.any(&id, Kind::Other), Ok);
                return Ok(NewConfig::Plugin(plugin.config(&id, slot?)));
            }
        };
        device.map(NewConfig::Device)
    }
}

#[cfg(test)]
mod tests {
    use super::super::from_keyvals;
    use super::*;

    fn disk(keys: &str, taken: &[(u8, &str)]) -> Result<DeviceConfig, String> {
        let taken = taken.iter().map(|(slot, id)| (*slot, (*id).to_owned()));
        let mut disk = NewDevice::Disk(from_keyvals(keys, Some("path")).unwrap());
        match disk.resolve("vm", Path::new("/run/vm"), &taken.collect())? {
            NewConfig::Device(device) => Ok(device),
            NewConfig::Plugin(plugin) => panic!("{plugin:?}"),
        }
    }

    #[test]
    fn a_plugin_is_called_after_its_library_and_keeps_its_options() {
        let new = PluginDevice::from_keyvals("plugin=/lib/libramdisk.so,size=4M").unwrap();
        let taken = [(24, "ramdisk0".to_owned())].into();
        let new = NewDevice::Plugin(new).resolve("vm", Path::new("/run/vm"), &taken);
        let new = new.unwrap();
        assert_eq!((new.id(), new.slot()), ("ramdisk1", 25));
        let NewConfig::Plugin(plugin) = new else {
            panic!("{new:?}")
        };
        assert_eq!(plugin.options["size"], "4M");
    }

    #[test]
    fn a_new_disk_takes_the_first_free_name_and_slot() {
        let new = disk("a.img", &[(8, "disk0"), (9, "root"), (10, "disk2")]).unwrap();
        assert_eq!((new.id.as_str(), new.slot), ("disk1", 11));
        let new = disk("a.img,addr=31,id=x", &[(8, "disk0")]).unwrap();
        assert_eq!((new.id.as_str(), new.slot), ("x", 31));
    }

    #[test]
    fn what_is_taken_is_refused_by_name() {
        let taken = [(8, "disk0")];
        assert!(
            disk("a.img,id=disk0", &taken)
                .unwrap_err()
                .contains("disk0")
        );
        assert!(disk("a.img,addr=8", &taken).unwrap_err().contains("disk0"));
        for ours in OUR_OWN {
            let refused = disk(&format!("a.img,id={ours}"), &taken).unwrap_err();
            assert!(refused.contains(ours), "{refused}");
        }
        assert!(disk("a.img,id=../x", &taken).is_err());
    }
}
