//! A hostile frontend against the SDK's session: messages with and without sense, in any order, on
//! memory that comes and goes, with rings of random bytes. The session answers or ends, the device is
//! told of each start and stop, nothing panics or hangs, and memory that was never handed over is
//! never touched.
#![no_main]

use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use outboard_device::device::LocalFuture;
use outboard_device::queue::RequestStream;
use outboard_device::session;
use outboard_device::{
    AsyncDevice, Device, DeviceError, DeviceEvents, Progress, Queue, QueueWorker, Ready, Request,
    Worker,
};
use outboard_fuzz::Number;

/// Bytes of the file that serves as guest memory; what lies behind them is nobody's.
const MEMORY: u64 = 0x1_0000;
const BEHIND: u64 = 0x1000;
const CANARY: u8 = 0xa5;

#[derive(Debug, Arbitrary)]
struct Life {
    way: Way,
    /// What the guest has in its memory, again on each page.
    page: Vec<u16>,
    acts: Vec<Act>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
enum Way {
    Fast,
    Simple,
    Hoarding,
}

#[derive(Debug, Arbitrary)]
enum Act {
    /// All that a ring needs, in good order.
    Start {
        index: u8,
        large: bool,
        page: u8,
    },
    /// `SET_FEATURES`, `SET_PROTOCOL_FEATURES`, `SET_STATUS`, `GET_STATUS` and others with a u64.
    Word {
        request: u8,
        value: Number,
    },
    /// `SET_VRING_NUM`, `_BASE`, `GET_VRING_BASE`, `SET_VRING_ENABLE`.
    Ring {
        request: u8,
        index: u8,
        value: Number,
    },
    Addresses {
        index: u8,
        at: [Number; 3],
    },
    Table(Vec<[Number; 4]>),
    Add([Number; 4]),
    Remove([Number; 4]),
    /// Kick, call or error descriptor: of an eventfd, a plain file, or none.
    Descriptor {
        request: u8,
        index: u8,
        kind: u8,
    },
    Config {
        write: bool,
        at: Number,
        len: u8,
    },
    Empty(u8),
    /// Whatever, with as many descriptors.
    Raw {
        request: u8,
        flags: u8,
        size: Number,
        body: Vec<u8>,
        fds: u8,
    },
    /// The guest kicks.
    Kick,
    /// The guest writes its memory.
    Poke {
        at: u16,
        value: u16,
    },
}

struct Inverter {
    way: Way,
    started: Arc<AtomicUsize>,
}

fn invert(request: &Request) -> u32 {
    let mut bytes = vec![0; request.reader().len().min(0x1_0000)];
    request.reader().read(&mut bytes);
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    request.writer().write(&bytes) as u32
}

impl Device for Inverter {
    fn device_id(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        0b101
    }
    fn queue_groups(&self) -> Vec<u16> {
        vec![1, 2]
    }
    fn max_queue_size(&self) -> u16 {
        256
    }
    fn config_len(&self) -> u32 {
        8
    }
    fn read_config(&self, offset: u32, data: &mut [u8]) {
        data.copy_from_slice(&b"outboard"[offset as usize..][..data.len()]);
    }
    fn write_config(&mut self, offset: u32, data: &[u8]) {
        assert!(offset as usize + data.len() <= 8);
    }
    fn set_features(&mut self, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
    fn attach(&mut self, _: DeviceEvents) {}
    fn start(&mut self, _: usize) -> Result<Worker, DeviceError> {
        self.started.fetch_add(1, Ordering::SeqCst);
        Ok(match self.way {
            Way::Simple => Worker::asynchronous(Simple),
            way => Worker::queues(Fast(way, Vec::new())),
        })
    }
    fn stop(&mut self, _: usize, _: Worker) {
        self.started.fetch_sub(1, Ordering::SeqCst);
    }
    fn reset(&mut self) {
        assert_eq!(
            self.started.load(Ordering::SeqCst),
            0,
            "reset while a worker runs"
        );
    }
}

struct Fast(Way, Vec<Request>);

impl QueueWorker for Fast {
    fn run(&mut self, queues: &mut [Queue], _: Ready) -> Result<Progress, DeviceError> {
        let mut progress = Progress::Idle;
        for queue in queues {
            let mut done = Vec::new();
            while let Some(request) = queue.pop()? {
                if self.0 == Way::Hoarding {
                    self.1.push(request);
                } else {
                    let written = invert(&request);
                    done.push((request, written));
                }
                progress = Progress::Worked;
            }
            queue.complete(done)?;
        }
        Ok(progress)
    }

