//! What a person writes: the TOML file, or the same by flags.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::keyvals::of_keys;
use super::logs::is_off;
use super::shorthand::{self, read_file};
use super::values::{OnOff, Size, number};
use super::{Handed, OnExit, PluginDevice, Port, Subnet, VirtioId};

/// A VM as described, defaults not yet filled in.
///
/// This is the format of `outboard run vm.toml` and of what `--dry-run` prints. An unknown key
/// is an error that names it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Description {
    /// The VM's name; `vm` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The file that this was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// A bzImage or an ELF file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// What goes behind the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline_append: Option<String>,
    /// An ISO image: a disk that the guest may only read, and the kernel by its boot menu where none
    /// is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<PathBuf>,
    /// The entry of the ISO image's boot menu; its default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_entry: Option<String>,
    /// ttyS0: `tty`, `pty`, `socket`, `socket=PATH`, `file=PATH` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The virtio console, in the same words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// The logs of each VM are kept in a folder of its name in this one; `off` keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_dir: Option<PathBuf>,
    /// A reboot of the guest ends the VMM.
    #[serde(default, skip_serializing_if = "OnOff::is_off")]
    pub no_reboot: OnOff,
    /// Notifications leave KVM for the VMM; for tests.
    #[serde(default, skip_serializing_if = "OnOff::is_off")]
    pub no_ioeventfd: OnOff,
    /// The virtual CPUs: a table, or how many.
    #[serde(
        default,
        deserialize_with = "shorthand::cpus",
        skip_serializing_if = "Option::is_none"
    )]
    pub cpus: Option<Cpus>,
    /// Guest memory: a table, or what `--memory` takes.
    #[serde(
        default,
        deserialize_with = "shorthand::memory",
        skip_serializing_if = "Option::is_none"
    )]
    pub memory: Option<Ram>,
    /// Disks, in order: vda, vdb, ...
    #[serde(
        default,
        rename = "disk",
        deserialize_with = "shorthand::disks",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub disks: Vec<Disk>,
    /// Network cards, in order.
    #[serde(
        default,
        rename = "net",
        deserialize_with = "shorthand::nets",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub nets: Vec<Net>,
    /// Devices served by somebody's daemon.
    #[serde(
        default,
        rename = "device",
        deserialize_with = "shorthand::devices",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub devices: Vec<RawDevice>,
    /// Devices of plugins.
    #[serde(
        default,
        rename = "plugin",
        deserialize_with = "shorthand::plugins",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub plugins: Vec<PluginDevice>,
}

/// `--cpus COUNT` and `--cpu MODEL`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cpus {
    /// How many; 1 when absent.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub count: Option<u32>,
    /// `host`, then features to hide (`-smap`) or demand (`+avx2`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// `--memory SIZE[,hugepages=on][,prefault=on]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ram {
    /// How much.
    pub size: Size,
    /// Back it with the host's huge pages.
    #[serde(default, skip_serializing_if = "OnOff::is_off")]
    pub hugepages: OnOff,
    /// Touch every page before the guest starts.
    #[serde(default, skip_serializing_if = "OnOff::is_off")]
    pub prefault: OnOff,
}

impl Default for Ram {
    fn default() -> Self {
        Self {
            size: Size(512 << 20),
            hugepages: OnOff(false),
            prefault: OnOff(false),
        }
    }
}

/// `--disk path=FILE,...`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// An image, raw or qcow2, or a block device, served by `outboard-block`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Instead of `path`: a vhost-user-blk daemon listens here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// `disk0`, `disk1`, ... when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI slot.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub addr: Option<u8>,
    /// The guest may only read.
    #[serde(default, skip_serializing_if = "OnOff::is_off")]
    pub readonly: OnOff,
    /// `raw` or `qcow2`; by the file's suffix when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The files that a qcow2 image lies on top of may be opened.
    #[serde(default, skip_serializing_if = "OnOff::is_off")]
    pub backing: OnOff,
    /// Past the host's page cache.
    #[serde(default, skip_serializing_if = "OnOff::is_off")]
    pub direct: OnOff,
    /// Space that the guest no longer needs is given back; it is unless this is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<OnOff>,
    /// The block size the guest is told to use: 512 or 4096; the medium's own when absent.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub block_size: Option<u32>,
    /// The serial number that the guest reads; 20 bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Request queues; 1 when absent.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub queues: Option<u16>,
    /// The greatest queue size to show to the guest, a power of two; 256 when absent.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_size: Option<u16>,
    /// What the daemon's end means for the VM.
    #[serde(default)]
    pub on_exit: OnExit,
}

