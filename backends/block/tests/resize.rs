//! An image that becomes another size while a guest uses it: told by SIGUSR1, announced to the driver.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod common;

use std::process::Command;

use common::{
    Bench, DISK, IN_MEMORY, SECTORS, SIZE, WAYS, disk, drive, end, folder, image, pattern, qemu_ok,
    skipped, spawn, text, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_device::driver::{Daemon, Options};

fn look_again(daemon: &Daemon) {
    kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGUSR1).unwrap();
}

#[test]
fn an_image_that_grows_is_announced_and_used_to_its_end() {
    for way in WAYS {
        let mut bench = Bench::new(way, &[]);
        let data = pattern(1, 4096);
        bench.disk().write(0, &data).unwrap();
        assert!(bench.disk().write(SECTORS, &data).is_err());
        bench.file.as_file().set_len(2 * SIZE).unwrap();
        look_again(&bench.daemon);
        wait_until("the announcement", || {
            bench.driver.connection().config_changes() == 1
        });
        let mut disk = bench.disk();
        assert_eq!(disk.sectors().unwrap(), 2 * SECTORS);
        disk.write(2 * SECTORS - 8, &data).unwrap();
        disk.flush().unwrap();
        let mut back = vec![0; 4096];
        disk.read(2 * SECTORS - 8, &mut back).unwrap();
        assert!(back == data, "{way:?}");
        assert!(disk.write(2 * SECTORS, &data).is_err());
        assert!(bench.on_host(2 * SIZE - 4096, 4096) == data);
        assert!(bench.on_host(0, 4096) == data);
    }
}

#[test]
fn an_image_that_shrinks_ends_where_it_ends() {
    for way in WAYS {
        let mut bench = Bench::new(way, &[]);
        bench.file.as_file().set_len(SIZE / 2).unwrap();
        look_again(&bench.daemon);
        wait_until("the announcement", || {
            bench.driver.connection().config_changes() == 1
        });
        let mut disk = bench.disk();
        assert_eq!(disk.sectors().unwrap(), SECTORS / 2);
        // It must not grow again by what the guest writes.
        assert!(disk.write(SECTORS / 2, &[1; 512]).is_err());
        disk.write(SECTORS / 2 - 1, &[1; 512]).unwrap();
        let len = bench.file.as_file().metadata().unwrap().len();
        assert_eq!(len, SIZE / 2);
    }
}

#[test]
fn what_is_no_news_is_not_announced() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    look_again(&bench.daemon);
    wait_until("a word", || {
        bench.daemon.words().contains("has the size it had")
    });
    // A size that a disk cannot have is said, and changes nothing.
    bench.file.as_file().set_len(SIZE + 100).unwrap();
    look_again(&bench.daemon);
    let odd = format!("has {} bytes", SIZE + 100);
    wait_until("a warning", || bench.daemon.words().contains(&odd));
    assert_eq!(bench.driver.connection().config_changes(), 0);
    assert_eq!(bench.disk().sectors().unwrap(), SECTORS);
    bench.disk().write(SECTORS - 1, &[1; 512]).unwrap();
}

#[test]
fn a_format_says_how_it_grows() {
    let (_folder, dir) = folder();
    let path = dir.join("a.qcow2");
    qemu_ok(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", text(&path), "4M"],
    );
    let (daemon, stream) = spawn(&path, &[]);
    let mut driver = drive(&daemon, stream, &Options::default());
    look_again(&daemon);
    wait_until("a word", || daemon.words().contains("qemu-img resize"));
    assert_eq!(driver.connection().config_changes(), 0);
    disk(&mut driver).write(0, &[1; 512]).unwrap();
    end(driver, daemon);
}

#[test]
fn a_block_device_that_grows_is_announced() {
    let file = image(DISK);
    let losetup = |args: &[&str]| {
        let output = Command::new("losetup").args(args).output();
        output.map(|o| (o.status.success(), String::from_utf8(o.stdout).unwrap()))
    };
    let Ok((true, device)) = losetup(&["--find", "--show", text(file.path())]) else {
        return skipped("no loop device here");
    };
    let device = device.trim();
    let (daemon, stream) = spawn(device.as_ref(), &[]);
    let mut driver = drive(&daemon, stream, &Options::default());
    file.as_file().set_len(2 * SIZE).unwrap();
    losetup(&["--set-capacity", device]).unwrap();
    look_again(&daemon);
    let end = std::time::Instant::now() + common::LIMIT;
    while driver.connection().config_changes() == 0 && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let sectors = disk(&mut driver).sectors().unwrap();
    drop((driver, daemon));
    losetup(&["--detach", device]).unwrap();
    assert_eq!(sectors, 2 * SECTORS);
}
