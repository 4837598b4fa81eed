//! Plugins as a person meets them: what does not load says why, a file may change, faults cost one device.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard::plugin::serve::{Spec, serve};
use outboard_device::abi::host::Plugin;
use outboard_device::driver::{Daemon, Driver, Options, QueueOptions, Segment};
use outboard_tests::daemons::daemon;
use outboard_tests::plugins;

const FAULTY: &str = "tests/plugins/faulty.c";
/// Longer than a call into a plugin may take.
const LATE: Duration = Duration::from_secs(20);
/// `DEVICE_NEEDS_RESET` (virtio 1.2, section 2.1).
const NEEDS_RESET: u8 = 64;

/// What `outboard plugin inspect` says of a file, and whether it was content.
fn inspect(file: &Path) -> (bool, String) {
    let output = Command::new(daemon("outboard"))
        .args(["plugin", "inspect"])
        .arg(file)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn inspect_lists_devices_and_options() {
    let dir = tempfile::tempdir().unwrap();
    let ramdisk = plugins::c("cc", "plugins/ramdisk/ramdisk.c", dir.path(), &[]);
    let (fine, said) = inspect(&ramdisk);
    assert!(fine, "{said}");
    for words in [
        "ramdisk 1.0.0, for version 1.0 of the plugin ABI; it loads here",
        "ramdisk: A disk in memory, gone with the VM (virtio device 2; host=process or vmm)",
        "size=SIZE",
        "[default: 16M]",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
}

#[test]
fn what_does_not_load_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = |flags: &[&str]| plugins::c("cc", FAULTY, dir.path(), flags);
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut arm = fs::read(faulty(&[])).unwrap();
    arm[18] = 183;
    let cut = fs::read(faulty(&[])).unwrap()[..5000].to_vec();
    let cases: [(PathBuf, &str); 14] = [
        ("/no/such/file.so".into(), "cannot be read: No such file"),
        ("/dev".into(), "no regular file"),
        (
            write("script", b"#!/bin/sh\n"),
            "is not an ELF shared library",
        ),
        (
            daemon("outboard-plugin-host"),
            "exports no outboard_plugin_entry_v1",
        ),
        (write("arm.so", &arm), "is for another machine (aarch64)"),
        (write("cut.so", &cut), "it is cut off"),
        (
            faulty(&["-DNO_ENTRY"]),
            "exports no outboard_plugin_entry_v1",
        ),
        (
            faulty(&["-DMAGIC=1"]),
            "has a table with the magic 0x00000001",
        ),
        (faulty(&["-DMAJOR=2"]), "is for version 2 of the plugin ABI"),
        (faulty(&["-DSIZE=64"]), "says it is 64 bytes"),
        (
            faulty(&["-DREQUIRED=7"]),
            "needs version 1.7 of the plugin ABI",
        ),
        (faulty(&["-DREFUSES"]), "this machine has no wheels"),
        (
            faulty(&["-DCRASHES"]),
            "ends the process it is loaded into (signal: 6",
        ),
        (
            faulty(&["-DNEEDS_LIBRARY"]),
            "undefined symbol: no_such_function",
        ),
    ];
    for (path, words) in cases {
        let (fine, said) = inspect(&path);
        assert!(!fine, "{words}: {said}");
        assert!(said.contains(words), "{words} in {said}");
        assert!(said.contains(&path.display().to_string()), "{said}");
    }
}

#[test]
fn a_helper_that_a_plugin_starts_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [&["-DFORKS"][..], &["-DFORKS", "-DDETACHED"]] {
        let plugin = plugins::c("cc", FAULTY, dir.path(), flags);
        let begin = Instant::now();
        let (fine, said) = inspect(&plugin);
        assert!(fine && said.contains("it loads here"), "{flags:?}: {said}");
        // The helper lives for a minute.
        assert!(begin.elapsed() < Duration::from_secs(20), "{flags:?}");
    }
}

#[test]
fn a_plugin_that_is_refused_costs_its_memory_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut without = fs::read(plugins::c("cc", FAULTY, dir.path(), &["-DNO_ENTRY"])).unwrap();
    // Without section headers only the loader knows of no entry: e_shoff, e_shnum (ELF-64).
    without[40..48].fill(0);
    without[60..62].fill(0);
    let faulty = |flag: &str| fs::read(plugins::c("cc", FAULTY, dir.path(), &[flag])).unwrap();
    let cases = [
        ("costly-entry", without, "exports no"),
        ("costly-magic", faulty("-DMAGIC=1"), "the magic 0x00000001"),
        ("costly-init", faulty("-DREFUSES"), "no wheels"),
        ("costly-link", faulty("-DNEEDS_LIBRARY"), "no_such_function"),
    ];
    for (name, bytes, words) in cases {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        for _ in 0..50 {
            let refused = Plugin::load(&path).unwrap_err().to_string();
            assert!(refused.contains(words), "{name}: {refused}");
        }
        let fds = fs::read_dir("/proc/self/fd").unwrap();
        let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        let copies = links.filter(|link| link.display().to_string().contains(name));
        assert!(copies.count() <= 1, "{name}");
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        // The parts of one library.
        assert!(maps.matches(name).count() < 10, "{name}: {maps}");
    }
}

