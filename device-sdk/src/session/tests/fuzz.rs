//! A frontend that knows the protocol and keeps to none of it.
#![allow(clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use proptest::collection::vec;
use proptest::prelude::*;

use super::device::Way;
use super::*;

/// Bytes of the file that serves as guest memory.
const MEMORY: u64 = 0x1_0000;

/// One message, as far as its sense goes.
#[derive(Clone, Debug)]
enum Act {
    /// All that a ring needs, in good order: its index, size and where it lies.
    Start(u32, u32, u64),
    /// A message that carries one u64.
    Word(u32, u64),
    /// A message about a ring, with one number.
    Ring(u32, u32, u32),
    Addresses(u32, [u64; 3]),
    /// Guest address, size, frontend's address, file offset of each region.
    Table(Vec<[u64; 4]>),
    AddRegion([u64; 4]),
    RemoveRegion([u64; 4]),
    /// Kick, call or error descriptor: of an eventfd, a plain file, or none.
    Descriptor(u32, u8, u8),
    Config(u32, u32, u32),
    Empty(u32),
}

/// Mostly small and round numbers, which lead further than others.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0u64..0x11).prop_map(|n| n * 0x1000),
        2 => 0u64..0x1000,
        1 => any::<u64>(),
    ]
}

fn region() -> impl Strategy<Value = [u64; 4]> {
    prop_oneof![
        2 => Just([0, MEMORY, 0, 0]),
        1 => [number(), number(), number(), number()],
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let index = || prop_oneof![60 => 0u32..3, 1 => any::<u32>()];
    prop_oneof![
        6 => (0u32..3, prop_oneof![Just(16u32), Just(256)], 0u64..0xe)
            .prop_map(|(index, size, page)| Act::Start(index, size, page * 0x1000)),
        // SET_FEATURES, SET_PROTOCOL_FEATURES, SET_STATUS
        1 => (prop_oneof![Just(2u32), Just(16), Just(39)], any::<u64>())
            .prop_map(|(request, value)| Act::Word(request, value)),
        1 => (prop_oneof![Just(0u64), Just(1 << 29), Just(3 << 28)])
            .prop_map(|bits| Act::Word(2, 1 << 30 | bits)),
        // SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE
        6 => (prop_oneof![Just(8u32), Just(10), Just(11), Just(18)], index(), prop_oneof![
            30 => 0u32..2, 1 => Just(16), 1 => any::<u32>()
        ]).prop_map(|(request, index, value)| Act::Ring(request, index, value)),
        4 => (index(), [number(), number(), number()])
            .prop_map(|(index, at)| Act::Addresses(index, at)),
        2 => vec(region(), 1..3).prop_map(Act::Table),
        1 => region().prop_map(Act::AddRegion),
        1 => region().prop_map(Act::RemoveRegion),
        6 => (12u32..15, 0u8..4, 0u8..3).prop_map(|(r, index, kind)| Act::Descriptor(r, index, kind)),
        1 => (24u32..26, any::<u32>(), 0u32..300).prop_map(|(r, at, len)| Act::Config(r, at, len)),
        // SET_OWNER, RESET_OWNER, RESET_DEVICE, GET_QUEUE_NUM, GET_MAX_MEM_SLOTS, GET_STATUS
        1 => prop_oneof![Just(3u32), Just(4), Just(34), Just(17), Just(36), Just(40)]
            .prop_map(Act::Empty),
    ]
}

struct Frontend {
    stream: UnixStream,
    memory: File,
    event: EventFd,
}

impl Frontend {
    fn send(&self, request: u32, payload: &[u8], fds: &[i32]) -> nix::Result<usize> {
        let header = [request, 1 | 8, payload.len() as u32];
        let mut bytes: Vec<u8> = header.iter().flat_map(|w| w.to_ne_bytes()).collect();
        bytes.extend_from_slice(payload);
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(&bytes)];
        sendmsg::<()>(self.stream.as_raw_fd(), &parts, rights, flags, None)
    }

    fn act(&self, act: &Act) -> nix::Result<usize> {
        let words = |words: &[u64]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_ne_bytes()).collect()
        };
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let memory = self.memory.as_raw_fd();
        match act {
            Act::Start(index, size, at) => {
                self.act(&Act::Table(vec![[0, MEMORY, 0, 0]]))?;
                self.act(&Act::Ring(8, *index, *size))?;
                self.act(&Act::Addresses(*index, [*at, at + 0x1000, at + 0x1800]))?;
                self.act(&Act::Descriptor(12, *index as u8, 0))?;
                self.act(&Act::Ring(18, *index, 1))
            }
            Act::Word(request, value) => self.send(*request, &words(&[*value]), &[]),
            Act::Ring(request, index, value) => {
                self.send(*request, &words(&[pair(*index, *value)]), &[])
            }
            Act::Addresses(index, [desc, used, avail]) => {
                let payload = [pair(*index, 0), *desc, *used, *avail, 0];
                self.send(9, &words(&payload), &[])
            }
            Act::Table(regions) => {
                let mut payload = vec![regions.len() as u64];
                payload.extend(regions.iter().flatten());
                self.send(5, &words(&payload), &vec![memory; regions.len()])
            }
            Act::AddRegion([a, b, c, d]) => self.send(37, &words(&[0, *a, *b, *c, *d]), &[memory]),
            Act::RemoveRegion([a, b, c, d]) => self.send(38, &words(&[0, *a, *b, *c, *d]), &[]),
            Act::Descriptor(request, index, kind) => {
                let event = self.event.as_raw_fd();
                let (none, fds) = match kind {
                    0 => (0, &[event][..]),
                    1 => (0, &[memory][..]),
                    _ => (0x100, &[][..]),
                };
                self.send(*request, &words(&[u64::from(*index) | none]), fds)
            }
            Act::Config(request, at, len) => {
                let mut payload = words(&[pair(*at, *len)]);
                payload.extend([0; 4]);
                payload.resize(payload.len() + *len as usize, 1);
                self.send(*request, &payload, &[])
            }
            Act::Empty(request) => self.send(*request, &[], &[]),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Rings of random bytes at random places, started, moved, stopped and reset in any order, on
    /// memory that comes and goes: the session answers or ends, and nothing panics.
    #[test]
    fn any_sense_is_survived(
        acts in vec(act(), 0..60),
        bytes in vec(any::<u8>(), 0x400),
        way in prop_oneof![Just(Way::Fast), Just(Way::Simple), Just(Way::Hoarding)],
    ) {
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(MEMORY).unwrap();
        for page in 0..MEMORY / 0x1000 {
            memory.write_all_at(&bytes, page * 0x1000).unwrap();
        }
        let event = EventFd::from_value_and_flags(1, EfdFlags::EFD_NONBLOCK).unwrap();
        let (served, stream) = Served::start(way);
        let frontend = Frontend { stream, memory, event };
        // Everything is agreed on first, so that more than refusals is reached.
        frontend.act(&Act::Word(2, 1 << 30)).unwrap();
        frontend.act(&Act::Word(16, 0x1_a229)).unwrap();
        let mut replies = frontend.stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = replies.read_to_end(&mut all);
        });
        for act in &acts {
            if frontend.act(act).is_err() {
                break;
            }
        }
        let _ = frontend.stream.shutdown(std::net::Shutdown::Write);
        let told: Vec<_> = served.log.iter().collect();
        prop_assert!(served.thread.join().is_ok(), "the session panicked");
        prop_assert_eq!(told.last(), Some(&Told::Reset));
        let count = |what: fn(&Told) -> bool| told.iter().filter(|t| what(t)).count();
        let started = count(|t| matches!(t, Told::Started(_)));
        // A worker that is not handed back has panicked.
        prop_assert_eq!(started, count(|t| matches!(t, Told::Stopped(_))));
        let _ = frontend.stream.shutdown(std::net::Shutdown::Both);
        reader.join().unwrap();
        drop(OwnedFd::from(frontend.stream));
    }
}
