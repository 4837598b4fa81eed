//! A running VM, managed by its name from other processes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use outboard_tests::daemons::daemon;
use outboard_tests::guest::{Guest, children, command, disk, has_kvm};
use outboard_tests::plugins;
use outboard_tests::traces::Home;
use outboard_tests::verbs::{info, refused, succeed, verb};
use serde_json::Value;

/// A VM called `name` whose guest plugs disks, with `disk0` of its own.
fn plugging(home: &Home, name: &str, cycles: u32) -> Guest {
    disk(home.path(), "disk.img", 64);
    let mut vm = command(&format!("jobs=plug cycles={cycles}"));
    vm.args(["--name", name, "--disk", "path=disk.img"]);
    home.adopt(&mut vm);
    let mut guest = Guest::start(vm);
    guest.expect("ready for devices");
    guest
}

#[test]
fn a_vm_is_listed_suspended_resumed_and_given_a_disk_that_it_uses() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    assert!(succeed(&home, &["list"]).lines().count() <= 2);
    assert!(refused(&home, &["suspend", "web"]).contains("No VM called 'web'"));
    let mut guest = plugging(&home, "web", 2);
    let listed = succeed(&home, &["list"]);
    assert!(listed.contains("web") && listed.contains("running") && listed.contains("disk0"));

    succeed(&home, &["suspend", "web"]);
    assert_eq!(info(&home, "web")["state"], "paused");
    assert!(refused(&home, &["suspend", "web"]).contains("paused"));
    assert_eq!(
        busy(guest.pid(), Duration::from_millis(300)),
        0,
        "ticks of CPU"
    );
    // A reset does not wake it.
    succeed(&home, &["reboot", "web"]);
    assert_eq!(info(&home, "web")["state"], "paused");
    succeed(&home, &["resume", "web"]);
    guest.expect("ready for devices");
    assert!(refused(&home, &["resume", "web"]).contains("running"));

    disk(home.path(), "more.img", 16);
    for _ in 0..2 {
        // Its name is free again as soon as it is gone.
        let said = succeed(&home, &["attach", "web", "--disk", "path=more.img,id=more"]);
        assert_eq!(said, "more is at 0000:00:09.0\n");
        guest.expect("slot 9 works");
        let again = refused(&home, &["attach", "web", "--disk", "path=more.img,id=more"]);
        assert!(again.contains("'more'"), "{again}");
        assert!(refused(&home, &["detach", "web", "other"]).contains("disk0, more"));
        let there = &info(&home, "web")["devices"][1];
        assert_eq!(
            (&there["id"], &there["kind"]),
            (&"more".into(), &"block".into())
        );
        // Without waiting: the guest ends with the last one.
        succeed(&home, &["detach", "web", "more", "--no-wait"]);
    }
    guest.end().passed(&["plug"]);
    home.assert_left_clean();
}

/// The guest's clocks go on while it does not: they are those of the host.
#[test]
fn a_vm_that_was_suspended_has_its_clocks_right() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let mut vm = command("jobs=clock");
    vm.args(["--name", "web"]);
    home.adopt(&mut vm);
    let mut guest = Guest::start(vm);
    guest.expect("ask for the time");
    // The guest's counter, and our time before and after.
    let epoch = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap().as_secs()
    };
    let mut ask = || {
        let (begin, from) = (epoch(), Instant::now());
        guest.type_bytes(b"?");
        let line = guest.expect("time ");
        let (_, told) = line.split_once("time ").unwrap();
        let (seconds, counter) = told.split_once(' ').unwrap();
        let (seconds, counter): (u64, f64) = (seconds.parse().unwrap(), counter.parse().unwrap());
        let (end, until) = (epoch(), Instant::now());
        // The guest looked at its clock in between.
        let ahead = (seconds + 86_400 + 5 - begin % 86_400) % 86_400;
        assert!(
            ahead <= 5 + end - begin + 1,
            "the guest's clock says {seconds}, ours {}",
            begin % 86_400
        );
        (counter, from, until)
    };
    // The least and the most it can be, for each moment is known to lie between two.
    let rate = |from: (f64, Instant, Instant), to: (f64, Instant, Instant)| {
        let counted = to.0 - from.0;
        let (most, least) = (to.2 - from.1, to.1 - from.2);
        (counted / most.as_secs_f64(), counted / least.as_secs_f64())
    };
    let begun = ask();
    std::thread::sleep(Duration::from_secs(1));
    let running = ask();
    succeed(&home, &["suspend", "web"]);
    std::thread::sleep(Duration::from_secs(8));
    succeed(&home, &["resume", "web"]);
    let resumed = ask();
    let (before, after) = (rate(begun, running), rate(running, resumed));
    assert!(
        after.0 <= before.1 && before.0 <= after.1,
        "{before:?} a second, then {after:?}"
    );
    succeed(&home, &["destroy", "web"]);
    assert_eq!(guest.end().status.code(), Some(0));
    home.assert_left_clean();
}