/// `--net tap=NAME,...`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Net {
    /// A tap interface, served by `outboard-net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// With `tap`: it is made if it does not exist, and ends with the card. Else that is an error.
    #[serde(default, skip_serializing_if = "OnOff::is_off")]
    pub create: OnOff,
    /// Instead of `tap`: user-mode networking by passt, which needs no privileges.
    #[serde(default, skip_serializing_if = "OnOff::is_off")]
    pub user: OnOff,
    /// Instead of `tap`: descriptors attached to one, a pair of queues each. Only the API takes them.
    #[serde(skip)]
    pub fds: Vec<Handed>,
    /// Instead of `tap`: a new tap, named by the host, which has this address: `192.168.10.10/24`.
    /// It ends with the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Subnet>,
    /// With `user`: ports of the host that lead to the guest, `[udp:][ADDRESS/]HOST:GUEST`, with
    /// `+` between several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
    /// Instead of `tap`: a stream socket, at which another VM's card (or QEMU's) listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<PathBuf>,
    /// Instead of `tap`: the same, and the card listens here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_listen: Option<PathBuf>,
    /// Instead of `tap`: a vhost-user-net daemon listens here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// `net0`, `net1`, ... when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI slot.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub addr: Option<u8>,
    /// With `tap`: pairs of queues, each with a thread of the daemon; 1 when absent.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub queues: Option<u16>,
    /// The greatest queue size to show to the guest, a power of two; 256 when absent.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_size: Option<u16>,
    /// The longest packet, as advice to the guest, in bytes; 1500 when absent.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub mtu: Option<u16>,
    /// The card's address; derived from the VM's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// What the daemon's end means for the VM.
    #[serde(default)]
    pub on_exit: OnExit,
}

/// `--device vhost-user,id=ID,socket=PATH,queues=N`, or `spawn=COMMAND` for the socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawDevice {
    /// `vhost-user`.
    pub kind: String,
    /// The virtio device id, as a number or by name: `26` or `fs`. vhost-user does not tell it.
    pub id: VirtioId,
    /// Where the daemon listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Instead of `socket`: the daemon's command line, split into words as a shell does. `{fd}` in
    /// it is the number of a listening socket that the daemon inherits, `{socket}` the path where
    /// it is to listen, `{stem}` that path for a daemon that appends 0 to it by itself. Relative
    /// paths in it start where outboard was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawn: Option<String>,
    /// What messages call the device; `fs0`, `fs1`, ... when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The most queues to use; as many as the daemon offers when absent.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub queues: Option<u16>,
    /// The greatest queue size to show to the guest, for a daemon that takes no 256: it says so to
    /// nobody, and refuses `SET_VRING_NUM`.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_size: Option<u16>,
    /// Of a file system whose daemon does not tell it: what the guest mounts it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// PCI slot.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub addr: Option<u8>,
    /// What the daemon's end means for the VM.
    #[serde(default)]
    pub on_exit: OnExit,
}

