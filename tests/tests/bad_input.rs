//! Wrong input of every kind: one message that names the thing and the remedy, the documented exit
//! code, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use outboard_tests::daemons::daemon;
use outboard_tests::guest::{Guest, command, has_kvm};
use outboard_tests::refusal::{FAILED, USAGE, home, judge, output, refused, run};

/// The twin of every test here: what judges them says no, too.
#[test]
fn the_judge_can_say_no() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let judge = |args: &[&str], part: &str| {
        judge(&home, run(args), FAILED, &[part], Duration::ZERO).unwrap_err()
    };
    let good = ["--cmdline", "jobs=hello"];
    assert!(judge(&good, "").contains("exit status: 0"));
    let bad = ["--disk", "path=no-such.img"];
    assert!(judge(&bad, "sunshine").contains("no 'sunshine'"));
    assert!(judge(&bad, "e").contains("not told once"));
    let doubled = "echo 'vm.img is in no known format: it is in no known format' >&2; exit 1";
    let mut shell = Command::new("sh");
    shell.args(["-c", doubled]);
    let verdict = self::judge(&home, shell, FAILED, &["vm.img"], Duration::ZERO);
    assert!(
        verdict
            .unwrap_err()
            .contains("'is in no known format' is told twice")
    );
    let mut left = Command::new("sleep");
    left.arg("60");
    home.adopt(&mut left);
    let mut left = left.spawn().unwrap();
    assert!(judge(&bad, "Cannot open disk image").contains("left behind"));
    left.kill().unwrap();
    left.wait().unwrap();
}

#[test]
fn command_lines_that_cannot_be_meant() {
    let home = home();
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--disk", "path=disk.img,colour=red"],
            &["unknown key `colour`", "readonly"],
        ),
        (&["--disk", "readonly=on"], &["path=FILE", "disk0"]),
        (&["--disk", "path=a,socket=b"], &["not both", "disk0"]),
        (&["--net", "tap=t,user"], &["exactly one of", "net0"]),
        (
            &["--disk", "path=disk.img,addr=32"],
            &["addr=32", "1 to 31"],
        ),
        (
            &["--disk", "path=a,addr=5", "--disk", "path=b,addr=5"],
            &["addr=5", "disk0", "disk1", "another slot"],
        ),
        (
            &["--disk", "path=a,id=x", "--net", "tap=t,id=x"],
            &["'x' names two devices"],
        ),
        (
            &["--disk", "path=a,id=vmm"],
            &["'vmm' is a name that the VM's own"],
        ),
        (&["--net", "tap=t,mac=zz"], &["'zz'", "02:00:5e"]),
        (
            &["--net", "user,create=on"],
            &["net 'net0': create", "tap=NAME,create=on"],
        ),
        (
            &["--device", "vhost-user,id=quark,socket=/s"],
            &["'quark' is no virtio device", "rng"],
        ),
        (
            &["--device", "foo"],
            &["begin with plugin=FILE or vhost-user", "'foo'"],
        ),
        (
            &["--device", "vhost-user,socket=/s"],
            &["missing key `id`", "--device"],
        ),
        (&["--cpus", "300"], &["300", "1 to 254"]),
        (&["--cpus", "abc"], &["'abc'", "1 to 254"]),
        (&["--cpu", "host,smap"], &["write +smap or -smap"]),
        (
            &["--cpu", "qemu64"],
            &["'qemu64'", "write host, or host,-FEATURE"],
        ),
        (
            &["--disk", "path=disk.img", "--disk", "path=./disk.img"],
            &["disk0 and disk1 are both ./disk.img", "readonly"],
        ),
        (
            &["--net", "tap=t0", "--net", "tap=t0,id=second"],
            &["net0 and second are both on the tap t0"],
        ),
        (&["--console", "screen"], &["'screen'", "socket=PATH"]),
        (&["--name", "a/b"], &["'a/b'", "letters"]),
    ];
    for (args, parts) in cases {
        refused(&home, run(args), USAGE, parts);
    }
    for (size, part) in [
        ("1X", "is not a size"),
        ("1M", "at least 32M"),
        ("33M", "multiple of 2M"),
    ] {
        let mut run = Command::new(daemon("outboard"));
        run.args(["run", "--kernel", "kernel", "--memory", size]);
        refused(&home, run, USAGE, &[part]);
    }
    let mut both = Command::new(daemon("outboard"));
    both.args([
        "run",
        "--kernel",
        "kernel",
        "--serial",
        "tty",
        "--console",
        "tty",
    ]);
    refused(&home, both, USAGE, &["both want the terminal", "socket"]);
}

