//! The bare-metal guest on this machine's KVM: every device through virtio-pci with interrupts, on
//! two vCPUs, and what happens when things end.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::guest::{Guest, children, command, command_with, disk, has_kvm, payload, word};
use outboard_tests::kvm_stats;
use outboard_tests::tap::Tap;

fn with_disk(cmdline: &str, path: &Path) -> Command {
    let mut command = command(cmdline);
    command
        .arg("--disk")
        .arg(format!("path={}", path.display()));
    command
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn hello() {
    if has_kvm() {
        Guest::start(command("jobs=hello")).end().passed(&[]);
    }
}

#[test]
fn elf_with_neither_initrd_nor_command_line() {
    if has_kvm() {
        let mut bare = command("");
        bare = {
            let mut plain = Command::new(bare.get_program());
            plain.args(["run", "--log-dir", "off", "--kernel"]);
            plain.arg(payload());
            plain
        };
        let ended = Guest::start(bare).end();
        assert_eq!(
            ended.lines,
            ["hello from the guest", "end"],
            "{}",
            ended.words
        );
        assert_eq!(ended.status.code(), Some(0));
    }
}

#[test]
fn a_disk_holds_what_the_guest_wrote() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path(), "disk.img", 512);
    Guest::start(with_disk("jobs=block,depth1 requests=512", &path))
        .end()
        .passed(&["block", "depth1"]);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 512 * 4096);
    for (block, data) in (0_u64..).zip(bytes.chunks_exact(4096)) {
        for (place, found) in (0_u64..).zip(data.chunks_exact(8)) {
            let found = u64::from_le_bytes(found.try_into().unwrap());
            assert_eq!(found, word(block, place, 1), "block {block}, word {place}");
        }
    }
}

/// Rings and buffers above the hole, in the second of the regions that the daemon maps.
#[test]
fn a_disk_works_in_memory_above_4_gib() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path(), "disk.img", 256);
    let mut vm = command_with("jobs=block,high requests=256", "5G");
    vm.arg("--disk").arg(format!("path={}", path.display()));
    Guest::start(vm).end().passed(&["block", "high"]);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes[255 * 4096..][..8], word(255, 0, 1).to_le_bytes());
}

#[test]
fn two_cpus_drive_a_disk_each() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut vm = with_disk("jobs=smp requests=500", &disk(folder.path(), "a.img", 256));
    vm.args(["--cpus", "2", "--disk"]).arg(format!(
        "path={}",
        disk(folder.path(), "b.img", 256).display()
    ));
    Guest::start(vm)
        .end()
        .passed(&["smp-start", "smp-cpu0", "smp-cpu1"]);
}

#[test]
fn a_device_is_reset_under_load() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    Guest::start(with_disk(
        "jobs=reset requests=200",
        &disk(folder.path(), "a.img", 256),
    ))
    .end()
    .passed(&["reset"]);
}

/// The image grows, its daemon is told, and the guest has an interrupt and the room.
#[test]
fn a_disk_that_grows_is_announced_to_the_guest() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path(), "a.img", 64);
    let mut guest = Guest::start(with_disk("jobs=resize", &path));
    guest.expect("resize the disk now");
    let image = fs::File::options().write(true).open(&path).unwrap();
    image.set_len(192 * 4096).unwrap();
    signal(guest.daemons("outboard-block")[0], Signal::SIGUSR1);
    guest.end().passed(&["resize"]);
    let bytes = fs::read(&path).unwrap();
    let last = bytes.chunks_exact(4096).next_back().unwrap();
    assert_eq!(last[..8], word(191, 0, 5).to_le_bytes());
}

/// The seeds of a campaign: as many as `OUTBOARD_SEEDS` says, from a place that is another each day,
/// or a few that are the same each time.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("OUTBOARD_SEEDS").ok();
    match asked.and_then(|seeds| seeds.parse::<u64>().ok()) {
        Some(count) => {
            let now = std::time::SystemTime::now();
            let days = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 86400;
            days * 100_000..days * 100_000 + count
        }
        None => 1..few + 1,
    }
}

/// Any value to any register, nonsense in the rings, on both CPUs at once: the VM lives, memory outside
/// the driver's buffers is as it was, an orderly driver finds both disks well afterwards, and the log is
/// not flooded.
#[test]
fn a_driver_out_of_its_mind_harms_nobody() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for seed in seeds(2) {
        println!("seed={seed}");
        let mut vm = with_disk(
            &format!("jobs=hostile requests=2500 seed={seed}"),
            &disk(folder.path(), "a.img", 64),
        );
        let (b, console) = (
            disk(folder.path(), "b.img", 64),
            folder.path().join("c.sock"),
        );
        vm.args(["--cpus", "2", "--disk"])
            .arg(format!("path={}", b.display()))
            .arg("--console")
            .arg(format!("socket={}", console.display()));
        let ended = Guest::start(vm).end();
        ended.passed(&["hostile"]);
        let told = ended.words.lines().count();
        assert!(told < 200, "{told} lines: {}", ended.words);
    }
}