#[test]
fn a_guest_that_does_not_let_go_is_waited_for_in_words() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    assert_eq!(succeed(&home, &["top", "--once"]), "No VM runs\n");
    disk(home.path(), "disk.img", 16);
    let mut vm = command("jobs=hello,spin");
    vm.args(["--name", "web", "--disk", "path=disk.img"]);
    home.adopt(&mut vm);
    let mut guest = Guest::start(vm);
    guest.expect("hello");
    let mut detach = verb(&home, &["detach", "web", "disk0"]);
    let mut detach = detach.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let words = detach.stderr.take().unwrap();
    BufReader::new(words).read_line(&mut said).unwrap();
    for part in ["let go of 'disk0', 60 s at most", "the request stands"] {
        assert!(said.contains(part), "{said}");
    }
    detach.kill().unwrap();
    detach.wait().unwrap();
    assert_eq!(info(&home, "web")["devices"][0]["id"], "disk0", "it stays");
    // It is reset: the device goes, as was asked.
    succeed(&home, &["reboot", "web"]);
    let gone = || info(&home, "web")["devices"].as_array().unwrap().is_empty();
    let end = Instant::now() + Duration::from_secs(20);
    while !gone() {
        assert!(Instant::now() < end, "{}", info(&home, "web"));
        std::thread::sleep(Duration::from_millis(20));
    }
    succeed(&home, &["destroy", "web"]);
    guest.end();
    home.assert_left_clean();
}

#[test]
fn what_cannot_be_plugged_in_says_why_and_leaves_nothing() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let guest = plugging(&home, "web", 1);
    let before = Held::of(guest.pid());
    for (keys, why) in [
        ("path=none.img", "none.img"),
        ("path=disk.img", "disk0 and disk1 are both "),
        ("path=disk.img,addr=8", "taken by 'disk0'"),
        ("path=disk.img,id=disk0", "'disk0'"),
        ("socket=nobody.sock", "nobody.sock"),
    ] {
        let said = refused(&home, &["attach", "web", "--disk", keys]);
        assert!(said.contains(why), "{said}");
    }
    settle(guest.pid(), &before);
    succeed(&home, &["destroy", "web"]);
    assert_eq!(guest.end().status.code(), Some(0));
    assert!(refused(&home, &["destroy", "web"]).contains("No VM"));
    home.assert_left_clean();
}

