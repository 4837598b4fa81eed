//! A device written for rust-vmm's `vhost-user-backend`, under every host: the conformance kit, and a talk.
#![allow(clippy::unwrap_used)] // Tests fail by panicking, their helpers too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use outboard_tests::echo::{self, converse};
use outboard_tests::hosts::{self, InProcess};
use outboard_tests::listening::Listening;
use outboard_tests::plugins;

const PACKAGE: &str = "outboard-rust-vmm-echo";

fn library() -> PathBuf {
    plugins::rust(PACKAGE, "outboard_rust_vmm_echo")
}

fn daemon() -> Listening {
    let dir = tempfile::tempdir().unwrap();
    Listening::start(PACKAGE, [""; 0], dir, echo::expected())
}

fn hosted() -> Listening {
    hosts::hosted(&library(), "", echo::expected())
}

fn in_process() -> InProcess {
    InProcess {
        library: library(),
        device: "rust-vmm-echo",
        options: BTreeMap::new(),
        expected: echo::expected(),
    }
}

#[test]
fn it_says_what_it_is_told_under_every_host() {
    converse(&mut daemon()).unwrap();
    converse(&mut hosted()).unwrap();
    converse(&mut in_process()).unwrap();
}

mod as_a_daemon {
    use super::*;
    outboard_device::conformance!(daemon());
}

mod in_a_process {
    use super::*;
    outboard_device::conformance!(hosted());
}

mod in_the_vmm {
    use super::*;
    outboard_device::conformance!(in_process());
}
