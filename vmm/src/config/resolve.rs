//! From a description to a configuration: every check and every default, in one place.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::description::{Description, Disk, Net, RawDevice};
use super::hosts::{console_host, disk_host, raw_host};
use super::logs::log_config;
use super::net::net_host;
use super::slots::{Kind, Slots};
use super::{
    BootConfig, BootFrom, CpuConfig, DeviceConfig, FeatureToggle, Host, Mac, MemoryConfig, OnOff,
    PluginConfig, Port, VirtioId, VmConfig,
};

/// What a VM is called that nobody has named.
pub(crate) const DEFAULT_NAME: &str = "vm";

const MEMORY_MIN: u64 = 32 << 20;
/// Virtio 1.2, section 5.11.4.
const FS_TAG_MAX: usize = 36;
const MEMORY_STEP: u64 = 2 << 20;
/// What `--cdrom`, `--console`, `--serial` and the VMM are called, in messages and logs.
pub(super) const OUR_OWN: [&str; 5] = ["cdrom0", "console0", "serial", "ttyS0", "vmm"];

impl Description {
    /// Checks the description and fills its defaults, in place: what `--dry-run` shows.
    ///
    /// # Errors
    /// One sentence that names the key, the value and the remedy.
    pub fn resolve(&mut self) -> Result<VmConfig, String> {
        let name = self.name.get_or_insert_with(|| DEFAULT_NAME.into()).clone();
        check_name(&name).map_err(|why| self.named_after(&name, format!("name: {why}")))?;
        let runtime_dir = runtime_dir(&name);
        let boot = self.boot()?;
        let serial: Port = read(self.serial.get_or_insert_with(|| "tty".into()), "serial")?;
        let console = self
            .console
            .as_deref()
            .map(|text| read(text, "console"))
            .transpose()?;
        let console = console.filter(|port| *port != Port::Off);
        if serial == Port::Tty && console == Some(Port::Tty) {
            return Err(
                "serial and console both want the terminal; give one of them socket, \
                        pty or file=PATH (Ctrl-A c then switches between the two)"
                    .into(),
            );
        }
        let logs = log_config(self.log_dir.as_deref(), &name);
        let (devices, plugins) = self.devices(&name, console.as_ref(), &serial, &runtime_dir)?;
        self.check_shared()?;
        let (cpus, memory) = (self.cpus()?, self.ram()?);
        Ok(VmConfig {
            description: Box::new(self.clone()),
            cpus,
            memory,
            boot,
            no_reboot: self.no_reboot.0,
            no_ioeventfd: self.no_ioeventfd.0,
            name,
            serial,
            console,
            devices,
            plugins,
            runtime_dir,
            logs,
        })
    }

    /// Says so where it was the file's name that made `name`.
    fn named_after(&self, name: &str, why: String) -> String {
        match &self.file {
            Some(file) if file.file_stem().is_some_and(|stem| stem == name) => format!(
                "{why}; it was taken from the file {}: write name = \"...\" into it, or give --name",
                file.display()
            ),
            _ => why,
        }
    }

    fn boot(&self) -> Result<BootConfig, String> {
        let entry = self.boot_entry.clone();
        let from = match (&self.kernel, &self.cdrom) {
            (None, None) => {
                return Err(
                    "No kernel is given; add --kernel FILE (or kernel = \"FILE\"), or an ISO image by \
                     --cdrom FILE"
                        .into(),
                );
            }
            (Some(_), _) if entry.is_some() => {
                return Err(
                    "boot-entry: it is the kernel that is booted, not the ISO image; leave one of \
                     the two out"
                        .into(),
                );
            }
            (Some(kernel), _) => BootFrom::Kernel(kernel.clone()),
            (None, Some(image)) => BootFrom::Iso {
                image: image.clone(),
                entry,
            },
        };
        Ok(BootConfig {
            from,
            initrd: self.initrd.clone(),
            cmdline: self.cmdline.clone(),
            append: self.cmdline_append.clone(),
        })
    }

