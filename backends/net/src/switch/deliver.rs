//! One frame into one guest's buffers.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use outboard_device::{Queue, QueueError, Reader, Request};

use crate::tap::HEADER_LEN;

/// Bytes of the two addresses that a frame begins with.
const ADDRESSES_LEN: usize = 12;

/// Buffers that one frame may fill: the longest in the smallest that Linux posts, and some.
const MAX_BUFFERS: usize = 128;

/// Buffers of no use that are handed back for the sake of one frame.
const MAX_USELESS: usize = 8;

/// Descriptors that are read for the sake of one frame: four in each of its buffers, and no guest uses more
/// than one.
const MAX_DESCRIPTORS: usize = 512;

/// A frame as it is delivered: what was looked at comes from here, and not from the guest again, who
/// may have changed it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Destination and source.
    pub addresses: [[u8; 6]; 2],
    /// What follows them, in the sender's memory.
    pub rest: Reader<'a>,
}

impl Frame<'_> {
    /// Its length in bytes.
    pub fn size(&self) -> usize {
        self.rest.len().saturating_add(ADDRESSES_LEN)
    }
}

/// What became of it, and how many descriptors were read for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What became of it.
    pub delivered: Delivered,
    /// The descriptors.
    pub descriptors: usize,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It is in the buffers.
    Whole,
    /// There are not enough buffers now.
    NoBuffer,
    /// It does not fit into what a frame may fill.
    TooLong,
}

/// Writes the frame into buffers of `queue`, and adds them, with the bytes they hold, to `filled`.
/// `mergeable`: it may fill several. What is not used is given back.
///
/// # Errors
/// The guest broke the ring's rules; what is in `filled` is still to be completed.
pub fn deliver(
    queue: &mut Queue,
    frame: &Frame<'_>,
    mergeable: bool,
    filled: &mut Vec<(Request, u32)>,
) -> Result<Delivery, QueueError> {
    let need = frame.size().saturating_add(HEADER_LEN);
    let (mut first, mut room, mut useless) = (filled.len(), 0usize, 0usize);
    let mut descriptors = 0usize;
    let failed = loop {
        let buffer = match queue.pop() {
            Ok(Some(buffer)) => buffer,
            Ok(None) => break Delivered::NoBuffer,
            Err(error) => {
                give_back(queue, filled, first);
                return Err(error);
            }
        };
        descriptors = descriptors.saturating_add(buffer.buffers().into());
        let len = buffer.writer().len();
        if len < HEADER_LEN {
            // It holds nothing, ever; and it must not lie between those of a frame.
            filled.insert(first, (buffer, 0));
            first = first.saturating_add(1);
            useless = useless.saturating_add(1);
            if useless > MAX_USELESS {
                break Delivered::NoBuffer;
            }
            continue;
        }
        filled.push((buffer, 0));
        room = room.saturating_add(len);
        if room >= need {
            fill(filled.get_mut(first..).unwrap_or_default(), frame);
            return Ok(Delivery {
                delivered: Delivered::Whole,
                descriptors,
            });
        }
        let most = filled.len().saturating_sub(first) >= MAX_BUFFERS;
        if !mergeable || most || descriptors >= MAX_DESCRIPTORS {
            break Delivered::TooLong;
        }
    };
    // A frame that has taken all of a ring, and not enough, never fits.
    let all = filled.len().saturating_sub(first) >= usize::from(queue.size());
    give_back(queue, filled, first);
    let delivered = if failed == Delivered::NoBuffer && all {
        Delivered::TooLong
    } else {
        failed
    };
    Ok(Delivery {
        delivered,
        descriptors,
    })
}

fn give_back(queue: &mut Queue, filled: &mut Vec<(Request, u32)>, first: usize) {
    for (buffer, _) in filled.drain(first..).rev() {
        queue.give_back(buffer);
    }
}

/// Writes header and frame into buffers that have room for them.
fn fill(buffers: &mut [(Request, u32)], frame: &Frame<'_>) {
    // No offloads are offered: of the header only the count is anything (virtio 1.2, section 5.1.6).
    let mut start = [0; HEADER_LEN + ADDRESSES_LEN];
    let count = (buffers.len() as u16).to_le_bytes();
    if let [.., low, high] = &mut start[..HEADER_LEN] {
        [*low, *high] = count;
    }
    start[HEADER_LEN..].copy_from_slice(frame.addresses.as_flattened());
    let mut start = &start[..];
    let mut rest = frame.rest;
    for (buffer, written) in buffers {
        let mut writer = buffer.writer();
        let mut done = writer.write(start);
        start = start.get(done..).unwrap_or_default();
        if start.is_empty() {
            done = done.saturating_add(writer.copy_from(&mut rest));
        }
        *written = done as u32;
    }
}
