//! The daemon itself on a stream socket: frames between the SDK's driver, as the guest, and a peer
//! that keeps the framing of passt and QEMU, or does not; between two daemons; and passt.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod wire;

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{setsockopt, sockopt};
use outboard_device::driver::Daemon;
use outboard_device::driver::net::{F_CSUM, F_GUEST_CSUM, F_MAC, F_MRG_RXBUF, F_STATUS, TX};
use wire::{GUEST, Guest, HOST, LIMIT, LONGEST, Peer, frame, framed, listener};

#[test]
fn frames_pass_both_ways() {
    let (_folder, path, listener) = listener();
    let mut guest = Guest::new(&["--stream", &path]);
    assert!(guest.driver.has(F_MAC | F_STATUS | F_MRG_RXBUF));
    assert!(!guest.driver.has(F_CSUM) && !guest.driver.has(F_GUEST_CSUM));
    guest.expect_link(true);
    let mut peer = Peer::accept(&listener);
    for (round, len) in [14, 60, 1514, 9014, LONGEST, 61].into_iter().enumerate() {
        let out = frame(HOST, GUEST, len, round as u8);
        guest.send(&out);
        assert!(peer.receive() == out, "{len}");
        let back = frame(GUEST, HOST, len, !(round as u8));
        peer.send(&back);
        let got = guest.next();
        assert!(got.data == back, "{len}");
        assert_eq!(
            (got.header.flags, got.header.gso_type),
            (0, 0),
            "no offloads"
        );
    }
}

#[test]
fn frames_arrive_whole_however_the_stream_is_cut() {
    let (_folder, path, listener) = listener();
    let mut guest = Guest::new(&["--stream", &path]);
    let mut peer = Peer::accept(&listener);
    for byte in framed(&frame(GUEST, HOST, 70, 1)) {
        peer.0.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
    assert!(guest.next().data == frame(GUEST, HOST, 70, 1));
    // Runts are no frames, but keep their place in the stream.
    let burst: Vec<u8> = (0..200u8)
        .flat_map(|seed| {
            [
                framed(&[1; 13]),
                framed(&frame(GUEST, HOST, 60 + usize::from(seed) * 23, seed)),
                framed(&[]),
            ]
        })
        .flatten()
        .collect();
    let mut half = peer.0.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for piece in burst.chunks(4099) {
            half.write_all(piece).unwrap();
        }
    });
    for seed in 0..200u8 {
        let expected = frame(GUEST, HOST, 60 + usize::from(seed) * 23, seed);
        assert!(guest.next().data == expected, "{seed}");
    }
    writer.join().unwrap();
}

#[test]
fn a_peer_that_does_not_read_holds_the_guest_up_and_loses_nothing() {
    const COUNT: u16 = 400;
    let (_folder, path, listener) = listener();
    let mut guest = Guest::new(&["--stream", &path]);
    let mut peer = Peer::accept(&listener);
    let nth = |n: u16| frame(HOST, GUEST, 9000, n as u8);
    let mut sent = 0;
    let mut stuck = 0;
    while stuck < 50 {
        assert!(sent < COUNT, "nothing holds the guest up");
        if guest.try_send(&nth(sent)) {
            (sent, stuck) = (sent + 1, 0);
        } else {
            stuck += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let reader = std::thread::spawn(move || {
        (0..COUNT).all(|n| peer.receive() == frame(HOST, GUEST, 9000, n as u8))
    });
    for n in sent..COUNT {
        guest.send(&nth(n));
    }
    assert!(reader.join().unwrap());
}

/// A kick has the card look at a frame it has no room for; the peer makes room at that moment, and nothing else
/// happens.
#[test]
fn room_made_while_the_card_looks_at_a_frame_that_waits_is_heard_of() {
    const ROUNDS: usize = 250;
    const BIG: usize = 4 + LONGEST;
    let (ours, theirs) = UnixStream::pair().unwrap();
    // What waits in the card is written at once where there is room.
    setsockopt(&theirs, sockopt::SndBuf, &(1 << 20)).unwrap();
    let (theirs, number) = inheritable(theirs);
    let mut guest = Guest::new(&["--stream-fd", &number]);
    drop(theirs);
    let mut peer = Peer::new(ours);
    let big = frame(HOST, GUEST, LONGEST, 0);
    let mut room = vec![0; 1 << 16];
    for round in 0..ROUNDS {
        let (mut sent, mut stuck) = (0, 0);
        while stuck < 20 {
            if guest.try_send(&big) {
                (sent, stuck) = (sent + 1, 0);
            } else {
                stuck += 1;
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        let kicks = guest.driver.queue(TX).unwrap();
        let reads = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(100));
                reads.store(true, Ordering::Relaxed);
                let mut left = sent * BIG;
                while left > 0 {
                    left -= peer.0.read(&mut room).unwrap();
                }
            });
            while !reads.load(Ordering::Relaxed) {
                kicks.kick().unwrap();
            }
            reader
                .join()
                .unwrap_or_else(|_| panic!("stuck in round {round}"));
        });
    }
}