    fn cpus(&mut self) -> Result<CpuConfig, String> {
        let cpus = self.cpus.get_or_insert_default();
        let count = *cpus.count.get_or_insert(1);
        if !(1..=CpuConfig::MAX).contains(&count) {
            return Err(format!(
                "cpus: {count} is out of range; choose 1 to {}",
                CpuConfig::MAX
            ));
        }
        let model = cpus.model.get_or_insert_with(|| "host".into());
        let mut words = model.split(',').map(str::trim);
        if words.next() != Some("host") {
            return Err(format!(
                "cpu: '{model}' does not begin with 'host', the only model there is; write host, or \
                 host,-FEATURE to hide what it has"
            ));
        }
        let features = words
            .map(|word| toggle(word, model))
            .collect::<Result<_, _>>()?;
        Ok(CpuConfig { count, features })
    }

    fn ram(&mut self) -> Result<MemoryConfig, String> {
        let ram = self.memory.get_or_insert_default();
        let size = ram.size.0;
        if size < MEMORY_MIN {
            return Err(format!(
                "memory: {} is too little; give at least 32M",
                ram.size
            ));
        }
        if !size.is_multiple_of(MEMORY_STEP) {
            return Err(format!("memory: {} is not a multiple of 2M", ram.size));
        }
        Ok(MemoryConfig {
            size,
            hugepages: ram.hugepages.0,
            prefault: ram.prefault.0,
        })
    }

    /// Fills ids and slots, and turns each device into a slot and a host.
    fn devices(
        &mut self,
        name: &str,
        console: Option<&Port>,
        serial: &Port,
        runtime_dir: &Path,
    ) -> Result<(Vec<DeviceConfig>, Vec<PluginConfig>), String> {
        self.name_devices()?;
        let mut slots = Slots::default();
        for (id, addr) in self.addresses() {
            if let Some(slot) = addr {
                slots.fixed(id, slot)?;
            }
        }
        let mut devices = Vec::new();
        if let Some(port) = console {
            let host = console_host(port, serial, runtime_dir);
            let slot = slots.any("console0", Kind::Console)?;
            devices.push(device("console0", VirtioId::CONSOLE, slot, host));
        }
        for (index, net) in self.nets.iter_mut().enumerate() {
            devices.push(net_device(net, Mac::derived(name, index), &mut slots)?);
        }
        for disk in &mut self.disks {
            devices.push(disk_device(disk, &mut slots)?);
        }
        if let Some(image) = &self.cdrom {
            devices.push(cdrom(image, &mut slots)?);
        }
        for raw in &mut self.devices {
            devices.push(raw_device(raw, &mut slots, runtime_dir)?);
        }
        let mut plugins = Vec::new();
        for plugin in &mut self.plugins {
            let id = plugin.name.clone().unwrap_or_default();
            let slot = plugin
                .addr
                .map_or_else(|| slots.any(&id, Kind::Other), Ok)?;
            plugin.addr = Some(slot);
            plugins.push(plugin.config(&id, slot));
        }
        devices.sort_by_key(|device| device.slot);
        Ok((devices, plugins))
    }

    fn name_devices(&mut self) -> Result<(), String> {
        for (index, net) in self.nets.iter_mut().enumerate() {
            net.id.get_or_insert_with(|| format!("net{index}"));
        }
        for (index, disk) in self.disks.iter_mut().enumerate() {
            disk.id.get_or_insert_with(|| format!("disk{index}"));
        }
        let mut taken: HashSet<String> = self.addresses().map(|(id, _)| id.to_owned()).collect();
        taken.extend(OUR_OWN.map(String::from));
        for plugin in &mut self.plugins {
            if plugin.name.is_none() {
                let stem = plugin.stem();
                plugin.name = (0..=taken.len())
                    .map(|number| format!("{stem}{number}"))
                    .find(|name| taken.insert(name.clone()));
            }
        }
        for raw in &mut self.devices {
            if raw.name.is_none() {
                let kind = raw.id.name();
                // The numbers outlast the devices.
                raw.name = (0..=taken.len())
                    .map(|number| format!("{kind}{number}"))
                    .find(|name| taken.insert(name.clone()));
            }
        }
        let mut seen = HashSet::new();
        for (id, _) in self.addresses() {
            check_id(id)?;
            if OUR_OWN.contains(&id) {
                return Err(format!(
                    "id: '{id}' is a name that the VM's own devices and logs have; choose another"
                ));
            }
            if !seen.insert(id) {
                return Err(format!(
                    "id: '{id}' names two devices; give one of them another name"
                ));
            }
        }
        Ok(())
    }

