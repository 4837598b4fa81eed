//! How a tap comes to be ours: by its name, or as an inherited descriptor.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::{Tap, ioctl};
use crate::inherit;
use crate::subnet::Subnet;

/// The device taps are made with.
const TUN: &str = "/dev/net/tun";

/// What the kernel makes a new tap's name from: the first number that is free.
const NEW: &str = "vmtap%d";

/// Longest name of an interface (`IFNAMSIZ` less its end).
const MAX_NAME: usize = 15;

/// How our taps work: whole Ethernet frames, each behind a virtio header.
const MODE: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

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
        make("NAME", *several)
    )]
    Kind {
        /// The interface.
        name: String,
        /// What it is.
        what: &'static str,
        /// Several queues are wanted.
        several: bool,
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
        command = make(.0, true)
    )]
    OneQueue(String),
    /// There is none, and nobody has asked for one.
    #[error(
        "Tap '{name}' does not exist: run {}, or have the card make it with create=on (--create)",
        make(name, *several)
    )]
    Missing {
        /// The tap.
        name: String,
        /// Several queues are wanted.
        several: bool,
    },
    /// There is none, and we may not make one.
    #[error(
        "Tap '{name}' does not exist, and making one is not permitted: run {}",
        make(name, *several)
    )]
    NotPermitted {
        /// The tap.
        name: String,
        /// Several queues are wanted.
        several: bool,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is one, and it belongs to someone else.
    #[error(
        "Tap '{name}' exists but this user may not use it: remove it, then run {}",
        make(name, *several)
    )]
    NotOurs {
        /// The tap.
        name: String,
        /// Several queues are wanted.
        several: bool,
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

/// The command that makes a tap we may use, of one queue or for several.
fn make(name: &str, several: bool) -> String {
    let queues = if several { " multi_queue" } else { "" };
    format!(
        "`sudo ip tuntap add dev {name} mode tap{queues} user $USER && sudo ip link set {name} up`"
    )
}

/// What to do about a tap that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfAbsent {
    /// Its name may be misspelt.
    Refuse,
    /// It is made and brought up, where that is permitted, and vanishes when the daemon ends.
    Create,
}

impl Tap {
    /// Opens the tap called `name`.
    pub fn open(name: &str, absent: IfAbsent) -> Result<Self, TapError> {
        Self::attach(name, false, absent)
    }

    /// Opens the tap called `name` with `count` queues, two at least. One that exists must have been
    /// made for several.
    pub fn open_queues(name: &str, count: u16, absent: IfAbsent) -> Result<Vec<Self>, TapError> {
        let mut taps = Vec::new();
        for n in 0..count {
            let mut tap = Self::attach(name, true, absent)?;
            tap.first = n == 0;
            taps.push(tap);
        }
        Ok(taps)
    }

    /// Makes a tap, named by the kernel, with this address on the host's side, and brings it up. It
    /// vanishes when the daemon ends.
    pub fn make(subnet: Subnet) -> Result<Self, TapError> {
        let device = open_tun()?;
        let asked = NEW;
        ioctl::attach(device.as_fd(), asked, MODE)
            .map_err(|e| attach_error(asked, false, false, e))?;
        let failed = |name: &str, what| {
            let name = name.to_owned();
            move |source| TapError::Failed { what, name, source }
        };
        let name = ioctl::interface(device.as_fd())
            .map_err(failed(asked, "find the name of"))?
            .name;
        ioctl::set_address(&name, subnet.address, subnet.mask())
            .map_err(failed(&name, "set the address of"))?;
        ioctl::bring_up(&name).map_err(failed(&name, "bring up"))?;
        Self::set_up(device.into(), name)
    }