#[test]
fn a_peer_that_goes_pulls_the_cable_until_the_next_one_comes() {
    let (_folder, path, listener) = listener();
    let mut guest = Guest::new(&["--stream", &path]);
    let mut first = Peer::accept(&listener);
    // In the middle of a frame, which is lost with it.
    first.0.write_all(&[0, 0, 1, 0, 7]).unwrap();
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    drop(first);
    guest.expect_link(false);
    guest.send(&frame(HOST, GUEST, 100, 1));
    let listener = UnixListener::bind(&path).unwrap();
    let mut second = Peer::accept(&listener);
    guest.expect_link(true);
    second.send(&frame(GUEST, HOST, 100, 2));
    assert!(guest.next().data == frame(GUEST, HOST, 100, 2));
    guest.send(&frame(HOST, GUEST, 100, 3));
    assert!(second.receive() == frame(HOST, GUEST, 100, 3));
    assert!(guest.daemon.is_alive());
}

#[test]
fn a_length_beyond_all_frames_ends_the_connection() {
    let (_folder, path, listener) = listener();
    let mut guest = Guest::new(&["--stream", &path]);
    let mut peer = Peer::accept(&listener);
    peer.0.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    peer.expect_end();
    let words = guest.daemon.words();
    assert!(words.contains("bytes was announced"), "{words}");
    let mut next = Peer::accept(&listener);
    next.send(&frame(GUEST, HOST, 100, 2));
    assert!(guest.next().data == frame(GUEST, HOST, 100, 2));
}

#[test]
fn a_flood_of_runts_stops_neither_the_frames_nor_the_end() {
    const RUNTS: usize = 16 * 1024;
    let (_folder, path, listener) = listener();
    let mut guest = Guest::new(&["--stream", &path]);
    let mut peer = Peer::accept(&listener);
    // Of none and of one byte. With no frame among them at first, then with one now and then.
    let runts = [framed(&[]), framed(&[1])].concat().repeat(RUNTS / 2);
    let frames_too = Arc::new(AtomicBool::new(false));
    let (mut half, told) = (peer.0.try_clone().unwrap(), Arc::clone(&frames_too));
    let flood = std::thread::spawn(move || {
        let mut seed = 0;
        while half.write_all(&runts).is_ok() {
            if told.load(Ordering::Relaxed) {
                seed = (seed + 1) % 100;
                let real = framed(&frame(GUEST, HOST, 100, seed));
                let _ = half.write_all(&real);
            }
        }
    });
    for seed in 0..100u8 {
        let out = frame(HOST, GUEST, 100, seed);
        guest.send(&out);
        assert!(peer.receive() == out, "{seed}");
    }
    frames_too.store(true, Ordering::Relaxed);
    for seed in 1..20u8 {
        assert!(guest.next().data == frame(GUEST, HOST, 100, seed), "{seed}");
    }
    // The flood goes on while the guest and its card go.
    let Guest {
        driver, mut daemon, ..
    } = guest;
    drop(driver);
    assert_eq!(daemon.wait(LIMIT).and_then(|status| status.code()), Some(0));
    flood.join().unwrap();
}

#[test]
fn nobody_at_the_path_is_a_cable_not_plugged_in_yet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cable");
    let mut guest = Guest::new(&["--stream", path.to_str().unwrap()]);
    guest.expect_link(false);
    assert!(guest.daemon.words().contains("Nobody is at"));
    let listener = UnixListener::bind(&path).unwrap();
    let mut peer = Peer::accept(&listener);
    guest.expect_link(true);
    guest.send(&frame(HOST, GUEST, 100, 3));
    assert!(peer.receive() == frame(HOST, GUEST, 100, 3));
}

