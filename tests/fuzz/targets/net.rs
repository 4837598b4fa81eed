//! A card between two who are hostile: the guest's frames and buffers, and the peer's bytes on the
//! stream. What the peer gets is whole frames; what the guest gets is a frame the peer sent, behind a
//! header; the guest's memory is safe, and the card works afterwards. And the control queue.
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outboard_device::{Device, DeviceError, Worker};
use outboard_fuzz::{Buffer, Guest};
use outboard_net::cable::Cable;
use outboard_net::card::Card;
use outboard_net::control::ControlWorker;
use outboard_net::filter::Filter;
use outboard_net::link::Link;
use outboard_net::pairs::Pairs;
use outboard_net::stream::Stream;

const RX: u16 = 0;
const TX: u16 = 1;

#[derive(Debug, Arbitrary)]
enum Life {
    Card(Vec<Op>),
    Control(Vec<(Vec<u8>, u8)>),
}

#[derive(Debug, Arbitrary)]
enum Op {
    /// The guest sends: a header and a frame of so many bytes, cut here.
    Send {
        len: u16,
        fill: u8,
        cut: u8,
        headless: bool,
    },
    /// The guest offers buffers for a frame.
    Post(Vec<u16>),
    /// The peer sends a frame, in good order.
    Frame {
        len: u16,
        fill: u8,
    },
    /// The peer sends whatever.
    Bytes(Vec<u8>),
    /// The peer reads.
    Drain,
    Hangup,
}

fn pairs() -> (Pairs, Arc<Link>, UnixStream) {
    let link = Arc::new(Link::new());
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let stream = Stream::inherit(ours.into_raw_fd(), Arc::clone(&link)).unwrap();
    (
        Pairs::new(vec![Cable::Stream(stream)]).unwrap(),
        link,
        theirs,
    )
}

/// Nothing but a control queue.
struct Control(Arc<Pairs>, Arc<Link>);

impl Device for Control {
    fn device_id(&self) -> u32 {
        1
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_groups(&self) -> Vec<u16> {
        vec![1]
    }
    fn config_len(&self) -> u32 {
        0
    }
    fn read_config(&self, _: u32, _: &mut [u8]) {}
    fn set_features(&mut self, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
    fn reset(&mut self) {}
    fn start(&mut self, _: usize) -> Result<Worker, DeviceError> {
        Ok(Worker::queues(ControlWorker::new(
            Arc::clone(&self.0),
            Arc::new(Filter::default()),
            Arc::clone(&self.1),
            u64::MAX,
        )))
    }
}

fn control(commands: &[(Vec<u8>, u8)]) {
    let (pairs, link, _peer) = pairs();
    let pairs = Arc::new(pairs);
    let mut guest = Guest::new(Control(Arc::clone(&pairs), link), 1);
    for (command, room) in commands.iter().take(50) {
        let (room, cut) = (usize::from(room % 4), command.len() / 2);
        let parts = [
            Buffer::Readable(command[..cut].to_vec()),
            Buffer::Readable(command[cut..].to_vec()),
            Buffer::Writable(room),
        ];
        let Some((chain, answer)) = guest.chain(&parts) else {
            break;
        };
        let written = guest.ask(0, &chain);
        assert_eq!(written as usize, room.min(1));
        if room > 0 {
            // One pair there is, and one may be asked for.
            let sound = *command == [4, 0, 1, 0];
            assert_eq!(guest.read(&answer)[0], u8::from(!sound), "{command:?}");
        }
    }
    guest.end();
}

fn card(ops: &[Op]) {
    let (pairs, link, mut peer) = pairs();
    let mut guest = Guest::new(Card::new(pairs, link, None, None), 2);
    let (mut sent, mut got, mut sound) = (Vec::new(), Vec::new(), true);
    let mut alive = true;
    let mut read = |peer: &mut UnixStream, alive: bool| {
        let mut bytes = [0; 1 << 16];
        while let Ok(count @ 1..) = peer.read(&mut bytes) {
            got.extend_from_slice(&bytes[..count]);
        }
        // Whole frames, of lengths that frames have.
        let mut rest = &got[..];
        while let Some((len, more)) = rest.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*len) as usize;
            assert!((14..=68 * 1024).contains(&len), "a frame of {len} bytes");
            let Some(frame) = more.get(..len) else {
                assert!(!alive || more.len() < len);
                break;
            };
            assert!(
                frame.iter().all(|byte| *byte == frame[0]),
                "two frames in one"
            );
            rest = &more[len..];
        }
    };
    for op in ops.iter().take(60) {
        match op {
            Op::Send {
                len,
                fill,
                cut,
                headless,
            } => {
                let mut bytes = vec![0; if *headless { 0 } else { 12 }];
                bytes.resize(bytes.len() + usize::from(*len), *fill);
                let cut = usize::from(*cut) % (bytes.len() + 1);
                let parts = [
                    Buffer::Readable(bytes[..cut].to_vec()),
                    Buffer::Readable(bytes[cut..].to_vec()),
                ];
                if bytes.is_empty() || (*headless && bytes.len() >= 12) {
                    continue;
                }
                let Some((chain, _)) = guest.chain(&parts) else {
                    break;
                };
                read(&mut peer, alive);
                assert_eq!(guest.ask(TX, &chain), 0);
            }
            Op::Post(lens) => {
                let lens = lens
                    .iter()
                    .take(8)
                    .map(|len| Buffer::Writable((*len).into()));
                let lens: Vec<_> = lens.collect();
                let Some((chain, places)) = guest.chain(&lens).filter(|c| !c.0.is_empty()) else {
                    continue;
                };
                let queue = guest.driver.queue(RX).unwrap();
                // A full ring takes no more.
                let _ = queue.submit(&chain, 1);
                drop(places);
            }
            Op::Frame { len, fill } => {
                let len = u32::from(*len).max(14);
                let mut bytes = len.to_be_bytes().to_vec();
                bytes.resize(4 + len as usize, *fill);
                match peer.write(&bytes) {
                    Ok(count) => sound &= count == bytes.len(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => alive = false,
                }
                sent.push(len);
            }
            Op::Bytes(bytes) => {
                sound = false;
                let _ = peer.write(bytes);
            }
            Op::Drain => read(&mut peer, alive),
            Op::Hangup => {
                let _ = peer.shutdown(std::net::Shutdown::Both);
                alive = false;
            }
        }
        let queue = guest.driver.queue(RX).unwrap();
        while let Ok(Some(used)) = queue.poll() {
            assert!(used.written <= 12 + 68 * 1024);
        }
    }
    let _ = sound;
    drop(peer);
    guest.end();
}

fuzz_target!(|life: Life| match life {
    Life::Card(ops) => card(&ops),
    Life::Control(commands) => control(&commands),
});