    fn attach(name: &str, several: bool, absent: IfAbsent) -> Result<Self, TapError> {
        let fits = (1..=MAX_NAME).contains(&name.len()) && name != "." && name != "..";
        if !fits
            || !name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'%' | b':'))
        {
            return Err(TapError::Name(name.to_owned()));
        }
        let existing = existing(name, several)?;
        if existing == Existing::None && absent == IfAbsent::Refuse {
            return Err(TapError::Missing {
                name: name.to_owned(),
                several,
            });
        }
        let device = open_tun()?;
        // A tap made for several queues takes one only when asked in its own way.
        let made_for = match existing {
            Existing::Tap(flags) => Some(flags & libc::IFF_MULTI_QUEUE),
            Existing::None | Existing::Unknown => None,
        };
        if several && made_for == Some(0) {
            return Err(TapError::OneQueue(name.to_owned()));
        }
        let wanted = if several { libc::IFF_MULTI_QUEUE } else { 0 };
        let queues = made_for.unwrap_or(wanted);
        ioctl::attach(device.as_fd(), name, MODE | queues)
            .map_err(|source| attach_error(name, several, existing != Existing::None, source))?;
        if existing == Existing::None {
            ioctl::bring_up(name).map_err(|source| TapError::Failed {
                what: "bring up",
                name: name.to_owned(),
                source,
            })?;
        }
        Self::set_up(device.into(), name.to_owned())
    }

    /// Takes over inherited descriptors, each attached to a queue of one tap.
    pub fn inherit_queues(fds: &[RawFd]) -> Result<Vec<Self>, TapError> {
        let mut taps = Vec::new();
        for fd in fds {
            let mut tap = Self::inherit(*fd)?;
            tap.first = taps.is_empty();
            taps.push(tap);
        }
        Ok(taps)
    }

    /// Takes over the inherited descriptor `fd`, attached to a tap. Only for a number from the
    /// command line that nothing else in the process uses.
    pub fn inherit(fd: RawFd) -> Result<Self, TapError> {
        let refuse = |source| TapError::Fd { fd, source };
        let fd_owned = inherit::take(fd).map_err(refuse)?;
        let interface = ioctl::interface(fd_owned.as_fd()).map_err(refuse)?;
        if interface.flags & (MODE | libc::IFF_TUN) != MODE {
            return Err(TapError::Mode {
                fd,
                name: interface.name,
            });
        }
        Self::set_up(fd_owned, interface.name)
    }
}

fn open_tun() -> Result<File, TapError> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN)
        .map_err(|source| TapError::Device {
            remedy: device_remedy(&source),
            source,
        })
}

/// The interface of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    /// There is none.
    None,
    /// A tap, with these flags.
    Tap(c_int),
    /// There is one; what it is cannot be read here.
    Unknown,
}

fn existing(name: &str, several: bool) -> Result<Existing, TapError> {
    match if_nametoindex(name) {
        Ok(_) => {}
        Err(Errno::ENODEV | Errno::ENXIO) => return Ok(Existing::None),
        Err(errno) => {
            return Err(TapError::Failed {
                what: "look for",
                name: name.to_owned(),
                source: errno.into(),
            });
        }
    }
    let interface = PathBuf::from("/sys/class/net").join(name);
    if !interface.exists() {
        // A container without /sys, or with that of another network.
        return Ok(Existing::Unknown);
    }
    let kind = |what| TapError::Kind {
        name: name.to_owned(),
        what,
        several,
    };
    let text = std::fs::read_to_string(interface.join("tun_flags"))
        .map_err(|_| kind("another kind of interface"))?;
    let hex = text.trim().trim_start_matches("0x");
    let flags = c_int::from_str_radix(hex, 16).map_err(|_| kind("of an unknown kind"))?;
    if flags & libc::IFF_TAP == 0 {
        return Err(kind("a tun"));
    }
    Ok(Existing::Tap(flags))
}

fn device_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "load the kernel's module with `sudo modprobe tun`"
        }
        Some(libc::EACCES | libc::EPERM) => "give this user read and write permission on it",
        _ => "check that the kernel supports taps",
    }
}