#[test]
fn a_plugin_of_a_later_minor_version_loads_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (fine, said) = inspect(&plugins::c("cc", FAULTY, dir.path(), &["-DLATER"]));
    assert!(
        fine && said.contains("for version 1.1 of the plugin ABI"),
        "{said}"
    );
    assert!(
        said.contains("registers: Has a fault, in registers (registers; host=vmm)"),
        "{said}"
    );
}

/// A device of a plugin in this process.
fn in_process(
    library: &Path,
    device: &str,
    options: &[(&str, &str)],
) -> Result<UnixStream, String> {
    let spec = Spec {
        id: "under-test".into(),
        path: library.to_owned(),
        device: device.into(),
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
    };
    let served = serve(spec, LATE).map_err(|error| error.to_string());
    served.map(|(stream, _)| stream)
}

/// Sends a request with room for 16 bytes; the driver, and what came back if anything did.
fn ask(stream: UnixStream, limit: Duration) -> (Driver, Option<Vec<u8>>) {
    let mut driver = Driver::new(stream, &Options::default()).unwrap();
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    driver.connection().set_status(0xf).unwrap();
    let buffer = driver.allocate(16, 16).unwrap();
    let queue = driver.queue(0).unwrap();
    queue
        .add(&[Segment::writable(buffer.addr(), 16)], 0)
        .unwrap();
    queue.flush().unwrap();
    let used = queue.wait(limit).ok();
    let answer = used.map(|_| {
        let mut bytes = vec![0; 16];
        buffer.read(0, &mut bytes);
        bytes
    });
    (driver, answer)
}

#[test]
fn a_replaced_file_is_loaded_anew_and_touches_nothing_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let build = |flags: &[&str]| plugins::c("cc", FAULTY, dir.path(), flags);
    let (first, second) = (build(&[]), build(&["-DREFUSES"]));
    let path = dir.path().join("plugin.so");
    fs::copy(&first, &path).unwrap();
    let stream = in_process(&path, "faulty", &[]).unwrap();
    // Overwritten in place, which would crash whoever has the file mapped.
    fs::copy(&second, &path).unwrap();
    let why = in_process(&path, "faulty", &[]).unwrap_err();
    assert!(why.contains("no wheels"), "{why}");
    fs::write(&path, b"").unwrap();
    let (_driver, answer) = ask(stream, LATE);
    assert_eq!(answer.as_deref(), Some(&[b'A'; 16][..]));
    fs::remove_file(&path).unwrap();
    assert!(
        in_process(&path, "faulty", &[])
            .unwrap_err()
            .contains("No such file")
    );
    fs::copy(&first, &path).unwrap();
    in_process(&path, "faulty", &[]).unwrap();
}

#[test]
fn what_cannot_be_made_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = plugins::c("cc", FAULTY, dir.path(), &[]);
    for (fault, words) in [
        ("create-error", "cannot make the device: not today"),
        ("describe-error", "it does not know itself"),
        ("no-queues", "has 0 queues in 0 groups"),
        ("odd-rings", "has rings of 1000"),
        ("huge-config", "bytes of configuration space"),
    ] {
        let why = in_process(&faulty, "faulty", &[("fault", fault)]).unwrap_err();
        assert!(why.contains(words), "{fault}: {why}");
    }
    let why = in_process(&faulty, "faulty", &[("colour", "red")]).unwrap_err();
    assert!(
        why.contains("it has no option 'colour'; it has fault"),
        "{why}"
    );
    let why = in_process(&faulty, "wheel", &[]).unwrap_err();
    assert!(
        why.contains("has no device 'wheel'; it has faulty, registers, disk"),
        "{why}"
    );
}

