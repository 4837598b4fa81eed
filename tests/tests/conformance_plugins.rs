//! The conformance kit against every virtio plugin of ours, under every host.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use outboard::plugin::serve::{Spec, serve};
use outboard_device::testing::{Endpoint, Expected, Outcome, Probe};
use outboard_tests::listening::Listening;
use outboard_tests::plugins;

/// A plugin served in this process, as the VMM does it; loaded anew for each connection.
struct InProcess {
    library: PathBuf,
    device: &'static str,
    options: BTreeMap<String, String>,
    expected: Expected,
}

impl Endpoint for InProcess {
    fn connect(&mut self) -> Outcome<UnixStream> {
        let spec = Spec {
            id: "under-test".into(),
            path: self.library.clone(),
            device: self.device.into(),
            options: self.options.clone(),
        };
        serve(spec, Duration::from_secs(20)).map_err(|error| panic!("{error}"))
    }

    fn expected(&self) -> Expected {
        self.expected.clone()
    }
}

/// The plugin in a process of its own.
fn hosted(library: &Path, keys: &str, expected: Expected) -> Listening {
    let plugin = format!("{},{keys}", library.display());
    let dir = tempfile::tempdir().unwrap();
    Listening::start("outboard-plugin-host", ["--plugin", &plugin], dir, expected)
}

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
        features: 0,
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
        features: 1 << 9,
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