fn outboard(args: &[&str]) -> Command {
    let mut outboard = Command::new(daemon("outboard"));
    outboard.args(args);
    outboard
}

#[test]
fn names_and_places_that_are_none() {
    let home = home();
    let long = "x".repeat(65);
    for name in ["", ".", "..", "../x", "a b", &long] {
        let told = format!("'{name}' is no VM name");
        refused(&home, outboard(&["log", name]), FAILED, &[&told, "letters"]);
    }
    let vmm = |args: &[&str]| {
        let mut vmm = outboard(&["vmm", "--api-socket"]);
        vmm.args(args);
        vmm
    };
    let cases: [(&[&str], i32, &[&str]); 5] = [
        (
            &["s", "--name", "a b"],
            USAGE,
            &["is no VM name", "letters", "'a b'"],
        ),
        (
            &["s", "--event-monitor", "foo=x"],
            USAGE,
            &["write path=PATH or fd=N", "foo=x"],
        ),
        (
            &["no/such/s"],
            FAILED,
            &["Cannot listen on no/such/s", "folder"],
        ),
        (
            &["disk.img"],
            FAILED,
            &["Cannot listen on disk.img", "choose another path"],
        ),
        (
            &[&long.repeat(2)],
            FAILED,
            &["the path is 130 bytes long", "may have 107", "shorter"],
        ),
    ];
    for (args, code, parts) in cases {
        refused(&home, vmm(args), code, parts);
    }
    assert!(!home.path().join("foo=x").exists());
}

#[test]
fn a_folder_of_vms_that_others_may_write_to_is_named_with_the_remedy() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let folder = home.path().join("run/outboard");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let remedy = format!("run: chmod 700 {}", folder.display());
    refused(&home, outboard(&["list"]), FAILED, &[&remedy, "mode 777"]);
    // A VM that nobody has to find runs all the same, and says why nobody can.
    let ran = output(&home, run(&["--name", "web", "--cmdline", "jobs=hello"]));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{said}");
    assert!(
        said.contains(&remedy) && said.contains("by its name"),
        "{said}"
    );
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn description_files_name_the_key() {
    let home = home();
    for (text, parts) in [
        ("kernle = 'x'", &["unknown key `kernle`", "vm.toml"][..]),
        ("kernel = ", &["line 1", "vm.toml"]),
        (
            "kernel = 'k'\nmemory = { size = '1X' }",
            &["is not a size", "line 2"],
        ),
        ("memory = { size = '1G' }", &["--kernel FILE", "vm.toml"]),
        ("kernel = 'k'\ncpus = 300", &["1 to 254", "In vm.toml: "]),
        (
            "kernel = 'k'\n[[disk]]\npath = 'a'\ncolour = 'red'",
            &["unknown key `colour`", "line 4"],
        ),
        (
            "kernel = 'k'\n[[disk]]\npath = 'a'\nsocket = 'b'",
            &["not both", "disk0"],
        ),
        ("kernel = 'k'\nkernel = 'l'", &["duplicate key", "line 2"]),
    ] {
        fs::write(home.path().join("vm.toml"), text).unwrap();
        for verb in ["run", "define"] {
            let mut verb = outboard(&[verb, "vm.toml"]);
            verb.env("XDG_CONFIG_HOME", home.path());
            refused(&home, verb, USAGE, parts);
        }
    }
}

