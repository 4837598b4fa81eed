//! qcow2 images, written by the daemon and judged by QEMU's tools.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{
    LIMIT, SECTORS, SIZE, disk, drive, end, folder, pattern, qemu, qemu_ok, refusal, said, spawn,
    text, wait_until,
};
use outboard_device::driver::block::{BlockQueue, Kind, Status};
use outboard_device::driver::{Options, QueueOptions, Segment};

/// Makes an image of the usual size at `path`.
fn create(path: &Path, options: &[&str]) {
    let size = SIZE.to_string();
    let args = [
        &["create", "-q", "-f", "qcow2"],
        options,
        &[text(path), &size],
    ];
    qemu_ok("qemu-img", &args.concat());
}

/// What `qemu-img check` finds wrong.
fn check(path: &Path) -> Result<(), String> {
    let output = qemu("qemu-img", &["check", "-f", "qcow2", text(path)]);
    if output.status.success() {
        Ok(())
    } else {
        Err(said(&output))
    }
}

/// Whether `qemu-img compare` sees the disk `model` in the image.
fn same(path: &Path, model: &[u8]) -> bool {
    let raw = path.with_extension("model");
    fs::write(&raw, model).unwrap();
    let args = [
        "compare",
        "-s",
        "-f",
        "qcow2",
        "-F",
        "raw",
        text(path),
        text(&raw),
    ];
    // Sizes count (-s), what is allocated does not: the model has no holes.
    let output = qemu("qemu-img", &[&args[..1], &args[2..]].concat());
    assert!(output.status.code() < Some(2), "{}", said(&output));
    output.status.success()
}

/// A generator of the same numbers each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Writes, discards and zeroes at random, and reads back now and then; `model` follows.
fn churn(path: &Path, args: &[&str], model: &mut [u8], seed: u64) {
    let version = fs::read(path).unwrap()[7];
    let (daemon, stream) = spawn(path, args);
    let mut driver = drive(&daemon, stream, &Options::default());
    let mut disk = disk(&mut driver);
    assert_eq!(disk.sectors().unwrap(), SECTORS);
    let mut numbers = Numbers(seed);
    for round in 0..300u64 {
        let sector = numbers.below(SECTORS);
        let most = if numbers.below(4) == 0 { 1024 } else { 24 };
        let count = (1 + numbers.below(most)).min(SECTORS - sector);
        let (from, to) = (sector as usize * 512, (sector + count) as usize * 512);
        match numbers.below(8) {
            0 => {
                disk.discard(sector, count as u32).unwrap();
                // Whole clusters or parts of them: all of it reads as zeroes. Version 2 knows no
                // clusters of zeroes, and there the discard is without effect.
                if version == 3 {
                    model[from..to].fill(0);
                }
            }
            kind @ 1..=2 => {
                disk.write_zeroes(sector, count as u32, kind == 1).unwrap();
                model[from..to].fill(0);
            }
            3 => {
                let mut back = vec![0; to - from];
                disk.read(sector, &mut back).unwrap();
                assert!(back == model[from..to], "{round}: {sector}+{count}");
            }
            4 if round % 5 == 0 => disk.flush().unwrap(),
            _ => {
                let data = pattern(round as u8, to - from);
                disk.write(sector, &data).unwrap();
                model[from..to].copy_from_slice(&data);
            }
        }
    }
    let words = daemon.words();
    end(driver, daemon);
    assert!(
        !words.contains("WARN") && !words.contains("ERROR"),
        "{words}"
    );
}