fn attach_error(name: &str, several: bool, exists: bool, source: io::Error) -> TapError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EBUSY) => TapError::Busy(name),
        Some(libc::EPERM) if exists => TapError::NotOurs {
            name,
            several,
            source,
        },
        Some(libc::EPERM) => TapError::NotPermitted {
            name,
            several,
            source,
        },
        _ => TapError::Failed {
            what: "attach to",
            name,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_no_interface_can_have_are_refused() {
        for name in ["", "sixteen-letters-", "a/b", "tap%d", "a b", "..", "a:1"] {
            let opened = Tap::open(name, IfAbsent::Create);
            assert!(matches!(opened, Err(TapError::Name(_))), "{name}");
        }
    }

    #[test]
    fn an_interface_of_another_kind_is_refused() {
        let message = Tap::open("lo", IfAbsent::Create).unwrap_err().to_string();
        assert!(
            message.contains("'lo'") && message.contains("not a tap"),
            "{message}"
        );
    }

    #[test]
    fn a_name_that_nothing_has_is_refused_with_the_remedies() {
        let name = format!("ob{}u", std::process::id());
        for opened in [
            Tap::open(&name, IfAbsent::Refuse).map(drop),
            Tap::open_queues(&name, 2, IfAbsent::Refuse).map(drop),
        ] {
            let message = opened.unwrap_err().to_string();
            for part in [&name, "does not exist", "ip tuntap add", "create=on"] {
                assert!(message.contains(part), "no {part} in {message}");
            }
            assert_eq!(
                existing(&name, false).unwrap(),
                Existing::None,
                "none was made"
            );
        }
    }

    #[test]
    fn a_descriptor_that_is_no_tap_is_refused() {
        use std::os::fd::IntoRawFd;
        let file = File::open("/dev/null").unwrap().into_raw_fd();
        assert!(
            Tap::inherit(file)
                .unwrap_err()
                .to_string()
                .contains("is not a tap")
        );
        assert!(matches!(Tap::inherit(1_000_000), Err(TapError::Fd { .. })));
        assert!(matches!(Tap::inherit(0), Err(TapError::Fd { .. })));
        assert!(matches!(Tap::inherit(-1), Err(TapError::Fd { .. })));
    }

    #[test]
    fn an_inherited_tap_is_the_same_tap() {
        use std::io::Write;
        use std::os::fd::IntoRawFd;
        let name = format!("ob{}i", std::process::id());
        let tap = match Tap::open(&name, IfAbsent::Create) {
            Ok(tap) => tap,
            Err(TapError::Device { .. } | TapError::NotPermitted { .. }) => {
                // Not through the harness, which keeps the words of tests that pass to itself.
                let _ = writeln!(io::stderr(), "SKIPPED: no tap can be made here");
                return;
            }
            Err(other) => panic!("{other}"),
        };
        let second = Tap::open(&name, IfAbsent::Refuse);
        assert!(matches!(second, Err(TapError::Busy(_))));
        let inherited = tap.as_fd().try_clone_to_owned().unwrap().into_raw_fd();
        drop(tap);
        let again = Tap::inherit(inherited).unwrap();
        assert_eq!(again.name(), name);
        assert_ne!(again.able(), 0);
        again.set_offload(again.able()).unwrap();
        drop(again);
        assert_eq!(existing(&name, false).unwrap(), Existing::None);
    }

    #[test]
    fn a_refusal_tells_the_remedy() {
        let eperm = || io::Error::from_raw_os_error(libc::EPERM);
        let message = attach_error("tap7", false, false, eperm()).to_string();
        assert!(
            message.contains("ip tuntap add dev tap7 mode tap"),
            "{message}"
        );
        for exists in [false, true] {
            for several in [false, true] {
                let message = attach_error("t", several, exists, eperm()).to_string();
                assert_eq!(message.contains(" multi_queue "), several, "{message}");
            }
        }
        assert!(matches!(
            attach_error("t", false, true, eperm()),
            TapError::NotOurs { .. }
        ));
        let busy = io::Error::from_raw_os_error(libc::EBUSY);
        assert!(matches!(
            attach_error("t", false, true, busy),
            TapError::Busy(_)
        ));
    }
}
