//! A hostile backend against the VMM's frontend: any answer to any message, with descriptors nobody
//! asked for, half an answer, or none; requests of its own at any time. It costs its device at most:
//! nothing panics, every reset ends, and the VMM goes on with the next one.
#![no_main]

use std::collections::VecDeque;
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use outboard::config::{DeviceConfig, Host, OnExit, VirtioId};
use outboard::frontend::{Deadlines, Device, Lost, Owner, Spec};
use outboard::memory::RamRegion;
use outboard::supervisor::Supervisor;
use outboard::transport::{QueueStart, Start, TransportEvents, VirtioDevice};
use outboard_fuzz::Number;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Reached when a thread of the device hangs.
const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(30);

#[derive(Debug, Arbitrary)]
struct Life {
    features: Number,
    protocol: u64,
    queues: Number,
    config: Vec<u8>,
    /// One for each message, the honest ones left out; honest from there on.
    answers: Vec<Answer>,
    drives: Vec<Drive>,
}

#[derive(Debug, Arbitrary)]
enum Answer {
    Honest,
    Nothing,
    Die,
    Number(Number),
    Body(Vec<u8>),
    /// A header of these fields.
    Message {
        code: u8,
        flags: u8,
        size: Number,
        body: Vec<u8>,
    },
    Bytes(Vec<u8>),
    /// The honest answer, with descriptors.
    WithFiles(u8),
    /// On the channel of its own, and then the honest answer.
    Request {
        code: u8,
        flags: u8,
        size: Number,
        body: Vec<u8>,
        files: u8,
    },
}

#[derive(Debug, Arbitrary)]
enum Drive {
    Start { queues: u8, size: u8 },
    StartQueue(u8),
    StopQueue(u8),
    WriteConfig { offset: Number, data: Vec<u8> },
    ReadConfig { offset: Number, len: u8 },
    Reset,
    Wait,
}

struct Deaf;

impl Owner for Deaf {
    fn device_lost(&self, lost: &Lost) {
        assert!(!lost.reason.is_empty());
    }

    fn device_cut_off(&self, _: &Lost) {
        panic!("nothing stands behind this backend");
    }
}

impl TransportEvents for Deaf {
    fn config_changed(&self) {}
    fn needs_reset(&self) {}
}

static SUPERVISOR: LazyLock<Arc<Supervisor>> =
    LazyLock::new(|| Arc::new(Supervisor::start().unwrap()));
static MEMORY: LazyLock<Vec<RamRegion>> = LazyLock::new(|| {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let fd = Arc::new(file);
    vec![RamRegion {
        guest_addr: 0,
        size: 1 << 20,
        host_addr: 0,
        fd,
        offset: 0,
    }]
});

/// A message: two words, the length, and a body.
fn message(code: u32, flags: u32, size: u32, body: &[u8]) -> Vec<u8> {
    let header = [code, flags, size];
    header
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .chain(body.iter().copied())
        .collect()
}

