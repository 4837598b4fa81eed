//! How each kind of device is hosted: the daemon's arguments, or the socket where one listens.

use std::path::Path;

use super::description::{Disk, RawDevice};
use super::foreign::foreign_host;
use super::{Host, OnOff, Port};

/// virtio-blk's `GET_ID` answers 20 bytes (virtio 1.2, section 5.2.6).
const DISK_SERIAL_MAX: usize = 20;
/// As many as `outboard-block` serves.
const DISK_QUEUES_MAX: u16 = 64;
/// vhost-user numbers the queue of a kick or call in 8 bits.
const SOCKET_QUEUES_MAX: u16 = 256;

pub(super) fn disk_host(disk: &Disk, id: &str) -> Result<Host, String> {
    let path = match (&disk.path, &disk.socket) {
        (Some(path), None) => path,
        (None, Some(socket)) => {
            if let Some(key) = only_with_path(disk) {
                return Err(format!(
                    "disk '{id}': {key} is for the daemon that listens at socket=PATH to know; \
                     leave it out here"
                ));
            }
            check_queues("disk", id, disk.queues, SOCKET_QUEUES_MAX)?;
            return Ok(Host::Socket {
                path: socket.clone(),
            });
        }
        _ => {
            return Err(format!(
                "disk '{id}': give path=FILE or socket=PATH, and not both"
            ));
        }
    };
    let mut args = vec![flag("path", path.display())];
    if disk.readonly.0 {
        args.push("--readonly".into());
    }
    match disk.format.as_deref() {
        None => {}
        Some(format @ ("raw" | "qcow2")) => args.push(flag("format", format)),
        Some(other) => {
            return Err(format!(
                "disk '{id}': format={other} is not known; write raw or qcow2"
            ));
        }
    }
    if disk.backing.0 {
        args.push("--backing".into());
    }
    if disk.direct.0 {
        args.push("--direct".into());
    }
    if disk.discard == Some(OnOff(false)) {
        args.push("--no-discard".into());
    }
    match disk.block_size {
        None => {}
        Some(size @ (512 | 4096)) => args.push(flag("block-size", size)),
        Some(other) => {
            return Err(format!(
                "disk '{id}': block-size={other} is not possible; write 512 or 4096"
            ));
        }
    }
    if let Some(serial) = &disk.serial {
        if serial.len() > DISK_SERIAL_MAX {
            return Err(format!(
                "disk '{id}': serial={serial} is longer than {DISK_SERIAL_MAX} bytes"
            ));
        }
        args.push(flag("serial", serial));
    }
    check_queues("disk", id, disk.queues, DISK_QUEUES_MAX)?;
    if let Some(queues) = disk.queues {
        args.push(flag("queues", queues));
    }
    Ok(Host::Process {
        program: "outboard-block".into(),
        args,
    })
}

/// An argument for a daemon of ours, in one piece: the value may begin with a dash.
pub(super) fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn check_queues(kind: &str, id: &str, queues: Option<u16>, most: u16) -> Result<(), String> {
    match queues {
        Some(queues) if !(1..=most).contains(&queues) => Err(format!(
            "{kind} '{id}': queues={queues} is out of range; choose 1 to {most}"
        )),
        _ => Ok(()),
    }
}

/// A key that only a daemon of ours can be told.
fn only_with_path(disk: &Disk) -> Option<&'static str> {
    let given = [
        ("readonly", disk.readonly.0),
        ("format", disk.format.is_some()),
        ("backing", disk.backing.0),
        ("direct", disk.direct.0),
        ("discard", disk.discard.is_some()),
        ("block-size", disk.block_size.is_some()),
        ("serial", disk.serial.is_some()),
    ];
    given.iter().find(|(_, given)| *given).map(|(key, _)| *key)
}

pub(super) fn raw_host(raw: &RawDevice, id: &str, runtime_dir: &Path) -> Result<Host, String> {
    if raw.kind != "vhost-user" {
        return Err(format!(
            "device '{id}': '{}' is no kind of device; write vhost-user",
            raw.kind
        ));
    }
    check_queues("device", id, raw.queues, SOCKET_QUEUES_MAX)?;
    match (&raw.socket, &raw.spawn) {
        (Some(path), None) => Ok(Host::Socket { path: path.clone() }),
        (None, Some(command)) => foreign_host(command, id, runtime_dir)
            .map_err(|why| format!("device '{id}': spawn: {why}")),
        _ => Err(format!(
            "device '{id}': give socket=PATH, where a daemon listens, or spawn=COMMAND, which \
             starts one, and not both"
        )),
    }
}

/// The virtio console's daemon, told where its own end is and where Ctrl-A c leads. Without a serial
/// port it is the one that sweeps up after a killed VM.
pub(super) fn console_host(port: &Port, serial: &Port, runtime_dir: &Path) -> Host {
    let mut args = console_args(port, "console0", serial, "ttyS0", runtime_dir);
    if *serial == Port::Off {
        args.push(flag("sweep", runtime_dir.display()));
    }
    Host::Process {
        program: "outboard-console".into(),
        args,
    }
}