#[test]
fn things_that_devices_cannot_use() {
    if !has_kvm() {
        return;
    }
    let home = home();
    fs::create_dir(home.path().join("folder")).unwrap();
    File::create(home.path().join("empty.img")).unwrap();
    let begun = |name: &str, bytes: &[u8], len| {
        let file = File::create(home.path().join(name)).unwrap();
        (&file).write_all(bytes).unwrap();
        file.set_len(len).unwrap();
    };
    begun("odd.img", b"QFI\xfb", 70_001);
    begun("unsound.qcow2", b"QFI\xfb\0\0\0\x02", 65_536);
    let long = format!("socket={}", "x".repeat(108));
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--disk", "path=no-such.img"],
            &["correct the path", "no-such.img", "disk0", "truncate"],
        ),
        (
            &["--disk", "path=no-such.qcow2"],
            &[
                "correct the path",
                "disk0",
                "qemu-img create -f qcow2 'no-such",
            ],
        ),
        (
            &["--cdrom", "no-such.iso"],
            &["no-such.iso", "cdrom0", "correct the path"],
        ),
        (
            &["--disk", "path=folder"],
            &["'folder' is a directory", "disk0"],
        ),
        (&["--disk", "path=empty.img"], &["is empty", "truncate"]),
        (
            &["--disk", "path=disk.img,format=qcow2"],
            &["is not in qcow2 format", "disk0", "format=raw"],
        ),
        (
            &["--disk", "path=unsound.qcow2"],
            &["is not a sound qcow2 image", "disk0"],
        ),
        (
            &["--disk", "path=odd.img,format=raw"],
            &["begins as a qcow2 image", "disk0", "format=qcow2"],
        ),
        (
            &["--disk", "socket=folder"],
            &["folder is a folder", "disk0"],
        ),
        (
            &["--disk", "socket=disk.img"],
            &["disk.img is a file, and no socket", "disk0"],
        ),
        (&["--disk", &long], &["may have 107", "disk0"]),
        (
            &["--net", "tap=lo"],
            &["Interface 'lo'", "net0", "ip tuntap add"],
        ),
        (
            &["--net", "tap=much-too-long-for-a-tap"],
            &["'much-too-long-for-a-tap'", "15 characters"],
        ),
        (
            &["--console", "file=no/such/log"],
            &["no/such/log", "console0", "folder"],
        ),
        (&["--console", "socket=disk.img"], &["disk.img", "console0"]),
        (
            &["--device", "vhost-user,id=fs,socket=nobody.sock"],
            &["start its daemon first", "nobody.sock", "fs0"],
        ),
    ];
    for (args, parts) in cases {
        refused(&home, run(args), FAILED, parts);
    }
    let mut serial = Command::new(daemon("outboard"));
    serial.args(["run", "--kernel", "kernel", "--serial", "file=no/such/log"]);
    refused(&home, serial, FAILED, &["no/such/log", "ttyS0", "folder"]);
}

#[test]
fn what_the_host_cannot_give() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    for (memory, parts) in [
        ("200T", &["ask for less with --memory"][..]),
        ("4T,prefault=on", &["prefault=on takes", "--memory"]),
        (
            "64M,hugepages=on",
            &["hugepages=on needs 32", "vm.nr_hugepages"],
        ),
    ] {
        if memory.contains("huge") && fs::read_to_string(free).is_ok_and(|n| n.trim() != "0") {
            continue;
        }
        let mut run = Command::new(daemon("outboard"));
        run.args(["run", "--kernel", "kernel", "--memory", memory]);
        refused(&home, run, FAILED, parts);
    }
}

