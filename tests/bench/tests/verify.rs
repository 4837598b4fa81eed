//! A device that loses or mixes up one write in 10,000 is found out, and the fault is named.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::process::Command;

/// What is said of a disk with this fault, and whether it passed.
fn verify(fault: &str, more: &str) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_outboard-bench"))
        .args(["block", "--verify", "--depth", "64", "--seconds", "0.3"])
        .args(more.split_whitespace())
        .arg("--spawn")
        .arg(format!(
            "outboard-bench serve-faulty --size 16M --fault {fault} --every 10000 --socket {{socket}}"
        ))
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), words.into_owned())
}

/// The first pass alone writes 16384 blocks of two sectors: one fault at least.
#[test]
fn each_fault_is_found_and_named() {
    for (fault, name) in [
        ("drop", "dropped write"),
        ("tear", "torn write"),
        ("swap", "swapped writes"),
        ("duplicate", "duplicated write"),
        ("stale", "stale read"),
    ] {
        let (passed, words) = verify(fault, "--size 1k --wait sleep");
        assert!(!passed, "{fault}: {words}");
        assert!(words.contains(&format!(" x {name}\n")), "{fault}: {words}");
        assert_eq!(
            words.matches(" x ").count(),
            1,
            "{fault} is taken for something else too: {words}"
        );
        assert!(
            words.contains("does not keep what is written to it"),
            "{words}"
        );
    }
}

#[test]
fn a_sound_device_passes() {
    for more in [
        "--size 4k",
        "--wait sleep --indirect on --size 64k",
        "--size 512",
    ] {
        let (passed, words) = verify("nothing", &format!("{more} --verify-size 2M"));
        assert!(passed, "{more}: {words}");
        assert!(words.contains(" 0 faults"), "{words}");
    }
}
