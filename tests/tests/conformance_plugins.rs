//! The conformance kit against every virtio plugin of ours, under every host.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use outboard_device::Device;
use outboard_device::abi::host::Plugin;
use outboard_device::driver::connection::{DEFAULT_LIMIT, F_RING_PACKED};
use outboard_device::driver::console::{Port, RX, TX};
use outboard_device::driver::{Driver, DriverError, Options, QueueOptions, Segment};
use outboard_device::testing::{Endpoint, Expected, Probe};
use outboard_tests::echo::{self, converse, listen};
use outboard_tests::hosts::{InProcess, hosted};
use outboard_tests::listening::Listening;
use outboard_tests::plugins;

fn entropy() -> PathBuf {
    plugins::rust("outboard-entropy", "outboard_entropy")
}

fn entropy_expected() -> Expected {
    let check = |written: u32, data: &[u8]| {
        let random = written == 64 && data.iter().any(|byte| *byte != data[0]);
        random
            .then_some(())
            .ok_or_else(|| format!("{written} bytes written"))
    };
    Expected {
        features: F_RING_PACKED,
        config_len: 0,
        queues: 1,
        max_queue_size: 1024,
        running: vec![0],
        probe: Probe {
            queue: 0,
            readable: Vec::new(),
            writable: 64,
            check,
        },
    }
}

static RAMDISK: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let library = plugins::c("cc", "plugins/ramdisk/ramdisk.c", dir.path(), &[]);
    (dir, library)
});

fn ramdisk_expected() -> Expected {
    // A read of a sector that nobody has written.
    let check = |written: u32, data: &[u8]| {
        let right = written == 513 && data.iter().all(|byte| *byte == 0);
        right
            .then_some(())
            .ok_or_else(|| format!("{written} bytes written"))
    };
    let mut readable = vec![0; 16];
    readable[8] = 7;
    Expected {
        features: F_RING_PACKED | 1 << 9,
        config_len: 60,
        queues: 1,
        max_queue_size: 256,
        running: vec![0],
        probe: Probe {
            queue: 0,
            readable,
            writable: 513,
            check,
        },
    }
}

static ECHO: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let library = plugins::c("cc", "plugins/c-echo/echo.c", dir.path(), &[]);
    (dir, library)
});

fn echo_in_process(library: &Path) -> InProcess {
    InProcess {
        library: library.to_owned(),
        device: "echo",
        options: BTreeMap::new(),
        expected: echo::expected(),
    }
}

#[test]
fn the_echo_is_what_was_said() {
    converse(&mut hosted(&ECHO.1, "", echo::expected())).unwrap();
    converse(&mut echo_in_process(&ECHO.1)).unwrap();
}

/// One instance hears something, and another, which has its state, says it. The state.
fn carry_over(from: &mut dyn Endpoint, to: &mut dyn Endpoint) -> Result<Vec<u8>, String> {
    let words = b"what was said before";
    let drive = |endpoint: &mut dyn Endpoint| {
        Driver::new(endpoint.connect().unwrap(), &Options::default()).unwrap()
    };
    let start = |driver: &mut Driver| {
        for queue in [RX, TX] {
            driver.start_queue(queue, &QueueOptions::default()).unwrap();
        }
    };
    let mut driver = drive(from);
    start(&mut driver);
    let window = driver.allocate(64, 64).unwrap();
    window.write(0, words);
    let queue = driver.queue(TX).unwrap();
    let segment = Segment::readable(window.addr(), words.len() as u32);
    queue.submit(&[segment], 0).unwrap();
    queue.wait(DEFAULT_LIMIT).unwrap();
    for queue in [RX, TX] {
        driver.stop_queue(queue).unwrap();
    }
    let state = driver.connection().save().unwrap();
    let mut driver = drive(to);
    let restored = driver.connection().restore(&state);
    restored.map_err(|error| error.to_string())?;
    start(&mut driver);
    let mut port = Port::new(&mut driver).unwrap();
    listen(&mut driver, &mut port, words).map(|()| state)
}

/// From one process to another, into the VMM, and back.
#[test]
fn what_one_echo_has_heard_another_says() {
    let process = || hosted(&ECHO.1, "", echo::expected());
    let state = carry_over(&mut process(), &mut process()).unwrap();
    carry_over(&mut process(), &mut echo_in_process(&ECHO.1)).unwrap();
    carry_over(&mut echo_in_process(&ECHO.1), &mut process()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let twin = echo_twin("memcpy(echo->bytes, data, len)", "(void)data", dir.path());
    let why = carry_over(&mut process(), &mut echo_in_process(&twin)).unwrap_err();
    assert!(why.contains("something else comes back"), "{why}");

    // No echo keeps so much.
    let mut process = process();
    let mut driver = Driver::new(process.connect().unwrap(), &Options::default()).unwrap();
    let longer = [state, vec![0; 1 << 17]].concat();
    let why = driver.connection().restore(&longer).unwrap_err();
    assert!(matches!(why, DriverError::Refused { .. }), "{why:?}");
    let plugin = Plugin::load(&ECHO.1).unwrap();
    let mut device = plugin
        .create(plugin.device(None).unwrap(), &BTreeMap::new())
        .unwrap();
    let why = device.restore(&vec![0; 1 << 17]).unwrap_err().to_string();
    assert!(why.contains("longer than any of this device's"), "{why}");
}

/// The echo with something in its source changed.
fn echo_twin(from: &str, to: &str, dir: &Path) -> PathBuf {
    let source = std::fs::read_to_string(plugins::root().join("plugins/c-echo/echo.c")).unwrap();
    assert!(source.contains(from), "{from}");
    let twin = dir.join("twin.c");
    std::fs::write(&twin, source.replace(from, to)).unwrap();
    plugins::c("cc", twin.to_str().unwrap(), dir, &[])
}

#[test]
fn an_echo_that_forgets_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let twin = echo_twin(
        "echo->bytes + echo->count, base",
        "echo->bytes, base",
        dir.path(),
    );
    let why = converse(&mut echo_in_process(&twin)).unwrap_err();
    assert!(why.contains("something else comes back"), "{why}");
}

mod echo_in_a_process {
    use super::*;
    outboard_device::conformance!(hosted(&ECHO.1, "", echo::expected()));
}

mod echo_in_the_vmm {
    use super::*;
    outboard_device::conformance!(echo_in_process(&ECHO.1));
}

mod entropy_as_a_daemon {
    use super::*;
    fn endpoint() -> Listening {
        let dir = tempfile::tempdir().unwrap();
        Listening::start("outboard-entropy", [""; 0], dir, entropy_expected())
    }
    outboard_device::conformance!(endpoint());
}

mod entropy_in_a_process {
    use super::*;
    outboard_device::conformance!(hosted(&entropy(), "", entropy_expected()));
}

mod entropy_in_the_vmm {
    use super::*;
    fn endpoint() -> InProcess {
        InProcess {
            library: entropy(),
            device: "entropy",
            options: BTreeMap::new(),
            expected: entropy_expected(),
        }
    }
    outboard_device::conformance!(endpoint());
}

mod ramdisk_in_a_process {
    use super::*;
    outboard_device::conformance!(hosted(&RAMDISK.1, "size=1M", ramdisk_expected()));
}

mod ramdisk_in_the_vmm {
    use super::*;
    fn endpoint() -> InProcess {
        InProcess {
            library: RAMDISK.1.clone(),
            device: "ramdisk",
            options: BTreeMap::from([("size".into(), "1M".into())]),
            expected: ramdisk_expected(),
        }
    }
    outboard_device::conformance!(endpoint());
}