#[test]
fn more_cpus_than_the_process_may_have_files_for() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let mut few = Command::new("prlimit");
    few.arg("--nofile=60:60").arg(daemon("outboard"));
    few.args(["run", "--kernel", "kernel", "--serial", "off"]);
    few.args(["--cpus", "200"]);
    refused(
        &home,
        few,
        FAILED,
        &["open enough files", "ulimit -Hn", "fewer CPUs"],
    );
}

/// What a backend does with a connection.
type Answer = fn(UnixStream);

/// Backends that listen, and then do what none should. Each costs its device's start, within a deadline.
#[test]
fn backends_that_talk_nonsense_or_not_at_all() {
    if !has_kvm() {
        return;
    }
    let (absent, busy) = ("no backend answers", "does not answer");
    let answers: [(&str, &str, Answer); 4] = [
        ("silent", busy, |stream| {
            std::thread::sleep(Duration::from_mins(1));
            drop(stream);
        }),
        ("gone", absent, |mut stream| {
            let _ = stream.read(&mut [0; 12]);
        }),
        ("nonsense", "what listens at", |mut stream| {
            let _ = stream.read(&mut [0; 12]);
            let _ = stream.write_all(&[0xa5; 4096]);
        }),
        // The header of an answer that never comes (vhost-user's "Header", GET_FEATURES).
        ("half", busy, |mut stream| {
            let _ = stream.read(&mut [0; 12]);
            let _ = stream.write_all(&[1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1]);
            std::thread::sleep(Duration::from_mins(1));
        }),
    ];
    std::thread::scope(|scope| {
        for (name, said, answer) in answers {
            scope.spawn(move || {
                let home = home();
                let listener = UnixListener::bind(home.path().join(name)).unwrap();
                std::thread::spawn(move || {
                    for stream in listener.incoming().map_while(Result::ok) {
                        std::thread::spawn(move || answer(stream));
                    }
                });
                let device = format!("vhost-user,id=rng,socket={name}");
                let begin = Instant::now();
                let args = ["--device", &device];
                refused(&home, run(&args), FAILED, &[said, name, "rng0"]);
                assert!(begin.elapsed() < Duration::from_secs(30), "{name}");
            });
        }
    });
}

/// As the user `nobody` where we are root; whoever is not is told the same.
fn as_nobody(args: &[&str]) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return run(args);
    }
    // A user who may use /dev/kvm: the test is of what comes after.
    let mut nobody = Command::new("unshare");
    let script = "mount -t tmpfs -o mode=755 none /media && mknod -m 666 /media/kvm c 10 232 && \
        mount --bind /media/kvm /dev/kvm && \
        mknod -m 666 /media/tun c 10 200 && \
        { [ ! -e /dev/net/tun ] || mount --bind /media/tun /dev/net/tun; } && \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" \"$@\"";
    let run = run(args);
    nobody.args(["-m", "sh", "-c", script]);
    nobody.arg(run.get_program()).args(run.get_args());
    nobody
}

#[test]
fn what_one_may_not_open() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let mode = |name: &str, mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(home.path().join(name), permissions).unwrap();
    };
    mode(".", 0o755);
    mode("disk.img", 0o000);
    let disk = ["--log-dir", "off", "--disk", "path=disk.img"];
    let told = ["'disk.img'", "Permission denied", "disk0"];
    refused(&home, as_nobody(&disk), FAILED, &told);
    mode("disk.img", 0o444);
    refused(
        &home,
        as_nobody(&disk),
        FAILED,
        &["'disk.img'", "readonly", "disk0"],
    );
    // The twin: what may be read is.
    let good = ["--log-dir", "off", "--cmdline", "jobs=hello"];
    let good = [&good[..], &["--disk", "path=disk.img,readonly"]].concat();
    assert_eq!(output(&home, as_nobody(&good)).status.code(), Some(0));
    let tap = ["--log-dir", "off", "--net", "tap=no-such-tap,create=on"];
    // With the device and without it.
    let told = match File::options().write(true).open("/dev/net/tun") {
        Ok(_) => [
            "'no-such-tap'",
            "net0",
            "not permitted: run `sudo ip tuntap add",
        ],
        Err(_) => ["/dev/net/tun", "net0", "outboard-net ended"],
    };
    refused(&home, as_nobody(&tap), FAILED, &told);
}