/// Waits for the device to ask for a reset; false when it does not.
fn needs_reset(driver: &mut Driver, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if driver.connection().status().unwrap() & NEEDS_RESET != 0 {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Faults of a worker: each fails its device, for a reason that is logged, and a reset brings it back.
#[test]
fn a_worker_with_a_fault_fails_its_own_device() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = plugins::c("cc", FAULTY, dir.path(), &[]);
    for (fault, words) in [
        ("error", "the wheels came off"),
        ("silent-error", "returned the error -77 and no reason"),
        ("nonsense", "returned 5, which means nothing"),
        ("twice", "completes a request it does not hold"),
        ("made-up", "completes a request it does not hold"),
        ("too-much", "wrote 17 bytes to a request with room for 16"),
        ("foreign-queue", "takes from queue 9 of its group"),
        ("failed", "it says so itself"),
    ] {
        let plugin = format!("{},device=faulty,fault={fault}", faulty.display());
        let program = daemon("outboard-plugin-host");
        let (mut host, stream) = Daemon::spawn(&program, ["--plugin", &plugin]).unwrap();
        let (mut driver, _) = ask(stream, Duration::from_millis(100));
        assert!(needs_reset(&mut driver, LATE), "{fault}: {}", host.words());
        // The status is read by another thread than the one that tells why.
        let end = Instant::now() + LATE;
        while !host.words().contains(words) {
            assert!(Instant::now() < end, "{fault}: {}", host.words());
            std::thread::sleep(Duration::from_millis(5));
        }
        driver.reset().unwrap();
        assert_eq!(driver.connection().status().unwrap() & NEEDS_RESET, 0);
        assert!(host.is_alive());
    }
    // Without a fault nothing of the kind happens.
    let (mut driver, answer) = ask(in_process(&faulty, "faulty", &[]).unwrap(), LATE);
    assert_eq!(answer.as_deref(), Some(&[b'A'; 16][..]));
    assert!(!needs_reset(&mut driver, Duration::from_millis(200)));
}

#[test]
fn a_request_that_is_never_completed_is_found_when_the_queue_stops() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = plugins::c("cc", FAULTY, dir.path(), &[]);
    let plugin = format!("{},device=faulty,fault=never", faulty.display());
    let (host, stream) =
        Daemon::spawn(&daemon("outboard-plugin-host"), ["--plugin", &plugin]).unwrap();
    let (mut driver, answer) = ask(stream, Duration::from_millis(100));
    assert_eq!(answer, None);
    driver.stop_queue(0).unwrap();
    let words = host.words();
    assert!(words.contains("still holds 1 request(s)"), "{words}");
}

#[test]
fn a_call_that_never_returns_fails_the_device_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = plugins::c("cc", FAULTY, dir.path(), &[]);
    let stream = in_process(&faulty, "faulty", &[("fault", "hang")]).unwrap();
    let begin = Instant::now();
    let (mut driver, _) = ask(stream, Duration::from_millis(100));
    assert!(needs_reset(&mut driver, LATE));
    assert!(begin.elapsed() >= outboard_device::abi::host::CALL_LIMIT);
}

#[test]
fn a_crash_costs_the_process_it_happens_in() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = plugins::c("cc", FAULTY, dir.path(), &[]);
    let plugin = format!("{},device=faulty,fault=segv", faulty.display());
    let (mut host, stream) =
        Daemon::spawn(&daemon("outboard-plugin-host"), ["--plugin", &plugin]).unwrap();
    let mut driver = Driver::new(stream, &Options::default()).unwrap();
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    let buffer = driver.allocate(16, 16).unwrap();
    let queue = driver.queue(0).unwrap();
    queue
        .add(&[Segment::writable(buffer.addr(), 16)], 0)
        .unwrap();
    queue.flush().unwrap();
    assert!(host.wait(LATE).is_some(), "{}", host.words());
}

/// Threads that a plugin starts, and the host's own for it, leave signals to the daemon.
#[test]
fn the_host_of_a_plugin_ends_well_when_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = plugins::c("cc", FAULTY, dir.path(), &[]);
    let (plugin, socket) = (
        format!("{},device=faulty", faulty.display()),
        dir.path().join("socket"),
    );
    let arguments = ["--plugin", &plugin, "--socket", socket.to_str().unwrap()];
    let mut host = Daemon::listen(&daemon("outboard-plugin-host"), arguments).unwrap();
    let end = Instant::now() + LATE;
    while !socket.exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(host.id().cast_signed()), Signal::SIGTERM).unwrap();
    let status = host.wait(LATE).unwrap();
    assert!(status.success() && !socket.exists(), "{status}");
}

#[test]
fn registers_are_refused_in_another_process_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = plugins::c("cc", FAULTY, dir.path(), &[]);
    let plugin = format!("{},device=registers", faulty.display());
    let output = Command::new(daemon("outboard-plugin-host"))
        .args(["--plugin", &plugin, "--fd", "0"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("which vhost-user cannot carry"),
        "{said}"
    );
}