#[test]
fn two_cards_are_wired_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cable").display().to_string();
    let mut a = Guest::new(&["--stream-listen", &path]);
    a.expect_link(false);
    let mut b = Guest::new(&["--stream", &path]);
    a.expect_link(true);
    b.expect_link(true);
    for seed in 0..100u8 {
        let (there, back) = (
            frame(HOST, GUEST, 60 + usize::from(seed) * 50, seed),
            frame(GUEST, HOST, 1514, seed),
        );
        a.send(&there);
        assert!(b.next().data == there, "{seed}");
        b.send(&back);
        assert!(a.next().data == back, "{seed}");
    }
    // A third has no place, nor has a crowd, and they do not disturb.
    let crowd: Vec<_> = (0..100)
        .map(|_| Peer::new(UnixStream::connect(&path).unwrap()))
        .collect();
    for mut third in crowd {
        third.expect_end();
    }
    a.send(&frame(HOST, GUEST, 60, 7));
    assert!(b.next().data == frame(HOST, GUEST, 60, 7));
    // The other VM goes; another comes.
    drop(b);
    a.expect_link(false);
    let mut c = Guest::new(&["--stream", &path]);
    a.expect_link(true);
    c.send(&frame(HOST, GUEST, 60, 8));
    assert!(a.next().data == frame(HOST, GUEST, 60, 8));
    // A live listener keeps its path, and takes it along.
    let program = Path::new(env!("CARGO_BIN_EXE_outboard-net"));
    let (mut other, _stream) = Daemon::spawn(program, ["--stream-listen", &path]).unwrap();
    assert_eq!(other.wait(LIMIT).and_then(|status| status.code()), Some(1));
    let Guest {
        driver, mut daemon, ..
    } = a;
    drop(driver);
    assert_eq!(daemon.wait(LIMIT).and_then(|status| status.code()), Some(0));
    assert!(!Path::new(&path).exists());
}

/// Lets the children of this process inherit `fd`.
fn inheritable(fd: impl Into<OwnedFd>) -> (OwnedFd, String) {
    let fd = fd.into();
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let number = fd.as_raw_fd().to_string();
    (fd, number)
}

#[test]
fn an_inherited_stream_is_the_cable_until_it_ends() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (theirs, number) = inheritable(theirs);
    let mut guest = Guest::new(&["--stream-fd", &number]);
    drop(theirs);
    let mut peer = Peer::new(ours);
    peer.send(&frame(GUEST, HOST, 100, 1));
    assert!(guest.next().data == frame(GUEST, HOST, 100, 1));
    guest.send(&frame(HOST, GUEST, 100, 2));
    assert!(peer.receive() == frame(HOST, GUEST, 100, 2));
    // Not by a close: a child of another test may have inherited the other end.
    peer.0.shutdown(std::net::Shutdown::Both).unwrap();
    guest.expect_link(false);
    assert!(guest.daemon.is_alive());

    let program = Path::new(env!("CARGO_BIN_EXE_outboard-net"));
    let (mut other, _stream) = Daemon::spawn(program, ["--stream-fd", "77"]).unwrap();
    assert_eq!(other.wait(LIMIT).and_then(|status| status.code()), Some(1));
    assert!(other.words().contains("is not a connected stream socket"));
}

#[test]
fn frames_that_wait_for_a_peer_go_with_it() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (theirs, number) = inheritable(theirs);
    let mut guest = Guest::new(&["--stream-fd", &number]);
    drop(theirs);
    let (mut sent, mut stuck) = (0, 0);
    while stuck < 50 {
        assert!(sent < 100, "nothing holds the guest up");
        if guest.try_send(&frame(HOST, GUEST, LONGEST, 0)) {
            (sent, stuck) = (sent + 1, 0);
        } else {
            stuck += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    // It reads no more than before: that it has gone is seen by who receives, not by who sends.
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    guest.expect_link(false);
    guest.send(&frame(HOST, GUEST, 100, 1));
}

#[test]
fn passt_answers() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (theirs, number) = inheritable(theirs);
    let passt = Command::new("passt")
        .args(["--foreground", "--stderr", "--quiet", "--fd", &number])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut passt = match passt {
        Ok(child) => child,
        Err(error) => {
            let _ = writeln!(io::stdout(), "SKIPPED, passt cannot be run here: {error}");
            return;
        }
    };
    drop(theirs);
    let (ours, number) = inheritable(ours);
    let mut guest = Guest::new(&["--stream-fd", &number]);
    // Who has an address of a network for documentation? passt answers for every one but ours.
    let (us, other) = ([198, 51, 100, 2], [198, 51, 100, 77]);
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &GUEST, &us, &[0; 6], &other].concat();
    guest.send(&[&[0xff; 6][..], &GUEST, &[8, 6], &arp].concat());
    let reply = loop {
        let got = guest.next().data;
        if got.get(12..14) == Some(&[8, 6]) && got.get(20..22) == Some(&[0, 2]) {
            break got;
        }
        if passt.try_wait().unwrap().is_some() {
            let _ = writeln!(io::stdout(), "SKIPPED, passt does not work here");
            return;
        }
    };
    assert_eq!(reply.get(..6), Some(&GUEST[..]));
    assert_eq!(reply.get(28..32), Some(&other[..]));
    drop(ours);
    drop(guest);
    let _ = passt.kill();
    let _ = passt.wait();
}