    fn addresses(&self) -> impl Iterator<Item = (&str, Option<u8>)> {
        let nets = self.nets.iter().map(|net| (net.id.as_deref(), net.addr));
        let disks = self
            .disks
            .iter()
            .map(|disk| (disk.id.as_deref(), disk.addr));
        let raws = self
            .devices
            .iter()
            .map(|raw| (raw.name.as_deref(), raw.addr));
        let plugins = self
            .plugins
            .iter()
            .map(|plugin| (plugin.name.as_deref(), plugin.addr));
        nets.chain(disks)
            .chain(raws)
            .chain(plugins)
            .map(|(id, addr)| (id.unwrap_or_default(), addr))
    }
}

/// Turns a card into a device, and fills in what it leaves open.
pub(super) fn net_device(
    net: &mut Net,
    mac: Mac,
    slots: &mut Slots,
) -> Result<DeviceConfig, String> {
    let id = net.id.clone().unwrap_or_default();
    let host = net_host(net, &id, mac)?;
    check_queue_size("net", &id, net.queue_size)?;
    let slot = net.addr.map_or_else(|| slots.any(&id, Kind::Net), Ok)?;
    net.addr = Some(slot);
    Ok(DeviceConfig {
        queue_size: net.queue_size,
        on_exit: net.on_exit,
        ..device(&id, VirtioId::NET, slot, host)
    })
}

/// The same of a disk.
pub(super) fn disk_device(disk: &mut Disk, slots: &mut Slots) -> Result<DeviceConfig, String> {
    let id = disk.id.clone().unwrap_or_default();
    let host = disk_host(disk, &id)?;
    check_queue_size("disk", &id, disk.queue_size)?;
    let slot = disk.addr.map_or_else(|| slots.any(&id, Kind::Disk), Ok)?;
    disk.addr = Some(slot);
    Ok(DeviceConfig {
        queues: disk.queues,
        queue_size: disk.queue_size,
        on_exit: disk.on_exit,
        ..device(&id, VirtioId::BLOCK, slot, host)
    })
}

/// An ISO image as a disk.
fn cdrom(image: &Path, slots: &mut Slots) -> Result<DeviceConfig, String> {
    let mut disk = Disk {
        path: Some(image.to_owned()),
        id: Some("cdrom0".into()),
        addr: Some(slots.any("cdrom0", Kind::Cdrom)?),
        readonly: OnOff(true),
        format: Some("raw".into()),
        ..Disk::default()
    };
    disk_device(&mut disk, slots)
}

/// The same of somebody else's device.
pub(super) fn raw_device(
    raw: &mut RawDevice,
    slots: &mut Slots,
    runtime_dir: &Path,
) -> Result<DeviceConfig, String> {
    let id = raw.name.clone().unwrap_or_default();
    let host = raw_host(raw, &id, runtime_dir)?;
    check_queue_size("device", &id, raw.queue_size)?;
    if let Some(tag) = &raw.tag {
        if raw.id != VirtioId::FS {
            return Err(format!("device '{id}': tag is for id=fs; leave it out"));
        }
        if !(1..=FS_TAG_MAX).contains(&tag.len()) {
            return Err(format!(
                "device '{id}': tag={tag} is not of 1 to {FS_TAG_MAX} bytes; choose another"
            ));
        }
    }
    let slot = raw.addr.map_or_else(|| slots.any(&id, Kind::Other), Ok)?;
    raw.addr = Some(slot);
    Ok(DeviceConfig {
        queues: raw.queues,
        queue_size: raw.queue_size,
        tag: raw.tag.clone(),
        on_exit: raw.on_exit,
        ..device(&id, raw.id, slot, host)
    })
}