#[test]
fn after_any_requests_the_image_is_sound_and_holds_what_was_written() {
    let (_folder, dir) = folder();
    for (number, (options, args)) in [
        (&["-o", "cluster_size=64k"][..], &[][..]),
        (&["-o", "cluster_size=4k,lazy_refcounts=off"], &["--direct"]),
        (&["-o", "cluster_size=512"], &["--engine", "threads"]),
        (&["-o", "compat=0.10"], &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let path = dir.join(format!("{number}.qcow2"));
        create(&path, options);
        let mut model = vec![0; SIZE as usize];
        for seed in 1..=2 {
            churn(
                &path,
                args,
                &mut model,
                0x9e37_79b9 * (seed + number as u64),
            );
            check(&path).unwrap();
            assert!(same(&path, &model), "{options:?}");
        }
    }
}

/// The judges themselves: one wrong byte, one lost refcount.
#[test]
fn the_tools_that_judge_see_what_is_wrong() {
    let (_folder, dir) = folder();
    let path = dir.join("a.qcow2");
    create(&path, &[]);
    let mut model = vec![0; SIZE as usize];
    churn(&path, &[], &mut model, 7);
    assert!(same(&path, &model));
    model[SIZE as usize / 2] ^= 1;
    assert!(!same(&path, &model));

    check(&path).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut table = [0; 8];
    file.read_exact_at(&mut table, 48).unwrap();
    let mut block = [0; 8];
    file.read_exact_at(&mut block, u64::from_be_bytes(table))
        .unwrap();
    // The counts of the first clusters, of two bytes each.
    file.write_all_at(&[0; 64], u64::from_be_bytes(block))
        .unwrap();
    assert!(check(&path).is_err());
}

#[test]
fn an_overlay_takes_what_is_written_and_leaves_what_is_below() {
    let (_folder, dir) = folder();
    let raw = dir.join("below.raw");
    let below = pattern(42, SIZE as usize);
    fs::write(&raw, &below).unwrap();
    let (middle, top) = (dir.join("middle.qcow2"), dir.join("top.qcow2"));
    create(&middle, &["-b", "below.raw", "-F", "raw"]);
    let mut model = below.clone();
    churn(&middle, &["--backing"], &mut model, 11);
    check(&middle).unwrap();
    assert!(same(&middle, &model));
    assert!(fs::read(&raw).unwrap() == below);

    create(&top, &["-b", "middle.qcow2", "-F", "qcow2"]);
    let before = fs::read(&middle).unwrap();
    for (args, seed) in [(&["--backing"][..], 12), (&["--backing", "--direct"], 13)] {
        churn(&top, args, &mut model, seed);
        check(&top).unwrap();
        assert!(same(&top, &model), "{args:?}");
    }
    assert!(fs::read(&middle).unwrap() == before);
    assert!(fs::read(&raw).unwrap() == below);
}

#[test]
fn a_readonly_image_is_read_and_never_written() {
    let (_folder, dir) = folder();
    let path = dir.join("a.qcow2");
    create(&path, &[]);
    let mut model = vec![0; SIZE as usize];
    churn(&path, &[], &mut model, 21);
    let before = fs::read(&path).unwrap();
    let (daemon, stream) = spawn(&path, &["--readonly"]);
    let mut driver = drive(&daemon, stream, &Options::default());
    let mut disk = disk(&mut driver);
    let mut back = vec![1; 1 << 20];
    for part in 0..4 {
        disk.read(part * 2048, &mut back).unwrap();
        assert!(back == model[(part as usize) << 20..][..1 << 20]);
    }
    assert!(disk.write(0, &back[..512]).is_err());
    assert_eq!(
        disk.range(Kind::Discard, 0, 1, 0).unwrap(),
        Status::Unsupported
    );
    disk.flush().unwrap();
    end(driver, daemon);
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn several_queues_write_an_image_at_once() {
    const QUEUES: u16 = 4;
    const EACH: u64 = 8192;
    const DEPTH: u16 = 16;
    let (_folder, dir) = folder();
    let path = dir.join("a.qcow2");
    create(&path, &["-o", "cluster_size=4k"]);
    let (daemon, stream) = spawn(&path, &["--queues", "4"]);
    let mut driver = drive(&daemon, stream, &Options::default());
    for index in 1..QUEUES {
        driver.start_queue(index, &QueueOptions::default()).unwrap();
    }
    let buffers = driver.allocate(EACH * u64::from(QUEUES), 4096).unwrap();
    let mut queues: Vec<_> = (0..QUEUES)
        .map(|index| {
            let requests = BlockQueue::new(&mut driver, DEPTH).unwrap();
            (driver.take_queue(index).unwrap(), requests)
        })
        .collect();
    // Each queue writes every fourth piece of the disk, all with its own number, many at once.
    let mut model = vec![0; SIZE as usize];
    let pieces = SIZE / EACH;
    let mut next = [0u64, 1, 2, 3];
    while next.iter().any(|&piece| piece < pieces) {
        for (index, (queue, requests)) in queues.iter_mut().enumerate() {
            let buffer = buffers.part(index * EACH as usize, EACH as usize);
            buffer.fill(index as u8 + 1);
            while requests.free() > 0 && next[index] < pieces {
                let piece = next[index];
                next[index] += u64::from(QUEUES);
                let data = [Segment::readable(buffer.addr(), EACH as u32)];
                requests
                    .add(queue, Kind::Out, piece * EACH / 512, &data, piece)
                    .unwrap();
                let at = (piece * EACH) as usize;
                model[at..at + EACH as usize].fill(index as u8 + 1);
            }
            queue.flush().unwrap();
        }
        for (queue, requests) in &mut queues {
            while requests.free() < usize::from(DEPTH) {
                assert_eq!(requests.wait(queue, LIMIT).unwrap().status, Status::Ok);
            }
        }
    }
    drop(queues);
    end(driver, daemon);
    check(&path).unwrap();
    assert!(same(&path, &model));
}

#[test]
fn an_image_is_sound_after_its_daemon_was_killed_and_keeps_what_was_flushed() {
    let (_folder, dir) = folder();
    let path = dir.join("a.qcow2");
    create(&path, &[]);
    let data = pattern(3, 1 << 20);
    let (mut daemon, stream) = spawn(&path, &[]);
    let mut driver = drive(&daemon, stream, &Options::default());
    let mut disk = disk(&mut driver);
    disk.write(100, &data).unwrap();
    disk.flush().unwrap();
    disk.write(4096, &data).unwrap();
    daemon.kill();
    // Clusters may be lost to nobody, never shared or missing: check says 3 for leaks.
    let output = qemu("qemu-img", &["check", "-f", "qcow2", text(&path)]);
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{}",
        said(&output)
    );
    let (daemon, stream) = spawn(&path, &[]);
    let mut driver = drive(&daemon, stream, &Options::default());
    let mut back = vec![0; 1 << 20];
    common::disk(&mut driver).read(100, &mut back).unwrap();
    assert!(back == data);
}

/// Nobody flushed. The tables are written behind the answer to the reset, while the next driver is
/// at work already.
#[test]
fn after_a_reset_the_file_has_the_tables_of_what_was_written() {
    const EACH: usize = 100 << 10;
    let (_folder, dir) = folder();
    let (path, copy) = (dir.join("a.qcow2"), dir.join("copy.qcow2"));
    create(&path, &["-o", "cluster_size=4k"]);
    let mut model = vec![0; SIZE as usize];
    let (daemon, stream) = spawn(&path, &[]);
    let mut driver = drive(&daemon, stream, &Options::default());
    for round in 0..20usize {
        let at = round * 2 * EACH;
        let data = pattern(round as u8, EACH);
        let mut disk = disk(&mut driver);
        disk.write(at as u64 / 512, &data).unwrap();
        model[at..at + EACH].copy_from_slice(&data);
        driver.reset().unwrap();
        driver.start_queue(0, &QueueOptions::default()).unwrap();
    }
    let mut back = vec![0; EACH];
    disk(&mut driver).read(0, &mut back).unwrap();
    assert!(back == model[..EACH]);
    wait_until("tables in the file", || {
        fs::copy(&path, &copy).unwrap();
        check(&copy).is_ok() && same(&copy, &model)
    });
    end(driver, daemon);
    check(&path).unwrap();
    assert!(same(&path, &model));
}

#[test]
fn what_lies_below_is_opened_only_when_allowed() {
    let (_folder, dir) = folder();
    let raw = dir.join("below.raw");
    File::create(&raw).unwrap().set_len(SIZE).unwrap();
    let top = dir.join("top.qcow2");
    create(&top, &["-b", "below.raw", "-F", "raw"]);
    let before = fs::read(&top).unwrap();
    let words = refusal(&top, &[]);
    assert!(
        words.contains("'below.raw'") && words.contains("backing=on"),
        "{words}"
    );
    assert!(words.contains("--backing"), "{words}");
    assert!(fs::read(&top).unwrap() == before);

    fs::remove_file(&raw).unwrap();
    let words = refusal(&top, &["--backing"]);
    assert!(
        words.contains("below.raw") && words.contains("No such file"),
        "{words}"
    );

    // A format found by looking would be the guest's to choose.
    File::create(&raw).unwrap().set_len(SIZE).unwrap();
    let nameless = dir.join("nameless.qcow2");
    create(&nameless, &["-u", "-b", "below.raw", "-F", "raw"]);
    let mut bytes = fs::read(&nameless).unwrap();
    // The extension that names the format of the file below (0xe2792aca) becomes an unknown one.
    let at = bytes
        .windows(4)
        .position(|w| w == [0xe2, 0x79, 0x2a, 0xca])
        .unwrap();
    bytes[at] ^= 0x55;
    fs::write(&nameless, bytes).unwrap();
    let words = refusal(&nameless, &["--backing"]);
    assert!(words.contains("qemu-img rebase"), "{words}");
}

#[test]
fn a_chain_that_is_a_loop_or_too_long_is_refused() {
    let (_folder, dir) = folder();
    let path = |n: usize| dir.join(format!("{n}.qcow2"));
    for (n, below) in [(0, "1.qcow2"), (1, "0.qcow2")] {
        create(&path(n), &["-u", "-b", below, "-F", "qcow2"]);
    }
    let words = refusal(&path(0), &["--backing"]);
    assert!(words.contains("loop"), "{words}");
    let own = dir.join("own.qcow2");
    create(&own, &["-u", "-b", "own.qcow2", "-F", "qcow2"]);
    assert!(refusal(&own, &["--backing"]).contains("loop"));

    for n in 10..90 {
        create(
            &path(n),
            &["-u", "-b", &format!("{}.qcow2", n + 1), "-F", "qcow2"],
        );
    }
    create(&path(90), &[]);
    assert!(refusal(&path(10), &["--backing"]).contains("too many"));
    let (daemon, stream) = spawn(&path(60), &["--backing"]);
    let mut driver = drive(&daemon, stream, &Options::default());
    disk(&mut driver).read(0, &mut [0; 512]).unwrap();
}

/// Writes `bytes` at `at` of a copy of a sound image.
fn spoiled(sound: &Path, name: &str, at: u64, bytes: &[u8]) -> PathBuf {
    let path = sound.with_file_name(format!("{name}.qcow2"));
    fs::copy(sound, &path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(bytes, at).unwrap();
    path
}

#[test]
fn hostile_images_are_refused_in_words() {
    let (_folder, dir) = folder();
    let sound = dir.join("sound.qcow2");
    create(&sound, &[]);
    let huge = u32::MAX.to_be_bytes();
    for (name, at, bytes, expected) in [
        ("magic", 0, &b"QFJ"[..], "not in qcow2 format"),
        ("version", 4, &[0, 0, 0, 9], "version 9"),
        ("encrypted", 32, &[0, 0, 0, 2], "encrypted"),
        ("dirty", 79, &[1], "qemu-img check -r all"),
        ("corrupt", 79, &[2], "corrupt"),
        ("outside", 79, &[4], "a file of its own"),
        ("unheard", 72, &[0x80], "not supported"),
        ("cluster", 20, &[0, 0, 0, 63], "cluster size"),
        ("small", 20, &[0, 0, 0, 1], "cluster size"),
        ("size", 24, &[0xff; 8], "disk size"),
        (
            "more",
            24,
            &[0x7f, 0xff, 0, 0, 0, 0, 0, 0],
            "first-level table",
        ),
        ("l1", 36, &huge, "first-level table"),
        (
            "l1-place",
            40,
            &[0x7f, 0xff, 0, 0, 0, 0, 0, 0],
            "first-level table",
        ),
        ("reftable", 56, &huge, "refcount table"),
        ("order", 96, &[0, 0, 0, 60], "refcount"),
        ("length", 100, &huge, "header"),
        (
            "name",
            8,
            &[0, 0, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff],
            "backing file name",
        ),
    ] {
        let path = spoiled(&sound, name, at, bytes);
        let words = refusal(&path, &["--backing"]);
        assert!(words.contains(expected), "{name}: {words}");
        assert!(words.contains(text(&path)), "{name}: {words}");
        assert!(!words.contains("panicked"), "{name}: {words}");
    }
}

/// Tables that lead anywhere: any answer will do, but it comes, and the daemon lives.
#[test]
fn images_of_garbage_harm_nobody() {
    let (_folder, dir) = folder();
    let sound = dir.join("sound.qcow2");
    create(&sound, &["-o", "cluster_size=4k"]);
    let mut model = vec![0; SIZE as usize];
    churn(&sound, &[], &mut model, 5);
    let len = fs::metadata(&sound).unwrap().len();
    let mut numbers = Numbers(99);
    let path = dir.join("garbage.qcow2");
    for round in 0..60u8 {
        fs::copy(&sound, &path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        // Tables are near the start here; the header is left sound in half of the rounds.
        for _ in 0..200 {
            let at = if round % 2 == 0 {
                4096 + numbers.below(16 * 4096)
            } else {
                numbers.below(8192)
            };
            file.write_all_at(&[numbers.below(256) as u8], at.min(len - 1))
                .unwrap();
        }
        let (mut daemon, stream) = spawn(&path, &[]);
        let Ok(mut driver) = outboard_device::driver::Driver::new(stream, &Options::default())
        else {
            assert_eq!(
                daemon.wait(LIMIT).and_then(|s| s.code()),
                Some(1),
                "{}",
                daemon.words()
            );
            continue;
        };
        driver.start_queue(0, &QueueOptions::default()).unwrap();
        let mut disk = disk(&mut driver);
        let sectors = disk.sectors().unwrap().max(1);
        for _ in 0..40 {
            let sector = numbers.below(sectors);
            let mut data = vec![round; 4096];
            match numbers.below(4) {
                0 => drop(disk.read(sector, &mut data)),
                1 => drop(disk.discard(sector, 64)),
                2 => drop(disk.write_zeroes(sector, 16, false)),
                _ => drop(disk.write(sector, &data)),
            }
        }
        drop(disk.flush());
        assert!(daemon.is_alive(), "{}", daemon.words());
        let words = daemon.words();
        assert!(!words.contains("panicked"), "round {round}: {words}");
    }
}

#[test]
fn a_backing_file_that_is_gone_is_told_of_as_one() {
    let (_folder, dir) = folder();
    let path = dir.join("over.qcow2");
    let args = ["create", "-q", "-u", "-f", "qcow2", "-b", "gone.img", "-F"];
    let args = [&args[..], &["raw", path.to_str().unwrap(), "16M"]].concat();
    qemu_ok("qemu-img", &args);
    let words = refusal(&path, &["--backing"]);
    for part in [
        "over.qcow2",
        "its backing file",
        "gone.img",
        "qemu-img rebase",
    ] {
        assert!(words.contains(part), "{words}");
    }
    assert!(!words.contains("truncate"), "{words}");
}