/// The twin: one byte that is written where no buffer is.
#[test]
fn a_byte_written_outside_the_buffers_is_found() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut vm = with_disk(
        "jobs=hostile requests=16 strays=1",
        &disk(folder.path(), "a.img", 64),
    );
    vm.args(["--cpus", "2"]);
    let ended = Guest::start(vm).end();
    let found = "FAIL hostile: a device has written outside the driver's buffers";
    assert!(
        ended.lines.iter().any(|line| line == found),
        "{:?}",
        ended.lines
    );
}

/// A device that wrote to memory after a reset would do so to the kernel of the next boot; a vCPU
/// that was reset in the middle of an access would not come up again.
#[test]
fn resets_amid_the_same_madness_start_a_sound_machine() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path(), "a.img", 64);
    for seed in seeds(1) {
        println!("seed={seed}");
        let jobs = format!("jobs=block,hello,storm requests=64 seed={seed}");
        let mut vm = with_disk(&jobs, &path);
        vm.args(["--cpus", "2"]);
        let mut guest = Guest::start(vm);
        for _ in 0..8 {
            guest.expect("ok block");
            guest.expect("hello");
        }
        signal(guest.pid(), Signal::SIGTERM);
        let ended = guest.end();
        assert_eq!(ended.status.code(), Some(143), "{}", ended.words);
    }
}

#[test]
fn a_virtio_console_carries_both_ways() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("console.sock");
    let mut vm = command("jobs=console");
    vm.arg("--console")
        .arg(format!("socket={}", socket.display()));
    let guest = Guest::start(vm);
    wait_until("the console's socket", || socket.exists());
    let mut person = UnixStream::connect(&socket).unwrap();
    let mut lines = BufReader::new(person.try_clone().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    person.write_all(b"all the way and back\n").unwrap();
    line.clear();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "echo: all the way and back\n");
    guest.end().passed(&["console"]);
    assert_eq!(
        lines.read_to_string(&mut line).unwrap(),
        0,
        "the socket outlives the VM"
    );
    assert!(!socket.exists(), "the socket is left behind");
}

#[test]
fn a_card_on_a_tap_sends_and_receives() {
    if !has_kvm() {
        return;
    }
    let Some(tap) = Tap::up("outboard-t0") else {
        return;
    };
    tap.echo();
    let mut vm = command("jobs=net requests=200");
    vm.args(["--net", "tap=outboard-t0"]);
    Guest::start(vm).end().passed(&["net"]);
    drop(tap);
    assert!(
        !Path::new("/sys/class/net/outboard-t0").exists(),
        "the tap is left behind"
    );
}

/// Every frame crosses twice, and comes back as it went or the guest says FAIL.
#[test]
fn two_vms_wired_to_each_other() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cable = folder.path().join("cable.sock");
    let vm = |jobs: &str, end: &str| {
        let mut vm = command(jobs);
        vm.arg("--net").arg(format!("{end}={}", cable.display()));
        vm.current_dir(folder.path());
        Guest::start(vm)
    };
    let mut far = vm("jobs=reflect requests=300", "stream-listen");
    far.expect("reflecting");
    vm("jobs=net requests=300", "stream").end().passed(&["net"]);
    far.end().passed(&["reflect"]);
    assert!(!cable.exists(), "the cable is left behind");
}

/// The guest's driver knows one pair only.
#[test]
fn a_card_of_several_queues_serves_a_driver_of_one() {
    if !has_kvm() {
        return;
    }
    let Some(tap) = Tap::up_for_queues("outboard-t1") else {
        return;
    };
    tap.echo();
    let mut vm = command("jobs=net requests=200");
    vm.args(["--net", "tap=outboard-t1,queues=4"]);
    Guest::start(vm).end().passed(&["net"]);
}

/// Counts from outside: KVM's statistics and /proc, around 10,000 requests.
fn exits_and_switches(extra: &[&str]) -> Option<(u64, u64)> {
    let folder = tempfile::tempdir().unwrap();
    let mut vm = with_disk(
        "jobs=exits requests=10000",
        &disk(folder.path(), "a.img", 1024),
    );
    vm.args(extra);
    let mut guest = Guest::start(vm);
    guest.expect("waiting");
    let pid = guest.pid();
    quiet(pid);
    let Some(before) = kvm_stats::vcpu(pid) else {
        println!("SKIPPED, nothing was tested: KVM's statistics cannot be read here");
        return None;
    };
    let (others_before, vcpus_before) = kvm_stats::switches(pid);
    guest.type_bytes(b"g");
    wait_until("the vCPU's work", || {
        kvm_stats::switches(pid).1 > vcpus_before
    });
    quiet(pid);
    let after = kvm_stats::vcpu(pid)?;
    let (others, _) = kvm_stats::switches(pid);
    guest.type_bytes(b"e");
    guest.end().passed(&["exits"]);
    let exits = ["io_exits", "mmio_exits", "signal_exits"]
        .map(|name| after[name] - before[name])
        .iter()
        .sum();
    Some((exits, others - others_before))
}

