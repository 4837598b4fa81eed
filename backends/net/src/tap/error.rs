//! Why a tap cannot be had, and the remedy.

use std::io;
use std::os::fd::RawFd;

use super::TUN;

/// Why a tap cannot be had. Each names the tap and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface can have this name.
    #[error(
        "Tap name '{0}' is no interface name: use 1 to 15 characters without '/', '%' or spaces"
    )]
    Name(String),
    /// There is an interface of this name, which is no tap.
    #[error(
        "Interface '{name}' is {what}, not a tap: give the name of one, or make one with {}",
        queues.make("NAME")
    )]
    Kind {
        /// The interface.
        name: String,
        /// What it is.
        what: &'static str,
        /// How many are wanted.
        queues: Queues,
    },
    /// The kernel makes no taps, or not for us.
    #[error("Cannot open {TUN}, which taps are made with: {remedy}")]
    Device {
        /// What to do.
        remedy: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Someone else has it.
    #[error("Tap '{0}' is in use by another process: stop that one, or choose another tap")]
    Busy(String),
    /// It was made without the flag for several.
    #[error(
        "Tap '{0}' has one queue only: remove it, then run {command}, or choose one queue",
        command = Queues::Several.make(.0)
    )]
    OneQueue(String),
    /// There is none, and nobody has asked for one.
    #[error(
        "Tap '{name}' does not exist: run {}, or have the card make it with create=on (--create)",
        queues.make(name)
    )]
    Missing {
        /// The tap.
        name: String,
        /// How many are wanted.
        queues: Queues,
    },
    /// There is none, and we may not make one.
    #[error(
        "Tap '{name}' does not exist, and making one is not permitted: run {}",
        queues.make(name)
    )]
    NotPermitted {
        /// The tap.
        name: String,
        /// How many are wanted.
        queues: Queues,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is one, and it belongs to someone else.
    #[error(
        "Tap '{name}' exists but this user may not use it: remove it, then run {}",
        queues.make(name)
    )]
    NotOurs {
        /// The tap.
        name: String,
        /// How many are wanted.
        queues: Queues,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Any other failure.
    #[error("Cannot {what} tap '{name}'")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// The tap.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The number names nothing, or no tap.
    #[error(
        "File descriptor {fd} is not a tap: pass one that is attached to a tap with IFF_TAP, \
         IFF_NO_PI and IFF_VNET_HDR"
    )]
    Fd {
        /// The number.
        fd: RawFd,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The descriptor's tap works in another way.
    #[error(
        "Tap '{name}' on file descriptor {fd} lacks IFF_NO_PI or IFF_VNET_HDR, or is a tun: attach \
         it with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR"
    )]
    Mode {
        /// The number.
        fd: RawFd,
        /// The tap.
        name: String,
    },
}

/// How many queues a tap is wanted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One.
    One,
    /// Two or more.
    Several,
}

impl Queues {
    /// The command that makes such a tap, which we may use.
    fn make(self, name: &str) -> String {
        let queues = match self {
            Self::One => "",
            Self::Several => " multi_queue",
        };
        format!(
            "`sudo ip tuntap add dev {name} mode tap{queues} user $USER && sudo ip link set {name} up`"
        )
    }
}

impl TapError {
    /// The device that taps are made with does not open.
    pub(super) fn device(source: io::Error) -> Self {
        let remedy = match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                "load the kernel's module with `sudo modprobe tun`"
            }
            Some(libc::EACCES | libc::EPERM) => "give this user read and write permission on it",
            _ => "check that the kernel supports taps",
        };
        Self::Device { remedy, source }
    }
}
