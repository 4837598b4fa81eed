//! Every plugin of `tests/museum`, as it was built once, loads and works on this host.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outboard::plugin::serve::{Spec, serve};
use outboard_device::driver::connection::DEFAULT_LIMIT;
use outboard_device::driver::{Daemon, Driver, Options, QueueOptions, Segment};
use outboard_tests::daemons::daemon;
use outboard_tests::plugins::root;
use sha2::{Digest, Sha256};

/// The names and hashes of all there are.
fn exhibits() -> Vec<(String, String)> {
    let sums = fs::read_to_string(root().join("tests/museum/SHA256SUMS")).unwrap();
    sums.lines()
        .map(|line| {
            let (hash, name) = line.split_once("  ").unwrap();
            (name.to_owned(), hash.to_owned())
        })
        .collect()
}

/// Unpacks one into `dir`, and checks that it is what it was.
fn unpack(name: &str, hash: &str, dir: &Path) -> PathBuf {
    let packed = root().join("tests/museum").join(format!("{name}.xz"));
    let output = Command::new("xz").arg("-dc").arg(packed).output().unwrap();
    let mut found = String::new();
    for byte in Sha256::digest(&output.stdout) {
        let _ = write!(found, "{byte:02x}");
    }
    assert_eq!(found, hash, "{name} is not what it was");
    let path = dir.join(name.replace('/', "-"));
    fs::write(&path, output.stdout).unwrap();
    path
}

/// Sends requests for as many bytes as there is room for.
fn works(name: &str, stream: std::os::unix::net::UnixStream) {
    let mut driver = Driver::new(stream, &Options::default()).unwrap();
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    let block = name.contains("ramdisk");
    let buffer = driver.allocate(1024, 512).unwrap();
    for _ in 0..200 {
        let queue = driver.queue(0).unwrap();
        // A virtio-blk header of zeroes reads the first sector.
        let header = Segment::readable(buffer.addr(), 16);
        let room = Segment::writable(buffer.addr() + 512, if block { 512 } else { 64 });
        let status = Segment::writable(buffer.addr() + 16, 1);
        let chain = [header, room, status];
        let chain = if block { &chain[..] } else { &chain[1..2] };
        queue.add(chain, 0).unwrap();
        queue.flush().unwrap();
        let used = queue.wait(DEFAULT_LIMIT).unwrap();
        assert_eq!(used.written, if block { 513 } else { 64 }, "{name}");
    }
    driver.stop_queue(0).unwrap();
}

#[test]
fn every_plugin_ever_built_loads_and_works() {
    let dir = tempfile::tempdir().unwrap();
    let exhibits = exhibits();
    assert!(exhibits.len() >= 4);
    for (name, hash) in exhibits {
        let path = unpack(&name, &hash, dir.path());
        let device = if name.contains("ramdisk") {
            "ramdisk"
        } else {
            "entropy"
        };
        let spec = Spec {
            id: name.clone(),
            path: path.clone(),
            device: device.into(),
            options: BTreeMap::new(),
        };
        let stream = serve(spec, Duration::from_secs(20));
        works(
            &name,
            stream.unwrap_or_else(|error| panic!("{name}: {error}")).0,
        );
        let plugin = path.display().to_string();
        let program = daemon("outboard-plugin-host");
        let (_host, stream) = Daemon::spawn(&program, ["--plugin", &plugin]).unwrap();
        works(&name, stream);
    }
}

/// The test above would notice.
#[test]
fn one_that_has_changed_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (name, _) = exhibits().remove(0);
    let wrong = "0".repeat(64);
    let noticed = std::panic::catch_unwind(|| unpack(&name, &wrong, dir.path()));
    assert!(noticed.is_err());
}