/// Waits until the VM has nothing to do: none of its threads has run for half a second.
fn quiet(pid: i32) {
    let mut before = kvm_stats::switches(pid);
    let mut since = Instant::now();
    wait_until("the VM's rest", || {
        let now = kvm_stats::switches(pid);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(500)
    });
}

#[test]
fn the_vmm_takes_no_part_in_the_data_path() {
    if !has_kvm() {
        return;
    }
    if let Some((exits, switches)) = exits_and_switches(&[]) {
        println!("{exits} exits and {switches} context switches over 10,000 requests");
        assert!(exits < 10, "{exits} userspace exits");
        assert!(
            switches < 10,
            "{switches} voluntary context switches of non-vCPU threads"
        );
    }
}

/// The same count has to see the exits when there are some.
#[test]
fn without_ioeventfds_every_kick_exits() {
    if !has_kvm() {
        return;
    }
    if let Some((exits, _)) = exits_and_switches(&["--no-ioeventfd"]) {
        assert!(
            exits >= 10,
            "{exits} userspace exits: the count cannot fail"
        );
    }
}

fn daemon_is_lost(how: Signal) {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::start(with_disk(
        "jobs=needs-reset",
        &disk(folder.path(), "a.img", 64),
    ));
    guest.expect("kill the daemon now");
    let daemons = guest.daemons("outboard-block");
    assert_eq!(daemons.len(), 1);
    signal(daemons[0], how);
    let begin = Instant::now();
    let ended = guest.end();
    ended.passed(&["needs-reset"]);
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "power-off took {:?}",
        begin.elapsed()
    );
    assert!(
        ended.words.contains("disk0"),
        "the loss is not told: {}",
        ended.words
    );
    assert!(
        !Path::new(&format!("/proc/{}", daemons[0])).exists(),
        "the daemon is left behind"
    );
}

#[test]
fn a_killed_daemon_costs_its_device_only() {
    daemon_is_lost(Signal::SIGKILL);
}

#[test]
fn on_exit_stop_ends_the_vm_with_its_own_code() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path(), "a.img", 64);
    let mut vm = command("jobs=needs-reset");
    vm.arg("--disk")
        .arg(format!("path={},on-exit=stop", path.display()));
    let mut guest = Guest::start(vm);
    guest.expect("kill the daemon now");
    signal(guest.daemons("outboard-block")[0], Signal::SIGKILL);
    assert_eq!(guest.end().status.code(), Some(3));
}

#[test]
fn a_frozen_daemon_does_not_hold_the_vm() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::start(with_disk("jobs=stuck", &disk(folder.path(), "a.img", 64)));
    guest.expect("stop the daemon now");
    let daemon = guest.daemons("outboard-block")[0];
    signal(daemon, Signal::SIGSTOP);
    guest.type_bytes(b"g");
    let begin = Instant::now();
    guest.end().passed(&["stuck"]);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "power-off took {:?}",
        begin.elapsed()
    );
    assert!(
        !Path::new(&format!("/proc/{daemon}")).exists(),
        "the daemon is left behind"
    );
}

#[test]
fn a_busy_guest_ends_like_any_other() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::start(with_disk(
        "jobs=hello,spin",
        &disk(folder.path(), "a.img", 64),
    ));
    guest.expect("hello");
    let all = children(guest.pid());
    assert!(all.len() >= 2, "a disk's daemon and a console's: {all:?}");
    signal(guest.pid(), Signal::SIGTERM);
    assert_eq!(guest.end().status.code(), Some(143));
    wait_until("the end of the daemons", || {
        all.iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
}

#[test]
fn nohup_means_what_it_says() {
    if !has_kvm() {
        return;
    }
    let vm = command("jobs=hello,spin");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' HUP; exec \"$0\" \"$@\""])
        .arg(vm.get_program())
        .args(vm.get_args());
    let mut guest = Guest::start(shell);
    guest.expect("hello");
    signal(guest.pid(), Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    signal(guest.pid(), Signal::SIGTERM);
    assert_eq!(guest.end().status.code(), Some(143), "not SIGHUP's 129");
}

#[test]
fn a_reboot_starts_again_in_the_same_process_with_the_same_daemons() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path(), "a.img", 64);
    let mut guest = Guest::start(with_disk("jobs=block,hello,reboot requests=64", &path));
    let mut daemons = Vec::new();
    for _ in 0..3 {
        guest.expect("ok block");
        guest.expect("hello");
        let now = guest.daemons("outboard-block");
        assert!(
            daemons.is_empty() || daemons == now,
            "the daemon is another one"
        );
        daemons = now;
    }
    drop(guest);
    let ended = Guest::start({
        let mut vm = with_disk("jobs=block,reboot requests=64", &path);
        vm.arg("--no-reboot");
        vm
    })
    .end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words);
}
