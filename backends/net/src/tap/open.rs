//! How a tap comes to be ours: by its name, or as an inherited descriptor.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::error::{Queues, TapError};
use super::{TUN, Tap, ioctl};
use crate::inherit;
use crate::subnet::Subnet;

/// What the kernel makes a new tap's name from: the first number that is free.
const NEW: &str = "vmtap%d";

/// Longest name of an interface (`IFNAMSIZ` less its end).
const MAX_NAME: usize = 15;

/// How our taps work: whole Ethernet frames, each behind a virtio header.
const MODE: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

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
        Self::attach(name, Queues::One, absent)
    }

    /// Opens the tap called `name` with `count` queues, two at least. One that exists must have been
    /// made for several.
    pub fn open_queues(name: &str, count: u16, absent: IfAbsent) -> Result<Vec<Self>, TapError> {
        let mut taps = Vec::new();
        for n in 0..count {
            let mut tap = Self::attach(name, Queues::Several, absent)?;
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
            .map_err(|e| attach_error(asked, Queues::One, Existing::None, e))?;
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

    fn attach(name: &str, queues: Queues, absent: IfAbsent) -> Result<Self, TapError> {
        let fits = (1..=MAX_NAME).contains(&name.len()) && name != "." && name != "..";
        if !fits
            || !name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'%' | b':'))
        {
            return Err(TapError::Name(name.to_owned()));
        }
        let existing = existing(name, queues)?;
        if existing == Existing::None && absent == IfAbsent::Refuse {
            return Err(TapError::Missing {
                name: name.to_owned(),
                queues,
            });
        }
        let device = open_tun()?;
        // A tap made for several queues takes one only when asked in its own way.
        let made_for = match existing {
            Existing::Tap(flags) => Some(flags & libc::IFF_MULTI_QUEUE),
            Existing::None | Existing::Unknown => None,
        };
        let wanted = match queues {
            Queues::One => 0,
            Queues::Several if made_for == Some(0) => {
                return Err(TapError::OneQueue(name.to_owned()));
            }
            Queues::Several => libc::IFF_MULTI_QUEUE,
        };
        ioctl::attach(device.as_fd(), name, MODE | made_for.unwrap_or(wanted))
            .map_err(|source| attach_error(name, queues, existing, source))?;
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
        .map_err(TapError::device)
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

fn existing(name: &str, queues: Queues) -> Result<Existing, TapError> {
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
        queues,
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

fn attach_error(name: &str, queues: Queues, existing: Existing, source: io::Error) -> TapError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EBUSY) => TapError::Busy(name),
        Some(libc::EPERM) if existing == Existing::None => TapError::NotPermitted {
            name,
            queues,
            source,
        },
        Some(libc::EPERM) => TapError::NotOurs {
            name,
            queues,
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
                existing(&name, Queues::One).unwrap(),
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
        assert_eq!(existing(&name, Queues::One).unwrap(), Existing::None);
    }

    #[test]
    fn a_refusal_tells_the_remedy() {
        let eperm = || io::Error::from_raw_os_error(libc::EPERM);
        let message = attach_error("tap7", Queues::One, Existing::None, eperm()).to_string();
        assert!(
            message.contains("ip tuntap add dev tap7 mode tap"),
            "{message}"
        );
        for existing in [Existing::None, Existing::Tap(0), Existing::Unknown] {
            for queues in [Queues::One, Queues::Several] {
                let error = attach_error("t", queues, existing, eperm());
                let message = error.to_string();
                let several = queues == Queues::Several;
                assert_eq!(message.contains(" multi_queue "), several, "{message}");
                let is_there = matches!(error, TapError::NotOurs { .. });
                assert_eq!(is_there, existing != Existing::None, "{message}");
            }
        }
        let busy = io::Error::from_raw_os_error(libc::EBUSY);
        assert!(matches!(
            attach_error("t", Queues::One, Existing::Tap(0), busy),
            TapError::Busy(_)
        ));
    }
}