    fn drain(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        for request in self.1.drain(..) {
            if let Some(queue) = queues.iter_mut().find(|q| q.index() == request.queue()) {
                queue.give_back(request);
            }
        }
        Ok(Progress::Idle)
    }
}

struct Simple;

impl AsyncDevice for Simple {
    fn run(&mut self, queues: Vec<RequestStream>) -> LocalFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let mut all = tokio::task::JoinSet::new();
            for mut queue in queues {
                all.spawn_local(async move {
                    while let Some(request) = queue.next().await? {
                        let written = invert(&request);
                        request.complete(written)?;
                    }
                    Ok::<_, DeviceError>(())
                });
            }
            while let Some(served) = all.join_next().await {
                served.map_err(DeviceError::other)??;
            }
            Ok(())
        })
    }
}

struct Frontend {
    stream: UnixStream,
    memory: std::fs::File,
    event: EventFd,
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// A region as a table has it: mostly within the memory there is.
fn region([guest, size, user, offset]: &[Number; 4]) -> [u64; 4] {
    if guest.0 & 3 == 0 {
        return [0, MEMORY, 0, 0];
    }
    // What is behind guest memory in the file is never given away.
    let offset = if offset.0 < MEMORY {
        offset.0 & !0xfff
    } else {
        0
    };
    let size = if size.0 > MEMORY - offset {
        MEMORY - offset
    } else {
        size.0
    };
    [guest.0, size, user.0, offset]
}

impl Frontend {
    fn send(&self, request: u32, payload: &[u8], fds: &[i32]) -> nix::Result<usize> {
        self.send_raw([request, 1 | 8, payload.len() as u32], payload, fds)
    }

    fn send_raw(&self, header: [u32; 3], payload: &[u8], fds: &[i32]) -> nix::Result<usize> {
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend_from_slice(payload);
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(&bytes)];
        sendmsg::<()>(
            self.stream.as_raw_fd(),
            &parts,
            rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
    }

