//! From Cloud Hypervisor's description of a VM to ours, and back.

use std::path::PathBuf;

use super::config::{
    ConsoleConfig, ConsoleMode, CpuTopology, CpusConfig, MemoryConfig, PayloadConfig, SerialConfig,
    VmConfig,
};
use super::devices::{DiskConfig, NetConfig, Strangers};
use crate::config::{Cpus, Description, OnOff, Port, Ram, Size};

/// What takes a console's bytes and drops them.
const NOWHERE: &str = "/dev/null";

impl VmConfig {
    /// The same VM in our words.
    ///
    /// # Errors
    /// One sentence that names the field, the value and the remedy.
    pub(crate) fn ours(self) -> Result<Description, String> {
        let payload = self.payload.unwrap_or_default();
        let kernel = match (payload.kernel, payload.firmware) {
            (Some(_), Some(_)) => {
                return Err("payload: give kernel or firmware, and not both".into());
            }
            (None, None) => return Err("payload: give kernel, or firmware".into()),
            (Some(file), None) | (None, Some(file)) => file,
        };
        let CpusConfig {
            boot_vcpus,
            max_vcpus,
            topology,
            ..
        } = self.cpus;
        if boot_vcpus != max_vcpus {
            return Err(format!(
                "cpus: boot_vcpus is {boot_vcpus} and max_vcpus {max_vcpus}; none can be added \
                 later: give the same number"
            ));
        }
        if topology.is_some_and(|topology| topology != CpuTopology::of(boot_vcpus)) {
            return Err(format!(
                "cpus: topology is not that of {boot_vcpus} cores of one thread, on one die of one \
                 package; write 1, {boot_vcpus}, 1 and 1, or leave it out"
            ));
        }
        let console = port(
            "console",
            self.console.mode,
            self.console.file,
            self.console.socket,
        )?;
        let console = match (self.console.mode, console) {
            (ConsoleMode::Off, _) => None,
            (_, Port::Off) => Some(Port::File(NOWHERE.into())),
            (_, port) => Some(port),
        };
        let serial = port(
            "serial",
            self.serial.mode,
            self.serial.file,
            self.serial.socket,
        )?;
        let nets = self.net.into_iter().map(|net| net.ours(Vec::new()));
        let disks = self.disks.into_iter().map(DiskConfig::ours);
        let fs = self.fs.into_iter().map(super::devices::FsConfig::ours);
        let others = self.generic_vhost_user.into_iter();
        let devices = fs.chain(others.map(super::devices::GenericVhostUserConfig::ours));
        Ok(Description {
            kernel: Some(kernel),
            initrd: payload.initramfs,
            cmdline: payload.cmdline,
            serial: Some(serial.to_string()),
            console: console.map(|port| port.to_string()),
            cpus: Some(Cpus {
                count: Some(boot_vcpus),
                model: None,
            }),
            memory: Some(Ram {
                size: Size(self.memory.size),
                hugepages: OnOff(self.memory.hugepages),
                prefault: OnOff(self.memory.prefault),
            }),
            disks: disks.collect::<Result<_, _>>()?,
            nets: nets.collect::<Result<_, _>>()?,
            devices: devices.collect::<Result<_, _>>()?,
            ..Description::default()
        })
    }

    /// Our description, as far as there are words for it.
    pub(super) fn of(vm: &Description) -> Self {
        let cpus = vm.cpus.clone().unwrap_or_default();
        let memory = vm.memory.clone().unwrap_or_default();
        let mut config = Self {
            cpus: CpusConfig::of(cpus.count.unwrap_or(1)),
            memory: MemoryConfig {
                size: memory.size.0,
                hugepages: memory.hugepages.0,
                prefault: memory.prefault.0,
                ..MemoryConfig::default()
            },
            payload: Some(PayloadConfig {
                kernel: vm.kernel.clone(),
                initramfs: vm.initrd.clone(),
                cmdline: vm.cmdline.clone(),
                ..PayloadConfig::default()
            }),
            serial: mode(vm.serial.as_deref(), ConsoleMode::Tty, ConsoleMode::Null),
            console: ConsoleConfig::of(mode(
                vm.console.as_deref(),
                ConsoleMode::Off,
                ConsoleMode::Off,
            )),
            ..Self::default()
        };
        config.disks = vm.disks.iter().map(DiskConfig::of).collect();
        config.net = vm.nets.iter().map(NetConfig::of).collect();
        for device in vm.devices.iter().filter_map(Strangers::of) {
            match device {
                Strangers::Fs(fs) => config.fs.push(fs),
                Strangers::Generic(other) => config.generic_vhost_user.push(other),
            }
        }
        config
    }
}

fn port(
    which: &str,
    mode: ConsoleMode,
    file: Option<PathBuf>,
    socket: Option<PathBuf>,
) -> Result<Port, String> {
    let missing = |field| format!("{which}: {field} is missing for this mode");
    match mode {
        ConsoleMode::Off | ConsoleMode::Null => Ok(Port::Off),
        ConsoleMode::Tty => Ok(Port::Tty),
        ConsoleMode::Pty => Ok(Port::Pty),
        ConsoleMode::File => file.map(Port::File).ok_or_else(|| missing("file")),
        ConsoleMode::Socket => {
            let socket = socket.ok_or_else(|| missing("socket"))?;
            Ok(Port::Socket(Some(socket)))
        }
    }
}