/// Arguments of `outboard-console` for the end that `port` names; `other` is the VM's second
/// console, which Ctrl-A c reaches when it has a socket.
pub(crate) fn console_args(
    port: &Port,
    name: &str,
    other: &Port,
    other_name: &str,
    runtime_dir: &Path,
) -> Vec<String> {
    let mut args = vec![flag("name", name)];
    match port {
        Port::Tty => args.push("--tty".into()),
        Port::Pty => args.push("--pty".into()),
        Port::Socket(named) => {
            let path = attach_path(port, name, runtime_dir).unwrap_or_default();
            args.push(flag("attach", path));
            if named.is_none() {
                // Also when nobody is left to remove the VM's folder.
                args.push("--own-folder".into());
            }
        }
        Port::File(path) => args.push(flag("file", path.display())),
        Port::Off => args.push("--off".into()),
    }
    if let (Port::Tty, Some(path)) = (port, attach_path(other, other_name, runtime_dir)) {
        args.push(flag("switch-to", path));
    }
    args
}

/// Where people attach to the console called `name`, if it is that kind of port.
fn attach_path(port: &Port, name: &str, runtime_dir: &Path) -> Option<String> {
    let path = match port {
        Port::Socket(Some(path)) => path.clone(),
        Port::Socket(None) => runtime_dir.join(format!("{name}.sock")),
        _ => return None,
    };
    Some(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::from_keyvals;
    use super::*;

    fn disk(keys: &str) -> Result<Vec<String>, String> {
        match disk_host(&from_keyvals(keys, Some("path"))?, "disk0")? {
            Host::Process { args, .. } => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_is_told_what_was_said_of_it() {
        assert_eq!(disk("a.img"), Ok(vec!["--path=a.img".into()]));
        let args =
            disk("a,format=qcow2,backing,direct=on,discard=off,block-size=4096,readonly").unwrap();
        assert_eq!(
            args.join(" "),
            "--path=a --readonly --format=qcow2 --backing --direct --no-discard --block-size=4096"
        );
        assert!(disk("a,format=vmdk").unwrap_err().contains("raw or qcow2"));
        assert!(
            disk("a,block-size=1024")
                .unwrap_err()
                .contains("512 or 4096")
        );
    }

    /// A raw image that has grown: its daemon is found by its command line, see `spawn` for the program.
    #[test]
    fn the_readme_finds_the_daemon_of_a_disk_by_what_it_is_told() {
        let readme = include_str!("../../../README.md");
        let pattern = readme.split_once("pkill -USR1 -f '").unwrap().1;
        let pattern = pattern.split_once('\'').unwrap().0;
        let args = disk("path=data.img,direct=on").unwrap().join(" ");
        let told = format!("outboard-block {args} --fd 40");
        assert!(told.contains(pattern), "'{pattern}' is not in '{told}'");
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        assert_eq!(
            disk("path=-x.img,serial=--readonly").unwrap(),
            ["--path=-x.img", "--serial=--readonly"]
        );
    }

    #[test]
    fn what_a_strangers_daemon_cannot_be_told_is_refused_by_name() {
        for key in [
            "readonly",
            "format=raw",
            "backing",
            "direct",
            "block-size=512",
            "serial=a",
        ] {
            let why = disk(&format!("socket=/s,{key}")).unwrap_err();
            let name = key.split('=').next().unwrap_or_default();
            assert!(
                why.contains(&format!("disk 'disk0': {name} ")) && why.contains("leave it out"),
                "{why}"
            );
        }
    }

    #[test]
    fn a_count_of_queues_that_no_backend_can_have_is_refused() {
        let of_socket = |queues| {
            let disk = from_keyvals(&format!("socket=/s,queues={queues}"), None).unwrap();
            disk_host(&disk, "disk0")
        };
        let of_device = |queues| {
            let keys = format!("vhost-user,id=fs,socket=/s,queues={queues}");
            let raw = from_keyvals(&keys, Some("kind")).unwrap();
            raw_host(&raw, "fs0", Path::new("/run"))
        };
        for queues in [1, 256] {
            assert!(of_socket(queues).is_ok() && of_device(queues).is_ok());
        }
        for queues in [0, 257] {
            for why in [of_socket(queues), of_device(queues)] {
                let why = why.unwrap_err();
                assert!(
                    why.contains(&format!("queues={queues} ")) && why.contains("1 to 256"),
                    "{why}"
                );
            }
        }
    }

    #[test]
    fn the_terminal_can_switch_to_a_socket() {
        let args = console_args(
            &Port::Tty,
            "ttyS0",
            &Port::Socket(None),
            "console0",
            Path::new("/run/o/vm"),
        );
        assert_eq!(
            args,
            [
                "--name=ttyS0",
                "--tty",
                "--switch-to=/run/o/vm/console0.sock"
            ]
        );
    }
}
