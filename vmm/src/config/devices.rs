//! A virtio device as the VMM sees it: a slot, and how its vhost-user stream comes to be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Handed, VirtioId};

/// One virtio device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Unique in the VM: `disk0`, `net0`, `console0`, or as given.
    pub id: String,
    /// What the device is; vhost-user does not tell it.
    pub virtio_id: VirtioId,
    /// PCI device number on bus 0, 1 to 31.
    pub slot: u8,
    /// How the stream comes to be.
    pub host: Host,
    /// The most queues to use; `None` takes as many as the backend offers.
    pub queues: Option<u16>,
    /// The greatest queue size to show to the driver, a power of two up to 32768; `None` shows one
    /// that backends in use take. vhost-user does not tell it.
    pub queue_size: Option<u16>,
    /// What the guest mounts a file system by, where the backend has no config space to tell it.
    pub tag: Option<String>,
    /// What the end of the backend means for the VM.
    pub on_exit: OnExit,
}

/// How a device's vhost-user stream comes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// The VMM spawns a daemon of ours and hands it one end of a socketpair.
    Process {
        /// The daemon's name, looked for where ours are installed: `outboard-block`.
        program: String,
        /// Its arguments, without the one that names the stream.
        args: Vec<String>,
    },
    /// The same, and it inherits descriptors that somebody has handed to the VMM.
    Given {
        /// The daemon's name, as above.
        program: String,
        /// Its arguments, without those that name descriptors.
        args: Vec<String>,
        /// The argument before the number of each: `--tap-fd`.
        flag: String,
        /// The descriptors, in order.
        fds: Vec<Handed>,
    },
    /// The same, and a program of somebody else's behind the daemon, wired to it by a stream.
    Backed {
        /// The daemon's name, as above.
        program: String,
        /// Its arguments, without those that name the streams.
        args: Vec<String>,
        /// What stands behind it.
        behind: Behind,
    },
    /// The VMM spawns somebody's daemon, which takes the connection at a socket of its own.
    Foreign {
        /// The program, looked for as ours are.
        program: String,
        /// Its arguments; `{fd}` in them stands for the number of an inherited socket.
        args: Vec<String>,
        /// Where it is to listen; `None` for one that inherits a socket.
        socket: Option<PathBuf>,
    },
    /// The VMM loads a plugin and serves its device from a thread of its own.
    Plugin {
        /// The shared library.
        path: PathBuf,
        /// The device's name in the plugin.
        device: String,
        /// Its options.
        options: BTreeMap<String, String>,
    },
    /// Somebody's daemon listens at this path.
    Socket {
        /// The path of the Unix socket.
        path: PathBuf,
    },
}

/// A program behind a daemon of ours: passt behind a network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The daemon's argument before its end of the wire: `--stream-fd`.
    pub wire: String,
    /// The program's name, looked for in PATH.
    pub program: String,
    /// What to install where there is none.
    pub package: String,
    /// Its arguments, without the one that names the wire.
    pub args: Vec<String>,
    /// Its argument before its end of the wire: `--fd`.
    pub fd: String,
    /// The ports of the host that it listens on.
    pub listens: Vec<Listen>,
}

/// A port of the host that somebody is to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// UDP's; else TCP's.
    pub udp: bool,
    /// The address; all of them when absent.
    pub address: Option<IpAddr>,
    /// The number.
    pub port: u16,
}

/// What the VM does when a device's backend ends or hangs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExit {
    /// The device asks the driver for a reset and stays dead; everything else goes on.
    #[default]
    Degrade,
    /// The VM ends with its own exit code.
    Stop,
}