#[test]
fn a_vm_is_defined_started_in_the_background_and_destroyed() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    disk(home.path(), "disk.img", 64);
    let mut dry = command("jobs=plug cycles=1");
    dry.args(["--disk", "path=disk.img", "--dry-run"]);
    home.adopt(&mut dry);
    fs::write(home.path().join("web.toml"), dry.output().unwrap().stdout).unwrap();

    assert!(refused(&home, &["start", "web"]).contains("outboard define"));
    // Nobody has named it: it is its file's.
    assert_eq!(succeed(&home, &["define", "web.toml"]), "web is defined\n");
    assert!(refused(&home, &["define", "web.toml"]).contains("already"));
    assert!(succeed(&home, &["list", "--all"]).contains("never started"));
    assert!(succeed(&home, &["show", "web"]).contains("disk.img"));

    for killed in [false, true] {
        if killed {
            let told = succeed(&home, &["start", "web", "--output", "json"]);
            let told: Value = serde_json::from_str(&told).unwrap();
            assert_eq!(told["pid"], info(&home, "web")["pid"]);
        } else {
            let said = succeed(&home, &["start", "web"]);
            assert!(said.starts_with("web runs as process"), "{said}");
        }
        assert!(refused(&home, &["start", "web"]).contains("runs already"));
        assert_eq!(info(&home, "web")["consoles"][0]["port"], "ttyS0");
        let all = succeed(&home, &["list", "--all"]);
        assert!(
            all.contains("running") && !all.contains("shut off"),
            "{all}"
        );
        if killed {
            let pid = info(&home, "web")["pid"].as_i64().unwrap();
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        } else {
            succeed(&home, &["destroy", "web"]);
        }
        home.assert_left_clean();
        let all = succeed(&home, &["list", "--all"]);
        let how = if killed {
            "crashed: it was killed"
        } else {
            "destroyed"
        };
        assert!(all.contains("shut off") && all.contains(how), "{all}");
    }

    // One that cannot start says why, here.
    fs::remove_file(home.path().join("disk.img")).unwrap();
    assert!(refused(&home, &["start", "web"]).contains("disk.img"));
    let all = succeed(&home, &["list", "--all"]);
    let line = all.lines().find(|line| line.contains("web")).unwrap();
    assert!(line.contains("No such file"), "{all}");
    assert_eq!(all.lines().count(), 3, "{all}");
    succeed(&home, &["undefine", "web"]);
    assert!(!succeed(&home, &["list", "--all"]).contains("web"));
    home.assert_left_clean();

    // One whose definition goes while it runs leaves nothing either; what it says is its owner's.
    disk(home.path(), "disk.img", 64);
    succeed(&home, &["define", "web.toml", "--name", "web"]);
    succeed(&home, &["start", "web"]);
    let state = home.path().join("state/outboard");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let modes = ["", "web.log", "web.json"].map(|name| mode(&state.join(name)));
    succeed(&home, &["undefine", "web"]);
    succeed(&home, &["destroy", "web"]);
    home.assert_left_clean();
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    assert_eq!(modes, [0o700, 0o600, 0o600]);
}

#[test]
fn what_was_said_is_shown_while_the_vm_runs_and_when_it_has_ended() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    disk(home.path(), "disk.img", 64);
    disk(home.path(), "late.img", 64);
    let mut dry = command("jobs=plug cycles=1");
    dry.args(["--disk", "path=disk.img", "--dry-run"]);
    home.adopt(&mut dry);
    let quiet = String::from_utf8(dry.output().unwrap().stdout).unwrap();
    let off = "log-dir = \"off\"\n";
    assert!(quiet.contains(off), "{quiet}");
    fs::write(home.path().join("web.toml"), quiet.replace(off, "")).unwrap();
    succeed(&home, &["define", "web.toml", "--name", "web"]);
    assert!(refused(&home, &["log", "web"]).contains("no logs of a VM 'web' in "));
    succeed(&home, &["start", "web"]);
    let mut follow = verb(&home, &["log", "web", "--follow"]);
    let follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    assert!(refused(&home, &["log", "web", "--device", "disk7"]).contains("vmm"));
    succeed(&home, &["attach", "web", "--disk", "path=late.img,id=late"]);
    succeed(&home, &["destroy", "web"]);
    let followed = follow.wait_with_output().unwrap();
    assert!(followed.status.success());
    let followed = String::from_utf8(followed.stdout).unwrap();

    let all = succeed(&home, &["log", "web"]);
    assert_eq!(
        all.lines().count(),
        followed.lines().count(),
        "{all}\n{followed}"
    );
    for source in [" vmm ", " serial ", " disk0 ", " late "] {
        assert!(all.contains(source), "{source}: {all}");
    }
    assert!(all.contains("the VM ended"), "{all}");
    let serial = succeed(
        &home,
        &["log", "web", "--device", "serial", "--output", "json"],
    );
    let lines: Vec<serde_json::Value> = serial
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line["source"] == "serial"));
    home.assert_left_clean();
}

