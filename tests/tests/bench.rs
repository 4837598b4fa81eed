//! `outboard-bench` with everything around it: our daemons, a tap, the bare-metal guest.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs::File;
use std::process::Command;

use outboard_tests::daemons::daemon;
use outboard_tests::guest::has_kvm;
use outboard_tests::plugins;
use outboard_tests::tap::Tap;

/// What it prints about one request at a time and eight of them, a twentieth of a second each.
fn measured(arguments: &str, spawn: &str) -> String {
    daemon(spawn.split(' ').next().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(daemon("outboard-bench"))
        .args(arguments.split(' '))
        .args(["--depth", "1,8", "--seconds", "0.05", "--warmup", "0.02"])
        .args(["--wait", "sleep", "--spawn", spawn])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {words}{errors}");
    words.into_owned()
}

#[test]
fn a_disk_is_measured_and_verified() {
    let spawn = "outboard-block --socket {socket} --path {file} --queues {queues}";
    let words = measured(
        "block --file disk.img --file-size 4M --op read,write,mixed,flush",
        spawn,
    );
    for case in [
        "read random 4k, depth 1",
        "mixed random 4k, depth 8",
        "flush, depth 8",
    ] {
        assert!(words.contains(case), "{words}");
    }
    let words = measured("block --file disk.img --file-size 4M --verify", spawn);
    assert_eq!(words.matches(" 0 faults").count(), 2, "{words}");
}

/// As on a full disk. `null` needs no backend's program.
#[test]
fn results_that_cannot_be_shown_are_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(daemon("outboard-bench"))
        .args(["null", "--depth", "1", "--seconds", "0.05", "--warmup", "0"])
        .stdout(full)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(
        errors.matches("does not take the results").count(),
        1,
        "{errors}"
    );
}

#[test]
fn a_console_is_measured() {
    let words = measured("console", "outboard-console --socket {socket} --off");
    assert!(words.contains("console write 4k, depth 8"), "{words}");
}

#[test]
fn a_card_is_measured_each_way_and_back() {
    if Tap::up("obenchprobe").is_none() {
        return;
    }
    let spawn = "outboard-net --socket {socket} --tap {tap}";
    let words = measured(
        "net --tap obench0 --size 64,1500 --op write,read,echo",
        spawn,
    );
    for case in ["net write 64", "net read 1500", "net echo 1500"] {
        assert!(words.contains(&format!("{case}, depth 8")), "{words}");
    }
}

#[test]
fn a_switch_is_measured() {
    let words = measured(
        "switch --size 60,1514,65521",
        "outboard-net switch --port a={socket} --port b={other}",
    );
    for case in ["switch 60", "switch 1514", "switch 65521"] {
        assert!(words.contains(&format!("{case}, depth 8")), "{words}");
    }
}

#[test]
fn a_vm_at_rest_is_measured() {
    if !has_kvm() {
        return;
    }
    for name in [
        "outboard",
        "outboard-block",
        "outboard-net",
        "outboard-console",
    ] {
        daemon(name);
    }
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("rest.jsonl");
    let output = Command::new(daemon("outboard-bench"))
        .args(["rest", "--seconds", "1", "--rounds", "1", "--json"])
        .arg(&results)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}{errors}");
    let (starts, rest) = words.split_once("at rest").unwrap();
    assert_eq!(starts.matches(" listens ").count(), 3, "{words}");
    for process in [
        "outboard ",
        "outboard-block ",
        "outboard-net ",
        "outboard-console ",
    ] {
        let line = rest.lines().find(|line| line.starts_with(process));
        let resident = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        assert!(resident.is_some_and(|kib| kib > 100), "{process}: {words}");
    }
    // Three daemons' starts, the VM's, and four processes.
    let kept = std::fs::read_to_string(results).unwrap();
    assert_eq!(kept.lines().count(), 8, "{kept}");
}

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
        "guest: irqfd to handler, halted",
        "guest: irqfd to handler, at work in ring 3",
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

/// `outboard-bench hosts`: whether it succeeded, and what it said.
fn hosts(arguments: &[&str]) -> (bool, String) {
    for program in ["outboard", "outboard-plugin-host"] {
        daemon(program);
    }
    let output = Command::new(daemon("outboard-bench"))
        .args(["hosts", "--rounds", "1", "--requests", "50"])
        .args(arguments)
        .output()
        .unwrap();
    let words = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&words).into_owned(),
    )
}

#[test]
fn each_host_has_a_price() {
    if !has_kvm() {
        return;
    }
    plugins::rust("outboard-bench-null", "outboard_bench_null");
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("hosts.jsonl");
    let (done, words) = hosts(&["--json", results.to_str().unwrap()]);
    assert!(done, "{words}");
    let results = std::fs::read_to_string(results).unwrap();
    // Asleep, looking, and with many under way.
    for host in ["host=process", "host=vmm", "daemon"] {
        let lines = results
            .lines()
            .filter(|line| line.contains(&format!("\"subject\":\"{host}\"")));
        assert_eq!(lines.count(), 3, "{host}: {results}");
        // In the table, below the machine and the heading.
        let rows = words.lines().skip(2).filter(|line| line.contains(host));
        assert_eq!(rows.count(), 3, "{words}");
    }
    assert!(words.contains("null, depth 1, sleeping"), "{words}");
}

/// A disk of a plugin that fails has no price.
#[test]
fn a_host_whose_device_fails_is_not_measured() {
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sound = plugins::c("cc", "plugins/ramdisk/ramdisk.c", folder.path(), &[]);
    let plugin = format!("{},size=1M", sound.display());
    let (done, words) = hosts(&["--plugin", &plugin]);
    assert!(
        done && words.contains("read sequential 4k, depth 32"),
        "{words}"
    );
    let broken = plugins::c("cc", "tests/plugins/faulty.c", folder.path(), &[]);
    let plugin = format!("{},device=disk,fault=error", broken.display());
    let (done, words) = hosts(&["--plugin", &plugin]);
    assert!(!done && words.contains("FAIL requests"), "{words}");
}