    fn act(&self, act: &Act) -> nix::Result<()> {
        let (memory, event) = (self.memory.as_raw_fd(), self.event.as_raw_fd());
        let index = |index: u8| {
            if index < 250 {
                u32::from(index % 4)
            } else {
                u32::MAX
            }
        };
        match act {
            Act::Start { index, large, page } => {
                let (index, at) = (u64::from(*index % 3), u64::from(*page % 13) << 12);
                let size = if *large { 256 } else { 16 };
                self.send(5, &words(&[1, 0, MEMORY, 0, 0]), &[memory])?;
                self.send(8, &words(&[index | size << 32]), &[])?;
                self.send(9, &words(&[index, at, at + 0x1000, at + 0x1800, 0]), &[])?;
                self.send(12, &words(&[index]), &[event])?;
                self.send(18, &words(&[index | 1 << 32]), &[])?;
            }
            Act::Word { request, value } => {
                let request = [2, 16, 39, 39, 2][usize::from(*request) % 5];
                // Mostly what lets the session go on.
                let value = if request == 2 {
                    value.0 | 1 << 30
                } else {
                    value.0
                };
                self.send(request, &words(&[value]), &[])?;
            }
            Act::Ring {
                request,
                index: at,
                value,
            } => {
                let request = [8, 10, 11, 18][usize::from(*request) % 4];
                self.send(request, &words(&[pair(index(*at), value.0 as u32)]), &[])?;
            }
            Act::Addresses {
                index: at,
                at: [desc, used, avail],
            } => {
                let payload = [pair(index(*at), 0), desc.0, used.0, avail.0, 0];
                self.send(9, &words(&payload), &[])?;
            }
            Act::Table(regions) => {
                let regions: Vec<_> = regions.iter().take(8).map(region).collect();
                let mut payload = vec![regions.len() as u64];
                payload.extend(regions.iter().flatten());
                self.send(5, &words(&payload), &vec![memory; regions.len()])?;
            }
            Act::Add(numbers) => {
                let [a, b, c, d] = region(numbers);
                self.send(37, &words(&[0, a, b, c, d]), &[memory])?;
            }
            Act::Remove(numbers) => {
                let [a, b, c, d] = region(numbers);
                self.send(38, &words(&[0, a, b, c, d]), &[])?;
            }
            Act::Descriptor {
                request,
                index,
                kind,
            } => {
                let (none, fds) = match kind % 3 {
                    0 => (0, &[event][..]),
                    1 => (0, &[memory][..]),
                    _ => (0x100, &[][..]),
                };
                let request = 12 + u32::from(request % 3);
                self.send(request, &words(&[u64::from(index % 4) | none]), fds)?;
            }
            Act::Config { write, at, len } => {
                let mut payload = words(&[pair(at.0 as u32, (*len).into())]);
                payload.extend([0; 4]);
                payload.resize(payload.len() + usize::from(*len), 1);
                self.send(24 + u32::from(*write), &payload, &[])?;
            }
            Act::Empty(request) => {
                let request = [3, 4, 34, 17, 36, 40, 1, 15][usize::from(*request) % 8];
                self.send(request, &[], &[])?;
            }
            Act::Raw {
                request,
                flags,
                size,
                body,
                fds,
            } => {
                let size = match size.0 {
                    0..8 => body.len() as u64,
                    size => size,
                };
                let header = [u32::from(request % 48), u32::from(*flags), size as u32];
                // Eventfds: guest memory as a table would be more than its part.
                self.send_raw(header, body, &vec![event; usize::from(fds % 12)])?;
            }
            Act::Kick => {
                let _ = self.event.write(1);
            }
            Act::Poke { at, value } => {
                let _ = self
                    .memory
                    .write_all_at(&value.to_le_bytes(), u64::from(*at) & 0xfffe);
            }
        }
        Ok(())
    }
}

fuzz_target!(|life: Life| {
    let memory = tempfile::tempfile().unwrap();
    let page: Vec<u8> = life
        .page
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    for at in (0..MEMORY).step_by(0x1000) {
        memory
            .write_all_at(&page[..page.len().min(0x1000)], at)
            .unwrap();
    }
    memory.set_len(MEMORY).unwrap();
    memory
        .write_all_at(&[CANARY; BEHIND as usize], MEMORY)
        .unwrap();
    let event = EventFd::from_value_and_flags(1, EfdFlags::EFD_NONBLOCK).unwrap();
    let (stream, theirs) = UnixStream::pair().unwrap();
    let started = Arc::new(AtomicUsize::new(0));
    let mut device = Inverter {
        way: life.way,
        started: Arc::clone(&started),
    };
    let served = std::thread::spawn(move || drop(session::serve(&mut device, &theirs)));
    let mut replies = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || drop(replies.read_to_end(&mut Vec::new())));
    let frontend = Frontend {
        stream,
        memory,
        event,
    };
    // Everything is agreed on first, so that more than refusals is reached.
    let _ = frontend.send(2, &words(&[1 << 30 | 3 << 28]), &[]);
    let _ = frontend.send(16, &words(&[0x1_a229]), &[]);
    for act in &life.acts {
        if frontend.act(act).is_err() {
            break;
        }
    }
    let _ = frontend.stream.shutdown(std::net::Shutdown::Write);
    served.join().expect("the session panicked");
    assert_eq!(
        started.load(Ordering::SeqCst),
        0,
        "a worker was not handed back"
    );
    let _ = frontend.stream.shutdown(std::net::Shutdown::Both);
    reader.join().unwrap();
    let mut behind = [0; BEHIND as usize];
    frontend.memory.read_exact_at(&mut behind, MEMORY).unwrap();
    assert!(
        behind.iter().all(|byte| *byte == CANARY),
        "memory behind the guest's was written"
    );
});
