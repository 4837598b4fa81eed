//! What the targets share: numbers and bytes as a hostile party would choose them.

pub mod ring;

use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use outboard_device::driver::{Driver, Options, QueueOptions, Segment, Window};
use outboard_device::{Device, session};

/// A number that is mostly small or round: it leads further than any of 2^64.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub u64);

impl<'a> Arbitrary<'a> for Number {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let kind = u8::arbitrary(u)?;
        Ok(Self(match kind % 8 {
            0 | 1 => u64::from(kind / 8),
            2 | 3 => u64::from(u16::arbitrary(u)?),
            4 => u64::from(u8::arbitrary(u)?) << 12,
            5 => 1u64
                .wrapping_shl(u32::from(kind / 8) * 2 + 2)
                .wrapping_sub(1),
            6 => u64::from(kind).wrapping_sub(0x80),
            _ => u64::arbitrary(u)?,
        }))
    }
}

/// The bytes of an access to a register: 1, 2, 4 or 8 of them.
#[derive(Clone, Debug)]
pub struct Access(pub Vec<u8>);

impl<'a> Arbitrary<'a> for Access {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let len = 1usize << (u8::arbitrary(u)? % 4);
        let value = Number::arbitrary(u)?.0.to_le_bytes();
        Ok(Self(value[..len].to_vec()))
    }
}

/// A device of ours behind a session, and a driver that has started all its queues: what is fuzzed
/// is what the requests say, and how they are cut into buffers.
pub struct Guest {
    /// The driver.
    pub driver: Driver,
    arena: Window,
    used: usize,
    /// Where the buffers are.
    open: Vec<(usize, usize)>,
    served: Option<JoinHandle<()>>,
}

/// Guest memory for buffers, and what is in it where nobody wrote.
const ARENA: usize = 1 << 19;
/// Between two buffers; odd, so that nothing is aligned by chance.
const GAP: usize = 33;
const CANARY: u8 = 0xa5;
/// Reached when a device hangs.
pub const LIMIT: Duration = Duration::from_secs(5);

/// A buffer of a chain: readable with these bytes, or writable and so long.
#[derive(Clone, Debug)]
pub enum Buffer {
    /// For the device to read.
    Readable(Vec<u8>),
    /// For the device to write.
    Writable(usize),
}

impl Guest {
    /// Serves `device` and starts its first `queues` queues.
    pub fn new(mut device: impl Device + Send + 'static, queues: u16) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let served = std::thread::spawn(move || session::serve(&mut device, &theirs).unwrap());
        let options = Options {
            memory: vec![(0, 4 << 20)],
            ..Options::default()
        };
        let mut driver = Driver::new(ours, &options).unwrap();
        for queue in 0..queues {
            let options = QueueOptions {
                size: 64,
                ..QueueOptions::default()
            };
            driver.start_queue(queue, &options).unwrap();
        }
        let arena = driver.allocate(ARENA as u64, 16).unwrap();
        Self {
            driver,
            arena,
            used: 0,
            open: Vec::new(),
            served: Some(served),
        }
    }

    /// Puts a chain into guest memory, with canaries between its buffers; it lies there until the
    /// guest goes. `None`: there is no more room. Returns where the writable bytes are.
    pub fn chain(&mut self, buffers: &[Buffer]) -> Option<(Vec<Segment>, Vec<(usize, usize)>)> {
        let (mut chain, mut writable) = (Vec::new(), Vec::new());
        for buffer in buffers {
            let (len, write) = match buffer {
                Buffer::Readable(bytes) => (bytes.len(), false),
                Buffer::Writable(len) => (*len, true),
            };
            let at = self.used;
            self.used = at + len + GAP;
            if self.used > ARENA {
                self.used = at;
                return None;
            }
            self.arena.write(at, &vec![CANARY; len + GAP]);
            if let Buffer::Readable(bytes) = buffer {
                self.arena.write(at, bytes);
            } else {
                writable.push((at, len));
            }
            self.open.push((at, len));
            let addr = self.arena.addr() + at as u64;
            chain.push(Segment {
                addr,
                len: len as u32,
                writable: write,
            });
        }
        Some((chain, writable))
    }

    /// Submits a chain and waits for it; how much the device says it wrote.
    pub fn ask(&mut self, queue: u16, chain: &[Segment]) -> u32 {
        let queue = self.driver.queue(queue).unwrap();
        queue.submit(chain, 7).unwrap();
        let used = queue.wait(LIMIT).expect("a request is not answered");
        assert_eq!(used.token, 7);
        let writable = chain
            .iter()
            .filter(|part| part.writable)
            .map(|part| u64::from(part.len));
        assert!(
            u64::from(used.written) <= writable.sum(),
            "more written than there is room"
        );
        used.written
    }

    /// The bytes at these places, one after the other.
    pub fn read(&self, places: &[(usize, usize)]) -> Vec<u8> {
        places
            .iter()
            .flat_map(|&(at, len)| self.arena.to_vec(at, len))
            .collect()
    }

    /// Ends the session, and sees that it wrote nothing but what was for it to write.
    pub fn end(mut self) {
        let all = self.arena.to_vec(0, self.used);
        let mut at = 0;
        for &(start, len) in &self.open {
            assert!(
                all[at..start].iter().all(|byte| *byte == CANARY),
                "a canary is dead"
            );
            at = start + len;
        }
        assert!(
            all[at..].iter().all(|byte| *byte == CANARY),
            "a canary is dead"
        );
        let served = self.served.take();
        drop(self);
        served.unwrap().join().expect("the session panicked");
    }
}
