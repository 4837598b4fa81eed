//! Frames on a stream of bytes: each behind its length, four bytes, big-endian, as QEMU's stream
//! and socket netdevs and passt write them.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ops::Range;

use outboard_device::request::Reader;

/// Bytes of the length before each frame.
const PREFIX: usize = 4;

/// Longest frame on a stream: what QEMU's netdevs take.
pub(super) const MAX_FRAME: usize = 68 * 1024;

/// Shortest one: an Ethernet header.
pub(super) const MIN_FRAME: usize = 14;

/// Room for bytes received: several of the longest frames, so that most reads get whole ones.
const ROOM: usize = 256 * 1024;

/// Bytes on their way out after which no more frames are taken.
const FULL: usize = 256 * 1024;

/// The peer announced a frame longer than any: it speaks another protocol, or has lost its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes was announced; the longest is {MAX_FRAME}")]
pub(super) struct Oversize(pub u32);

/// Bytes from the peer, cut into frames.
#[derive(Debug)]
pub(super) struct Incoming {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Incoming {
    /// Nothing received yet.
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; ROOM].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// Takes the next frame that is here whole, of any length up to [`MAX_FRAME`]; returns where it
    /// lies until the next [`space`](Self::space), for [`frame`](Self::frame).
    pub(super) fn next(&mut self) -> Result<Option<Range<usize>>, Oversize> {
        let here = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some((prefix, rest)) = here.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*prefix);
        let len = announced as usize;
        if len > MAX_FRAME {
            return Err(Oversize(announced));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let start = self.start.saturating_add(PREFIX);
        self.start = start.saturating_add(len);
        Ok(Some(start..self.start))
    }

    /// The frame that lies there.
    pub(super) fn frame(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// Where to read more bytes to. Never empty after [`next`](Self::next) said there is no whole
    /// frame; follow with [`filled`](Self::filled).
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.bytes.len().saturating_sub(self.end) < PREFIX + MAX_FRAME {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// `count` bytes have been read to the start of [`space`](Self::space).
    pub(super) fn filled(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.bytes.len());
    }
}

/// Frames on their way to the peer.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    start: usize,
}

impl Outgoing {
    /// Whether frames have to wait until the peer has taken some.
    pub(super) fn is_full(&self) -> bool {
        self.pending().len() >= FULL
    }

    /// Appends a frame: what `reader` has left, at most [`MAX_FRAME`] bytes of it.
    pub(super) fn push(&mut self, reader: &mut Reader<'_>) {
        let len = reader.len().min(MAX_FRAME);
        self.bytes.extend((len as u32).to_be_bytes());
        let at = self.bytes.len();
        self.bytes.resize(at.saturating_add(len), 0);
        reader.read(self.bytes.get_mut(at..).unwrap_or_default());
    }

    /// What is still to be written.
    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// `count` bytes of [`pending`](Self::pending) have been written.
    pub(super) fn sent(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > FULL {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        let prefixed = |frame: &Vec<u8>| [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
        frames.iter().flat_map(prefixed).collect()
    }

    /// Feeds `bytes` in pieces of the lengths `cuts` gives, again and again.
    fn feed(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Vec<u8>>, Oversize> {
        let mut incoming = Incoming::new();
        let (mut frames, mut rest) = (Vec::new(), bytes);
        for cut in cuts.iter().cycle() {
            while let Some(frame) = incoming.next()? {
                frames.push(incoming.frame(frame).to_vec());
            }
            if rest.is_empty() {
                break;
            }
            let space = incoming.space();
            let count = (*cut).min(space.len()).min(rest.len());
            assert_ne!(count, 0, "no room for what is to come");
            space[..count].copy_from_slice(&rest[..count]);
            incoming.filled(count);
            rest = &rest[count..];
        }
        Ok(frames)
    }

    #[test]
    fn the_longest_frame_passes_and_a_longer_one_does_not() {
        let longest = vec![vec![7; MAX_FRAME]; 9];
        assert!(feed(&framed(&longest), &[100_000]) == Ok(longest));
        let over = (MAX_FRAME as u32 + 1).to_be_bytes();
        assert_eq!(feed(&over, &[1]), Err(Oversize(MAX_FRAME as u32 + 1)));
        assert_eq!(feed(&[0xff; 4], &[4]), Err(Oversize(u32::MAX)));
    }

    #[test]
    fn what_was_sent_in_part_goes_on_where_it_stopped() {
        let mut outgoing = Outgoing {
            bytes: (0..=255).collect(),
            start: 0,
        };
        outgoing.sent(3);
        assert_eq!(outgoing.pending().first(), Some(&3));
        outgoing.sent(252);
        assert_eq!(outgoing.pending(), [255]);
        outgoing.sent(usize::MAX);
        assert!(outgoing.pending().is_empty() && outgoing.bytes.is_empty());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..40),
            cuts in prop::collection::vec(1..5000usize, 1..20),
        ) {
            prop_assert_eq!(feed(&framed(&frames), &cuts), Ok(frames));
        }

        #[test]
        fn any_bytes_are_harmless(bytes: Vec<u8>, cuts in prop::collection::vec(1..50usize, 1..9)) {
            let _ = feed(&bytes, &cuts);
        }
    }
}