/// `absent` and `off`: what a port is that nobody names, and one that is off.
fn mode(text: Option<&str>, absent: ConsoleMode, off: ConsoleMode) -> SerialConfig {
    let of = |mode, file, socket| SerialConfig {
        mode,
        file,
        socket,
        ..SerialConfig::default()
    };
    let Some(text) = text else {
        return of(absent, None, None);
    };
    // What is resolved is a port.
    match text.parse().unwrap_or(Port::Off) {
        Port::Tty => of(ConsoleMode::Tty, None, None),
        Port::Pty => of(ConsoleMode::Pty, None, None),
        Port::Socket(path) => of(ConsoleMode::Socket, None, path),
        Port::File(path) if path.as_os_str() == NOWHERE => of(ConsoleMode::Null, None, None),
        Port::File(path) => of(ConsoleMode::File, Some(path), None),
        Port::Off => of(off, None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Description, String> {
        let mut from = serde_json::Deserializer::from_str(text);
        let config: Result<VmConfig, _> = serde_path_to_error::deserialize(&mut from);
        config.map_err(|error| error.to_string())?.ours()
    }

    #[test]
    fn the_documented_example_is_a_vm() {
        let vm = read(
            r#"{
            "cpus":{"boot_vcpus": 4, "max_vcpus": 4},
            "payload":{"kernel":"/k", "cmdline":"console=ttyS0 console=hvc0 root=/dev/vda1 rw"},
            "disks":[{"path":"/d.raw"}],
            "rng":{"src":"/dev/urandom"},
            "net":[{"ip":"192.168.10.10", "mask":"255.255.255.0", "mac":"12:34:56:78:90:01"}]
            }"#,
        );
        let mut vm = vm.unwrap();
        assert_eq!(vm.nets[0].ip, Some("192.168.10.10/24".parse().unwrap()));
        assert_eq!(
            (vm.serial.as_deref(), vm.console.as_deref()),
            (Some("off"), Some("tty"))
        );
        let config = vm.resolve().unwrap();
        assert_eq!((config.cpus.count, config.devices.len()), (4, 3));
        // What is told of it is again a VM, and the same.
        let told = serde_json::to_string(&VmConfig::of(&vm)).unwrap();
        let mut again = read(&told).unwrap();
        assert_eq!(again.resolve().unwrap().devices, config.devices);
    }

    #[test]
    fn a_tap_is_made_where_there_is_none() {
        let vm = read(r#"{"payload":{"kernel":"k"},"net":[{"tap":"t"},{"ip":"1.2.3.4"}]}"#);
        let made = vm.unwrap().nets.into_iter().map(|net| net.create.0);
        assert_eq!(made.collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn what_is_not_possible_is_refused_by_name() {
        for (fields, parts) in [
            (
                r#""disks":[{"path":"a"},{"path":"b","iommu":true}]"#,
                ["disks[1].iommu", "true"],
            ),
            (r#""balloon":{"size":1}"#, ["balloon", "leave it out"]),
            (
                r#""platform":{"uuid":"x"}"#,
                ["platform.uuid", "leave it out"],
            ),
            (r#""net":[{"tap":"t","fds":[3]}]"#, ["net: fds", "[3]"]),
            (r#""net":[{"tap":"t","num_queues":3}]"#, ["num_queues", "3"]),
            (
                r#""net":[{"ip":"1.2.3.4","mask":"255.0.255.0"}]"#,
                ["mask", "255.0.255.0"],
            ),
            (
                r#""cpus":{"boot_vcpus":1,"max_vcpus":2}"#,
                ["max_vcpus", "2"],
            ),
            (
                r#""cpus":{"boot_vcpus":2,"max_vcpus":2,"topology":{"threads_per_core":2,
                    "cores_per_die":1,"dies_per_package":1,"packages":1}}"#,
                ["topology", "2 cores of one thread"],
            ),
            (r#""serial":{"iommu":true}"#, ["serial.iommu", "true"]),
            (r#""fancy":1"#, ["fancy", "unknown field"]),
            (r#""serial":{"mode":"File"}"#, ["serial", "file is missing"]),
        ] {
            let why = read(&format!(r#"{{"payload":{{"kernel":"k"}},{fields}}}"#)).unwrap_err();
            assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        }
        assert!(read("{}").unwrap_err().contains("payload"));
    }

    #[test]
    fn the_default_written_out_is_accepted() {
        let all = serde_json::to_string(&VmConfig::default()).unwrap();
        let mut all: serde_json::Value = serde_json::from_str(&all).unwrap();
        all["payload"] = serde_json::json!({ "kernel": "k" });
        all["disks"] = serde_json::json!([DiskConfig::default()]);
        all["disks"][0]["path"] = "a".into();
        read(&all.to_string()).unwrap().resolve().unwrap();
    }
}