fn check_queue_size(kind: &str, id: &str, size: Option<u16>) -> Result<(), String> {
    match size.filter(|size| !size.is_power_of_two()) {
        Some(size) => Err(format!(
            "{kind} '{id}': queue-size={size} is no power of two; choose one up to 32768"
        )),
        None => Ok(()),
    }
}

fn read(text: &str, key: &str) -> Result<Port, String> {
    text.parse().map_err(|why| format!("{key}: {why}"))
}

/// What names are made of.
const NAME_RULE: &str =
    "use letters, digits, '-', '_' and '.', 64 at most, with no '-' or '.' at the beginning";

/// Whether it can name a VM or a device.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&name.len()) && !name.starts_with(['.', '-']) && name.chars().all(allowed)
}

pub(super) fn check_id(id: &str) -> Result<(), String> {
    if is_name(id) {
        return Ok(());
    }
    Err(format!("id: '{id}' is no device name; {NAME_RULE}"))
}

/// Checks a VM's name.
///
/// # Errors
/// It is none; a sentence that says what one is made of.
pub fn check_name(name: &str) -> Result<(), String> {
    if is_name(name) {
        return Ok(());
    }
    Err(format!("'{name}' is no VM name; {NAME_RULE}"))
}

fn toggle(word: &str, model: &str) -> Result<FeatureToggle, String> {
    let on = match word.as_bytes().first() {
        Some(b'+') => true,
        Some(b'-') => false,
        _ => {
            return Err(format!(
                "cpu: '{word}' in '{model}' has no sign; write +{word} or -{word}"
            ));
        }
    };
    Ok(FeatureToggle {
        name: word.get(1..).unwrap_or_default().to_owned(),
        on,
    })
}

fn device(id: &str, virtio_id: VirtioId, slot: u8, host: Host) -> DeviceConfig {
    DeviceConfig {
        id: id.to_owned(),
        virtio_id,
        slot,
        host,
        queues: None,
        queue_size: None,
        tag: None,
        on_exit: super::OnExit::default(),
    }
}

/// `$XDG_RUNTIME_DIR/outboard/NAME`, else `/run/outboard/NAME` for root, else `outboard-UID/NAME` in the
/// temporary directory.
fn runtime_dir(name: &str) -> PathBuf {
    runtime_base().join(name)
}