#[test]
fn a_guest_that_ejects_without_end_neither_fills_the_vmm_nor_holds_it_up() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let mut vm = command("jobs=eject");
    vm.args(["--name", "web"]);
    home.adopt(&mut vm);
    let mut guest = Guest::start(vm);
    guest.expect("ejecting");
    let resident = || -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", guest.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let before = resident();
    std::thread::sleep(Duration::from_secs(1));
    // Pages of 4 KiB.
    assert!(
        resident() < before + 1024,
        "{before} pages, now {}",
        resident()
    );
    let begin = Instant::now();
    succeed(&home, &["destroy", "web"]);
    assert_eq!(guest.end().status.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10));
    home.assert_left_clean();
}

#[test]
fn of_two_that_start_one_vm_at_once_one_does_and_a_vm_that_hangs_is_listed_so() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    disk(home.path(), "disk.img", 64);
    let mut dry = command("jobs=plug cycles=1");
    dry.args(["--disk", "path=disk.img", "--dry-run"]);
    home.adopt(&mut dry);
    fs::write(home.path().join("web.toml"), dry.output().unwrap().stdout).unwrap();
    succeed(&home, &["define", "web.toml", "--name", "web"]);
    let begin = || {
        verb(&home, &["start", "web"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let both = [begin(), begin()].map(|mut start| start.wait().unwrap().success());
    assert_eq!(
        both.iter().filter(|started| **started).count(),
        1,
        "{both:?}"
    );

    let pid = i32::try_from(info(&home, "web")["pid"].as_i64().unwrap()).unwrap();
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    signal(nix::sys::signal::Signal::SIGSTOP);
    let all = succeed(&home, &["list", "--all"]);
    assert!(
        all.contains("no answer") && !all.contains("shut off"),
        "{all}"
    );
    signal(nix::sys::signal::Signal::SIGCONT);
    // The record is that of the one that runs.
    signal(nix::sys::signal::Signal::SIGKILL);
    home.assert_left_clean();
    let all = succeed(&home, &["list", "--all"]);
    assert!(all.contains("crashed: it was killed"), "{all}");
}

/// 1000 in `make test-long`, by the environment variable CYCLES.
#[test]
fn devices_that_come_and_go_leave_nothing() {
    if !has_kvm() {
        return;
    }
    let cycles = std::env::var("CYCLES").map_or(60, |cycles| cycles.parse().unwrap());
    let home = Home::new();
    // A few at first, so that what is kept for ever is there.
    let guest = plugging(&home, "web", cycles + 3);
    disk(home.path(), "more.img", 16);
    let cycle = || {
        // The guest takes an interrupt for each queue. KVM has some 4000 of them to give, and doorbells for
        // 1000: in 1000 cycles what is not given back would not be there.
        let keys = "path=more.img,id=more,queues=16";
        succeed(&home, &["attach", "web", "--disk", keys]);
        succeed(&home, &["detach", "web", "more"]);
    };
    cycle();
    cycle();
    let before = Held::of(guest.pid());
    for _ in 0..cycles {
        cycle();
    }
    settle(guest.pid(), &before);
    succeed(&home, &["attach", "web", "--disk", "path=more.img,id=more"]);
    succeed(&home, &["detach", "web", "more", "--no-wait"]);
    guest.end().passed(&["plug"]);
    home.assert_left_clean();
}

/// As above, in both hosts. In the VMM the library itself stays, once.
#[test]
fn plugins_that_come_and_go_leave_nothing() {
    if !has_kvm() {
        return;
    }
    let cycles = std::env::var("CYCLES").map_or(15, |cycles| cycles.parse().unwrap());
    let home = Home::new();
    let library = plugins::c("cc", "plugins/ramdisk/ramdisk.c", home.path(), &[]);
    daemon("outboard-plugin-host");
    let library = library.file_name().unwrap().to_str().unwrap();
    for host in ["process", "vmm"] {
        let mut guest = plugging(&home, host, cycles + 3);
        let keys = format!("plugin={library},size=1M,name=more,host={host}");
        let attach = || succeed(&home, &["attach", host, "--device", &keys]);
        let cycle = || {
            attach();
            succeed(&home, &["detach", host, "more"]);
        };
        assert_eq!(attach(), "more is at 0000:00:18.0\n");
        if cycles < 7 {
            guest.expect("slot 24 works");
        }
        let info = info(&home, host);
        assert_eq!(info["devices"][1]["kind"], "block", "{info}");
        let process = !guest.daemons("outboard-plugin-host").is_empty();
        assert_eq!(process, host == "process");
        succeed(&home, &["detach", host, "more"]);
        cycle();
        let before = Held::of(guest.pid());
        for _ in 0..cycles {
            cycle();
        }
        settle(guest.pid(), &before);
        attach();
        succeed(&home, &["detach", host, "more", "--no-wait"]);
        guest.end().passed(&["plug"]);
        home.assert_left_clean();
    }
}

#[test]
fn a_plugin_that_cannot_be_plugged_in_says_why_and_leaves_nothing() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let faulty = |flags: &[&str]| {
        let library = plugins::c("cc", "tests/plugins/faulty.c", home.path(), flags);
        library.display().to_string()
    };
    let (library, crashes) = (faulty(&[]), faulty(&["-DCRASHES"]));
    let guest = plugging(&home, "web", 1);
    let refuse = |keys: &str, why: &str| {
        let keys = format!("plugin={keys},name=more");
        let said = refused(&home, &["attach", "web", "--device", &keys]);
        assert!(said.contains("'more'") && said.contains(why), "{said}");
    };
    // Loaded once, to stay.
    refuse(
        &format!("{library},device=disk,host=vmm,speed=9"),
        "it has no option 'speed'",
    );
    let before = Held::of(guest.pid());
    for _ in 0..3 {
        refuse("none.so", "none.so cannot be read");
        refuse(&crashes, "ends the process it is loaded into");
        refuse(&format!("{library},device=tape"), "has no device 'tape'");
        refuse(
            &format!("{library},device=registers"),
            "part of the machine",
        );
        refuse(
            &format!("{library},device=disk,host=vmm,speed=9"),
            "no option 'speed'",
        );
        refuse(
            &format!("{library},device=disk,host=process,speed=9"),
            "no option 'speed'",
        );
    }
    settle(guest.pid(), &before);
    succeed(&home, &["destroy", "web"]);
    assert_eq!(guest.end().status.code(), Some(0));
    home.assert_left_clean();
}

#[test]
fn what_a_killed_vm_has_left_is_in_nobodys_way() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let guest = plugging(&home, "web", 1);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(guest.pid()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert!(!guest.end().status.success());
    home.assert_left_clean();
    assert!(refused(&home, &["info", "web"]).contains("No VM"));
    drop(plugging(&home, "web", 1));
}

/// What a process holds of the system, as /proc tells.
#[derive(Debug, PartialEq)]
struct Held {
    descriptors: usize,
    threads: usize,
    children: usize,
    /// Mappings of memory that is shared: each of the guest's memory slots, and what devices count.
    shared: usize,
    /// All mappings, the stacks of threads among them.
    maps: usize,
}

impl Held {
    fn of(pid: i32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let ours = |line: &&str| !line.contains("[heap]");
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            children: children(pid).len(),
            shared: maps.lines().filter(|line| line.contains("/memfd:")).count(),
            maps: maps.lines().filter(ours).count(),
        }
    }
}

/// Waits until the process holds no more than before.
fn settle(pid: i32, before: &Held) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let now = Held::of(pid);
        // The allocator keeps a few arenas for threads that are gone.
        let is_settled = now.descriptors <= before.descriptors
            && now.threads <= before.threads
            && now.children <= before.children
            && now.shared <= before.shared
            && now.maps <= before.maps + 32;
        if is_settled {
            return;
        }
        assert!(Instant::now() < end, "before {before:?}, now {now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Clock ticks of CPU that a process and its children use in a while.
fn busy(pid: i32, time: Duration) -> u64 {
    let ticks = || -> u64 {
        let all = children(pid).into_iter().chain([pid]);
        all.map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<_> = stat
                .rsplit(')')
                .next()
                .unwrap()
                .split_whitespace()
                .collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        })
        .sum()
    };
    let before = ticks();
    std::thread::sleep(time);
    ticks() - before
}