fn send(stream: &UnixStream, bytes: &[u8], files: usize) -> bool {
    let fds = vec![stream.as_raw_fd(); files];
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if files == 0 { &[][..] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    bytes.is_empty()
        || sendmsg::<()>(
            stream.as_raw_fd(),
            &[IoSlice::new(bytes)],
            rights,
            flags,
            None,
        )
        .is_ok()
}

fn word(bytes: &[u8], index: usize) -> u32 {
    bytes
        .get(4 * index..4 * index + 4)
        .map_or(0, |b| u32::from_ne_bytes(b.try_into().unwrap()))
}

struct Backend {
    features: u64,
    protocol: u64,
    queues: u64,
    config: Vec<u8>,
    status: u64,
    answers: VecDeque<Answer>,
    channel: Option<UnixStream>,
}

impl Backend {
    fn serve(&mut self, mut stream: &UnixStream) {
        loop {
            let mut header = [0; 12];
            let Ok((n @ 1.., file)) = stream.recv_with_fd(&mut header) else {
                return;
            };
            if n < 12 && stream.read_exact(&mut header[n..]).is_err() {
                return;
            }
            let mut body = vec![0; word(&header, 2) as usize];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            let code = word(&header, 0);
            if code == 21 {
                self.channel = file.map(|file| std::os::fd::OwnedFd::from(file).into());
            }
            let honest = self.honest(code, &body, word(&header, 1) & 8 != 0);
            let honest = honest.map(|body| message(code, 5, body.len() as u32, &body));
            let honest = honest.unwrap_or_default();
            let sent = match self.answers.pop_front() {
                None | Some(Answer::Honest) => send(stream, &honest, 0),
                Some(Answer::Nothing) => true,
                Some(Answer::Die) => return,
                Some(Answer::Number(number)) => {
                    send(stream, &message(code, 5, 8, &number.0.to_ne_bytes()), 0)
                }
                Some(Answer::Body(body)) => {
                    send(stream, &message(code, 5, body.len() as u32, &body), 0)
                }
                Some(Answer::Message {
                    code,
                    flags,
                    size,
                    body,
                }) => {
                    let bytes = message(code.into(), flags.into(), size.0 as u32, &body);
                    send(stream, &bytes, 0)
                }
                Some(Answer::Bytes(bytes)) => send(stream, &bytes, 0),
                Some(Answer::WithFiles(count)) => send(stream, &honest, usize::from(count % 40)),
                Some(Answer::Request {
                    code,
                    flags,
                    size,
                    body,
                    files,
                }) => {
                    if let Some(channel) = &self.channel {
                        let code = if code < 128 { 2 } else { code.into() };
                        let size = if size.0 < 8 {
                            body.len() as u64
                        } else {
                            size.0
                        };
                        let bytes = message(code, flags.into(), size as u32, &body);
                        send(channel, &bytes, usize::from(files % 4));
                    }
                    send(stream, &honest, 0)
                }
            };
            if !sent {
                return;
            }
        }
    }

    fn honest(&mut self, code: u32, body: &[u8], need_reply: bool) -> Option<Vec<u8>> {
        let number = |value: u64| Some(value.to_ne_bytes().to_vec());
        match code {
            1 => number(self.features),
            15 => number(self.protocol),
            17 => number(self.queues),
            40 => number(self.status),
            11 => Some(body.to_vec()),
            24 => {
                let len = word(body, 1).min(4096);
                let bytes = (0..len as usize).map(|at| self.config.get(at).copied().unwrap_or(0));
                let mut reply = [0, len, 0]
                    .iter()
                    .flat_map(|w| w.to_ne_bytes())
                    .collect::<Vec<_>>();
                reply.extend(bytes);
                Some(reply)
            }
            39 => {
                self.status = u64::from(word(body, 0));
                need_reply.then(|| vec![0; 8])
            }
            _ => need_reply.then(|| vec![0; 8]),
        }
    }
}

fn queue(index: u8, size: u8) -> QueueStart {
    let size = 1u16 << (size % 9);
    let eventfd = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap();
    QueueStart {
        index: u16::from(index % 3),
        size,
        desc: 0x1000,
        avail: 0x2000,
        used: if index > 250 { 0xf_ffff_ffff } else { 0x3000 },
        kick: eventfd(),
        call: eventfd(),
    }
}

fn settle(device: &Device) {
    device.reset();
    let end = Instant::now() + LONG;
    while !device.is_reset() {
        assert!(Instant::now() < end, "a reset does not end");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn drive(device: &Device, drives: &[Drive]) {
    let mut started = false;
    for drive in drives.iter().take(30) {
        match drive {
            Drive::Start { queues, size } if !started => {
                started = true;
                let queues = (0..3u8).filter(|at| queues >> at & 1 != 0);
                device.start(Start {
                    features: device.features() | 1 << 32,
                    queues: queues.map(|at| queue(at, *size)).collect(),
                });
            }
            Drive::StartQueue(index) if started => device.start_queue(queue(*index, 4)),
            Drive::StopQueue(index) if started => {
                device.stop_queue((*index % 3).into());
                device.is_queue_stopped((*index % 3).into());
            }
            Drive::WriteConfig { offset, data } if !data.is_empty() => {
                device.write_config(offset.0 as u32, &data[..data.len().min(8)]);
            }
            Drive::ReadConfig { offset, len } => {
                device.read_config(offset.0 as u32, &mut vec![0; usize::from(len % 9)]);
                device.config_generation();
            }
            Drive::Reset => {
                started = false;
                settle(device);
            }
            Drive::Wait => std::thread::yield_now(),
            _ => {}
        }
    }
}

fuzz_target!(|life: Life| {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut backend = Backend {
        features: life.features.0 | 1 << 32 | 1 << 30,
        protocol: life.protocol | 0x229,
        queues: life.queues.0,
        config: life.config,
        status: 0,
        answers: life.answers.into(),
        channel: None,
    };
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let served = std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if ended.load(Ordering::SeqCst) {
                return;
            }
            backend.serve(&stream);
            backend.channel = None;
        }
    });
    let spec = Spec {
        config: DeviceConfig {
            id: "disk0".into(),
            virtio_id: VirtioId::BLOCK,
            slot: 4,
            host: Host::Socket { path: path.clone() },
            queues: None,
            queue_size: None,
            tag: None,
            on_exit: OnExit::Degrade,
        },
        terminal: false,
        deadlines: Deadlines {
            start: SHORT,
            call: SHORT,
            reset: SHORT,
        },
    };
    let begin = Instant::now();
    let ready = Device::begin(spec, &MEMORY, &SUPERVISOR, Arc::new(Deaf))
        .unwrap()
        .wait();
    match ready {
        Ok(device) => {
            let identity = device.identity();
            assert!((1..=1024).contains(&identity.queues) && identity.config_len <= 4096);
            assert_eq!(
                device.features() & 1 << 30,
                0,
                "a feature of vhost-user's is shown"
            );
            device.attach(Arc::new(Deaf));
            drive(&device, &life.drives);
            settle(&device);
            device.close();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert!(
        begin.elapsed() < LONG * 2,
        "a backend keeps the VMM waiting"
    );
    over.store(true, Ordering::SeqCst);
    drop(UnixStream::connect(&path));
    served.join().unwrap();
});