/// The folder that holds the folders of this user's VMs.
pub(crate) fn runtime_base() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        // A relative one is to be ignored, says the XDG base directory specification.
        Some(dir) if Path::new(&dir).is_absolute() => PathBuf::from(dir).join("outboard"),
        _ if nix::unistd::geteuid().is_root() => PathBuf::from("/run/outboard"),
        _ => std::env::temp_dir().join(format!("outboard-{}", nix::unistd::geteuid())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::from_keyvals;
    use super::*;

    fn minimal() -> Description {
        Description {
            kernel: Some("vmlinuz".into()),
            ..Description::default()
        }
    }

    fn slot(config: &VmConfig, id: &str) -> u8 {
        config
            .devices
            .iter()
            .find(|device| device.id == id)
            .map_or(0, |device| device.slot)
    }

    #[test]
    fn adding_a_disk_never_moves_the_card() {
        let mut one = minimal();
        one.nets.push(from_keyvals("tap=tap0", None).unwrap());
        let mut two = one.clone();
        two.disks.push(from_keyvals("path=a.img", None).unwrap());
        assert_eq!(
            slot(&one.resolve().unwrap(), "net0"),
            slot(&two.resolve().unwrap(), "net0")
        );
    }

    #[test]
    fn an_iso_image_is_the_last_disk_and_boots_where_no_kernel_is_given() {
        let mut vm = Description {
            cdrom: Some("x.iso".into()),
            boot_entry: Some("rescue".into()),
            disks: vec![from_keyvals("path=a.img", None).unwrap()],
            ..Description::default()
        };
        let config = vm.resolve().unwrap();
        assert_eq!((slot(&config, "disk0"), slot(&config, "cdrom0")), (8, 23));
        assert_eq!(config.boot.from.to_string(), "x.iso (rescue)");
        vm.resolve().unwrap();
        vm.kernel = Some("vmlinuz".into());
        assert!(vm.resolve().unwrap_err().contains("boot-entry"));
        vm.boot_entry = None;
        let config = vm.resolve().unwrap();
        assert_eq!(config.boot.from.to_string(), "vmlinuz");
        assert_eq!(config.devices.len(), 2, "and the image is a disk");
        vm.disks[0].id = Some("cdrom0".into());
        assert!(vm.resolve().unwrap_err().contains("cdrom0"));
    }

    #[test]
    fn a_resolved_description_resolves_to_the_same_vm() {
        let mut vm = minimal();
        vm.console = Some("socket".into());
        vm.nets
            .push(from_keyvals("tap=tap0,addr=9,queues=2", None).unwrap());
        vm.nets
            .push(from_keyvals("user,forward=2222:22", None).unwrap());
        vm.nets.push(from_keyvals("stream=/s", None).unwrap());
        vm.disks
            .push(from_keyvals("path=a.img,serial=abc,readonly", None).unwrap());
        vm.devices
            .push(from_keyvals("vhost-user,id=fs,socket=/s", Some("kind")).unwrap());
        let spawn = "vhost-user,id=26,spawn=qsd 'a b,,c' --fd={fd},queues=1";
        vm.devices.push(from_keyvals(spawn, Some("kind")).unwrap());
        let first = vm.resolve().unwrap();
        let mut again: Description = toml::from_str(&toml::to_string(&vm).unwrap()).unwrap();
        assert_eq!(first.devices, again.resolve().unwrap().devices);
    }

    #[test]
    fn a_device_without_a_name_takes_a_free_one() {
        let mut vm = minimal();
        vm.disks.push(from_keyvals("path=a,id=fs1", None).unwrap());
        for id in ["console", "fs", "fs", "block"] {
            let text = format!("vhost-user,id={id},socket=/s");
            vm.devices.push(from_keyvals(&text, Some("kind")).unwrap());
        }
        vm.resolve().unwrap();
        let names: Vec<_> = vm
            .devices
            .iter()
            .filter_map(|raw| raw.name.as_deref())
            .collect();
        assert_eq!(names, ["console1", "fs0", "fs2", "block0"]);
    }

    #[test]
    fn each_bad_value_is_named() {
        let refuse = |change: fn(&mut Description)| {
            let mut vm = minimal();
            change(&mut vm);
            vm.resolve().unwrap_err()
        };
        assert!(refuse(|vm| vm.kernel = None).contains("--kernel"));
        assert!(refuse(|vm| vm.name = Some("a/b".into())).contains("a/b"));
        assert!(refuse(|vm| vm.memory = from_keyvals("16M", Some("size")).ok()).contains("16M"));
        assert!(refuse(|vm| vm.cpus = from_keyvals("0", Some("count")).ok()).contains("1 to 254"));
        assert!(refuse(|vm| vm.cpus = from_keyvals("model=max", None).ok()).contains("max"));
        assert!(refuse(|vm| vm.disks = vec![Disk::default()]).contains("path=FILE"));
        assert!(refuse(|vm| vm.console = Some("tty".into())).contains("both want the terminal"));
        assert!(refuse(|vm| vm.serial = Some("screen".into())).contains("screen"));
        for size in ["0", "100", "65535"] {
            let mut vm = minimal();
            let text = format!("vhost-user,id=fs,socket=/s,queue-size={size}");
            vm.devices.push(from_keyvals(&text, Some("kind")).unwrap());
            let why = vm.resolve().unwrap_err();
            assert!(why.contains("fs0") && why.contains(size), "{why}");
        }
    }
}
