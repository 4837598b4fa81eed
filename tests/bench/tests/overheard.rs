//! What the bench tells a device, overheard on its way there.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

const SET_FEATURES: u32 = 2;
const SET_VRING_ENABLE: u32 = 18;
const SET_STATUS: u32 = 39;
const DRIVER_OK: u64 = 4;
const EVENT_IDX: u64 = 1 << 29;

/// A message of the frontend's: its number and its payload's first eight bytes.
type Heard = (u32, u64);

/// Hands on one message with its descriptors; `None` at the end of the stream.
fn hand_on(from: &mut UnixStream, to: &UnixStream) -> Option<Heard> {
    let mut message = vec![0; 12];
    let mut room = nix::cmsg_space!([i32; 8]);
    let mut parts = [IoSliceMut::new(&mut message)];
    let got = recvmsg::<()>(
        from.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::MSG_WAITALL,
    );
    let got = got.ok().filter(|got| got.bytes == 12)?;
    let mut fds = Vec::new();
    for control in got.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(some) = control {
            fds.extend(some);
        }
    }
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let (request, size) = (word(&message, 0), word(&message, 8) as usize);
    message.resize(12 + size, 0);
    from.read_exact(&mut message[12..]).ok()?;
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights };
    let parts = [IoSlice::new(&message)];
    let sent = sendmsg::<()>(to.as_raw_fd(), &parts, rights, MsgFlags::empty(), None);
    for fd in fds {
        nix::unistd::close(fd).unwrap();
    }
    assert_eq!(sent.ok()?, message.len());
    message.resize(message.len().max(20), 0);
    let payload = u64::from_ne_bytes(message[12..20].try_into().unwrap());
    Some((request, payload))
}

/// Tries for ten seconds.
fn soon<T>(mut tried: impl FnMut() -> io::Result<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match tried() {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Between a frontend, of one connection, and the backend at `socket`: all that the frontend says.
fn overhear(listener: &UnixListener, socket: &Path) -> Vec<Heard> {
    listener.set_nonblocking(true).unwrap();
    let (mut frontend, _) = soon(|| listener.accept());
    frontend.set_nonblocking(false).unwrap();
    let backend = soon(|| UnixStream::connect(socket));
    let (mut answers, mut to) = (backend.try_clone().unwrap(), frontend.try_clone().unwrap());
    let back = thread::spawn(move || io::copy(&mut answers, &mut to));
    let heard = std::iter::from_fn(|| hand_on(&mut frontend, &backend)).collect();
    // Whichever side has ended: so has the other.
    let _ = backend.shutdown(Shutdown::Both);
    let _ = back.join().unwrap();
    heard
}

/// The program; killed when dropped.
struct Bench(Child);

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bench(folder: &Path, arguments: &str) -> Bench {
    let child = Command::new(env!("CARGO_BIN_EXE_outboard-bench"))
        .args(arguments.split_whitespace())
        .env("TMPDIR", folder)
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn();
    Bench(child.unwrap())
}

/// What the bench says to the device that `serve` serves, in one case. It finds it at `overheard.sock`.
fn said(serve: &str, measure: &str) -> Vec<Heard> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let _backend = bench(folder, &format!("{serve} --socket device.sock"));
    let socket = folder.join("device.sock");
    for (name, more) in [("event-idx", ""), ("flags", "event-idx = 'off'\n")] {
        let description = format!("name = 'a'\npath = 'null'\nsocket = 'overheard.sock'\n{more}");
        fs::write(folder.join(name).with_extension("toml"), description).unwrap();
    }
    let listener = UnixListener::bind(folder.join("overheard.sock")).unwrap();
    let mut frontend = bench(
        folder,
        &format!("{measure} --depth 4 --warmup 0.02 --seconds 0.05"),
    );
    let heard = overhear(&listener, &socket);
    assert!(frontend.0.wait().unwrap().success(), "{heard:?}");
    heard
}

/// `DRIVER_OK` behind all of them: a device may take none that comes later.
#[test]
fn a_device_is_told_when_all_its_queues_are_up() {
    for (queues, serve, measure) in [
        (
            3,
            "serve-null --queues 3",
            "null --queues 3 --socket overheard.sock",
        ),
        (
            1,
            "serve-faulty --fault nothing --size 1M",
            "block --verify --verify-size 1M --socket overheard.sock",
        ),
    ] {
        let heard = said(serve, measure);
        let enabled: Vec<_> = (0..heard.len())
            .filter(|&n| heard[n].0 == SET_VRING_ENABLE && heard[n].1 >> 32 == 1)
            .collect();
        let ready = heard
            .iter()
            .position(|&(request, status)| request == SET_STATUS && status & DRIVER_OK != 0);
        assert_eq!(enabled.len(), queues, "{measure}: {heard:?}");
        assert!(
            ready > enabled.last().copied(),
            "{measure}: DRIVER_OK is not said, or too early: {heard:?}"
        );
    }
}

#[test]
fn who_offers_no_event_idx_is_driven_by_flags() {
    for (file, wanted) in [("event-idx.toml", EVENT_IDX), ("flags.toml", 0)] {
        let compare = format!("compare {file} --rounds 1 --no-floors --json all.jsonl");
        let heard = said("serve-null", &compare);
        let features = heard
            .iter()
            .find(|(request, _)| *request == SET_FEATURES)
            .map(|(_, features)| features & EVENT_IDX);
        assert_eq!(features, Some(wanted), "{file}: {heard:?}");
    }
}