impl Description {
    /// Reads a TOML file. Paths in it are taken from the folder it lies in.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has a key that is not ours; the text names it.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let text = read_file(path)
            .map_err(|why| format!("The VM description {} {why}", path.display()))?;
        let mut description: Self = toml::from_str(&text)
            .map_err(|error| format!("In {}: {}", path.display(), of_keys(&error)))?;
        if let Some(folder) = path.parent() {
            description.place(&|path| folder.join(path));
        }
        if description.name.is_none() {
            description.name = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
        }
        description.file = Some(path.to_owned());
        Ok(description)
    }

    /// Makes every path absolute, so that the description means the same wherever it is kept.
    pub fn make_absolute(&mut self) {
        // Fails for an empty path only, which stays what it is.
        self.place(&|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    }

    /// Replaces every path by what `place` makes of it.
    fn place(&mut self, place: &dyn Fn(&Path) -> PathBuf) {
        self.paths().for_each(|path| *path = place(path));
        for text in self.serial.iter_mut().chain(self.console.iter_mut()) {
            // Whoever resolves the description complains of what is no port.
            match text.parse() {
                Ok(Port::File(path)) => *text = Port::File(place(&path)).to_string(),
                Ok(Port::Socket(Some(path))) => {
                    *text = Port::Socket(Some(place(&path))).to_string();
                }
                _ => {}
            }
        }
    }

    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let boot = self.kernel.iter_mut().chain(self.initrd.iter_mut());
        let boot = boot.chain(self.cdrom.iter_mut());
        let disks = self
            .disks
            .iter_mut()
            .flat_map(|disk| disk.path.iter_mut().chain(disk.socket.iter_mut()));
        let nets = self.nets.iter_mut().flat_map(|net| {
            let streams = net.stream.iter_mut().chain(net.stream_listen.iter_mut());
            streams.chain(net.socket.iter_mut())
        });
        let devices = self.devices.iter_mut();
        let logs = self.log_dir.iter_mut().filter(|dir| !is_off(dir));
        boot.chain(disks)
            .chain(nets)
            .chain(logs)
            .chain(devices.flat_map(|device| device.socket.iter_mut()))
            .chain(self.plugins.iter_mut().map(|plugin| &mut plugin.plugin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_the_same_as_flags() {
        let file: Description = toml::from_str(
            r#"
            kernel = "vmlinuz"
            memory = { size = "1G", prefault = true }
            cpus = { count = 2, model = "host,-smap" }
            [[disk]]
            path = "root.img"
            queues = 2
            "#,
        )
        .unwrap();
        let disk: Disk = super::super::from_keyvals("path=root.img,queues=2", None).unwrap();
        assert_eq!(file.disks, [disk]);
        let again: Description = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
        assert_eq!(file, again);
    }

    #[test]
    fn a_key_takes_what_its_flag_takes() {
        let file: Description = toml::from_str("cpus = 2\nmemory = '64M,hugepages=on'\n").unwrap();
        let table: Description =
            toml::from_str("cpus.count = 2\nmemory = { size = '64M', hugepages = true }").unwrap();
        assert_eq!(file, table);
        let bytes: Description = toml::from_str("memory = 67108864").unwrap();
        assert_eq!(bytes.memory.unwrap().size, Size(64 << 20));
        for (text, parts) in [
            ("memory = '1X'", ["line 1", "is not a size"]),
            ("memory = true", ["line 1", "64M"]),
            ("cpus = 'two'", ["line 1", "'two' is not a number"]),
            ("memory = { size = '64M', huge = 1 }", ["huge", "hugepages"]),
        ] {
            let why = toml::from_str::<Description>(text).unwrap_err().to_string();
            assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        }
    }

    #[test]
    fn a_table_that_is_one_of_several_is_written_twice_in_brackets() {
        for key in ["disk", "net", "device", "plugin"] {
            let text = format!("[{key}]\nid = 'x'\n");
            let why = toml::from_str::<Description>(&text)
                .unwrap_err()
                .to_string();
            assert!(why.contains(&format!("write [[{key}]]")), "{why}");
        }
    }

    #[test]
    fn only_what_can_be_a_description_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Description::from_file(path).unwrap_err();
        assert!(refused(folder.path()).contains("is a directory"));
        assert!(refused(Path::new("/dev/zero")).contains("is no file"));
        let large = folder.path().join("large.toml");
        let file = std::fs::File::create(&large).unwrap();
        file.set_len(100 << 30).unwrap();
        assert!(refused(&large).contains("1 MiB"));
    }

    #[test]
    fn a_name_taken_from_the_file_is_traced_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my vm.toml");
        std::fs::write(&path, "kernel = 'k'").unwrap();
        let mut vm = Description::from_file(&path).unwrap();
        let why = vm.resolve().unwrap_err();
        assert!(
            why.contains("'my vm'") && why.contains("my vm.toml") && why.contains("--name"),
            "{why}"
        );
        vm.name = Some("vm".into());
        vm.resolve().unwrap();
    }

    #[test]
    fn paths_of_every_kind_are_placed() {
        let mut vm = Description {
            kernel: Some("vmlinuz".into()),
            cdrom: Some("x.iso".into()),
            serial: Some("file=log".into()),
            console: Some("socket=/s".into()),
            ..Description::default()
        };
        vm.place(&|path| Path::new("/vm").join(path));
        assert_eq!(vm.kernel.as_deref(), Some(Path::new("/vm/vmlinuz")));
        assert_eq!(vm.cdrom.as_deref(), Some(Path::new("/vm/x.iso")));
        assert_eq!(vm.serial.as_deref(), Some("file=/vm/log"));
        assert_eq!(vm.console.as_deref(), Some("socket=/s"));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let why = toml::from_str::<Description>("kernle = 'x'")
            .unwrap_err()
            .to_string();
        assert!(why.contains("kernle") && why.contains("kernel"), "{why}");
    }
}