#[test]
fn a_name_or_a_disk_that_a_running_vm_has() {
    if !has_kvm() {
        return;
    }
    let first = home();
    let mut running = command("jobs=hello,spin");
    running.args(["--console", "--disk", "path=disk.img"]);
    first.adopt(&mut running);
    let mut running = Guest::start(running);
    running.expect("hello");
    let second = |args: &[&str]| {
        let output = output(&first, run(args));
        assert_eq!(output.status.code(), Some(FAILED), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = second(&["--console"]);
    assert!(
        said.contains("'vm' runs already") && said.contains("--name"),
        "{said}"
    );
    let said = second(&["--name", "other", "--disk", "path=disk.img"]);
    assert!(said.contains("'disk.img' is in use"), "{said}");
    assert!(
        !running.daemons("outboard-block").is_empty(),
        "the first goes on"
    );
    drop(running);
    first.assert_left_clean();
}

#[test]
fn daemons_that_are_not_there_or_end_at_once() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(daemon("outboard"), bin.join("outboard")).unwrap();
    let run = |args: &[&str]| {
        let mut run = Command::new(bin.join("outboard"));
        run.args(["run", "--kernel", "kernel"]).args(args);
        run.env("PATH", "/usr/bin:/bin");
        run
    };
    let disk = ["--serial", "off", "--disk", "path=disk.img"];
    let places = ["bin, in ", "libexec/outboard", "PATH (/usr/bin:/bin)"];
    refused(
        &home,
        run(&disk),
        FAILED,
        &[&["'outboard-block'", "disk0"][..], &places].concat(),
    );
    refused(
        &home,
        run(&[]),
        FAILED,
        &[&["'outboard-console'", "ttyS0"][..], &places].concat(),
    );
    for program in ["outboard-block", "outboard-console"] {
        let path = bin.join(program);
        fs::write(&path, "#!/bin/sh\necho 'error: no time' >&2\nexit 3\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (args, device) in [(&disk[..], "disk0"), (&[], "ttyS0")] {
        refused(
            &home,
            run(args),
            FAILED,
            &["error: no time", device, "exit status: 3"],
        );
    }
}

/// In namespaces and as users of its own, where the test may have them.
#[test]
fn no_kvm_and_no_permission() {
    if !has_kvm() {
        return;
    }
    let root = nix::unistd::geteuid().is_root();
    let home = home();
    let outboard = daemon("outboard");
    for (before, part) in [
        (
            "mount --bind /dev/null /dev/kvm",
            "/dev/kvm is not KVM's device",
        ),
        ("mount -t tmpfs none /dev", "/dev/kvm is missing"),
    ] {
        let script = format!(r#"{before} && exec "$0" run --kernel kernel --serial off"#);
        let mut elsewhere = Command::new("unshare");
        if !root {
            elsewhere.arg("--map-root-user");
        }
        elsewhere.args(["-m", "sh", "-c", &script]).arg(&outboard);
        refused(&home, elsewhere, FAILED, &[part, "outboard doctor"]);
    }
    if !root {
        // Nobody else to become; as root the rest is tested.
        return;
    }

    if fs::metadata("/dev/kvm").unwrap().permissions().mode() & 0o006 != 0 {
        println!("SKIPPED, nothing was tested: everybody may use /dev/kvm");
        return;
    }
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut nobody = Command::new("setpriv");
    nobody
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&outboard)
        .args(["run", "--kernel", "kernel", "--serial", "off"]);
    refused(
        &home,
        nobody,
        FAILED,
        &["/dev/kvm may not be opened", "usermod"],
    );
}
