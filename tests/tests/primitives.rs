//! `outboard-bench primitives`: the bare-metal guest times what leaves it, on this machine's KVM.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::process::Command;

use outboard_tests::daemons::daemon;
use outboard_tests::guest::has_kvm;

#[test]
fn exits_kicks_and_interrupts_have_a_price() {
    if !has_kvm() {
        return;
    }
    daemon("outboard");
    let output = Command::new(daemon("outboard-bench"))
        .args(["primitives", "--seconds", "0.05", "--warmup", "0"])
        .args(["--requests", "20"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}{errors}");
    for primitive in [
        "eventfd round trip",
        "memory copy 4k",
        "guest: exit by a port written",
        "guest: exit by a register read",
        "guest: kick by ioeventfd",
        "guest: request, halted until its interrupt",
    ] {
        let line = words.lines().find(|line| line.starts_with(primitive));
        let figures = line.and_then(|line| line[primitive.len()..].split_whitespace().next());
        assert!(
            figures.is_some_and(|micros| micros != "0"),
            "{primitive}: {words}"
        );
    }
}
