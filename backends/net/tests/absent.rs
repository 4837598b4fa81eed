//! A tap that does not exist: refused, or made where somebody asks for it.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking.

mod host;

use std::path::{Path, PathBuf};

use host::{LIMIT, Tap, can_make_taps};
use outboard_device::driver::{Daemon, Driver, Options};

fn daemon(args: &[&str]) -> (Daemon, std::os::unix::net::UnixStream) {
    let program = Path::new(env!("CARGO_BIN_EXE_outboard-net"));
    Daemon::spawn(program, args).unwrap()
}

/// The interface of this name, as the kernel tells of it.
fn interface(name: &str) -> PathBuf {
    Path::new("/sys/class/net").join(name)
}

#[test]
fn a_name_that_nothing_has_is_refused_in_one_line() {
    // Of several queues too, and whoever may make taps or not.
    for more in [&[][..], &["--queues", "2"]] {
        let name = format!("ob{}a", std::process::id());
        let (mut daemon, _stream) = daemon(&[&["--tap", &name], more].concat());
        assert_eq!(daemon.wait(LIMIT).and_then(|status| status.code()), Some(1));
        let words = daemon.words();
        let remedies = [
            format!("Tap '{name}' does not exist"),
            format!("ip tuntap add dev {name} mode tap"),
            "create=on".into(),
        ];
        for part in &remedies {
            assert!(words.contains(part.as_str()), "no {part} in {words}");
        }
        assert_eq!(words.trim_end().lines().count(), 1, "{words}");
        assert!(!interface(&name).exists(), "it has been made");
    }
}

#[test]
fn a_tap_that_is_asked_for_is_made_and_vanishes_with_the_daemon() {
    if can_make_taps().is_err() {
        // As one who may not: told so, and there is none.
        let (mut daemon, _stream) = daemon(&["--tap", "ob-may-not", "--create"]);
        assert_eq!(daemon.wait(LIMIT).and_then(|status| status.code()), Some(1));
        assert!(!interface("ob-may-not").exists());
        return;
    }
    for (suffix, more) in [("b", &[][..]), ("c", &["--queues", "2"])] {
        let name = format!("ob{}{suffix}", std::process::id());
        let (mut daemon, stream) = daemon(&[&["--tap", &name, "--create"], more].concat());
        // It answers, so it has its tap.
        let driver = Driver::new(stream, &Options::default()).unwrap();
        let flags = std::fs::read_to_string(interface(&name).join("flags")).unwrap();
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap();
        assert_eq!(flags & 1, 1, "IFF_UP of {flags:#x}");
        drop(driver);
        assert_eq!(daemon.wait(LIMIT).and_then(|status| status.code()), Some(0));
        assert!(!interface(&name).exists(), "it is left behind");
    }
}

#[test]
fn a_tap_that_exists_is_taken_as_it_is_and_stays() {
    let Some(tap) = Tap::up(format!("ob{}e", std::process::id()), &[]) else {
        return;
    };
    for more in [&[][..], &["--create"]] {
        let (mut daemon, stream) = daemon(&[&["--tap", &tap.0], more].concat());
        drop(Driver::new(stream, &Options::default()).unwrap());
        assert_eq!(daemon.wait(LIMIT).and_then(|status| status.code()), Some(0));
        assert!(interface(&tap.0).exists(), "it is gone");
    }
}
