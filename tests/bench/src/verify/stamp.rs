//! What a block is filled with: every word says where it belongs, and of which generation it is.

use std::ops::RangeInclusive;

/// Bytes in a sector, the least that a device can write.
pub const SECTOR: usize = 512;
/// Words of a sector's head: a mark, its block and generation, its place in the block.
const MARK: u64 = 0x6b6f_6f62_7475_6f00;

/// What a block, or a sector of it, carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The block it was written for.
    pub block: u64,
    /// How often that block had been written by then.
    pub generation: u64,
}

/// What a block holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All of one write.
    Whole(Stamp),
    /// Sectors of several writes: those of each, in their order.
    Torn(Vec<(RangeInclusive<usize>, Stamp)>),
    /// Sectors that were never written so.
    Garbage {
        /// The first of them.
        sector: usize,
        /// Whether others are sound.
        some_sound: bool,
    },
}

/// The word at `at` of sector `sector`.
fn word(stamp: Stamp, sector: usize, at: usize) -> u64 {
    match at {
        0 => MARK,
        1 => stamp.block,
        2 => stamp.generation,
        3 => sector as u64,
        // Depends on every bit of the head, and is no pattern that a device would make of its own.
        _ => (stamp.block ^ stamp.generation.rotate_left(32))
            .wrapping_add((sector << 8 | at) as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// Fills a block.
pub fn fill(data: &mut [u8], stamp: Stamp) {
    for (sector, bytes) in data.chunks_exact_mut(SECTOR).enumerate() {
        for (at, bytes) in bytes.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&word(stamp, sector, at).to_le_bytes());
        }
    }
}

/// Reads a block's stamps.
pub fn read(data: &[u8]) -> Content {
    let mut parts: Vec<(RangeInclusive<usize>, Stamp)> = Vec::new();
    let mut garbage = None;
    for (sector, bytes) in data.chunks_exact(SECTOR).enumerate() {
        let Some(stamp) = sector_stamp(bytes, sector) else {
            garbage = garbage.or(Some(sector));
            continue;
        };
        match parts.last_mut() {
            Some((range, last)) if *last == stamp => *range = *range.start()..=sector,
            _ => parts.push((sector..=sector, stamp)),
        }
    }
    match (garbage, parts.as_slice()) {
        (Some(sector), parts) => Content::Garbage {
            sector,
            some_sound: !parts.is_empty(),
        },
        (None, [(_, stamp)]) => Content::Whole(*stamp),
        (None, _) => Content::Torn(parts),
    }
}

/// The stamp of a sector that is sound and in its place.
fn sector_stamp(bytes: &[u8], sector: usize) -> Option<Stamp> {
    let words = || {
        let words = bytes.chunks_exact(8);
        words.map(|word| word.try_into().map_or(0, u64::from_le_bytes))
    };
    let mut head = words().skip(1);
    let stamp = Stamp {
        block: head.next()?,
        generation: head.next()?,
    };
    let sound = words()
        .enumerate()
        .all(|(at, found)| found == word(stamp, sector, at));
    sound.then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Stamp = Stamp {
        block: 7,
        generation: 2,
    };
    const OLD: Stamp = Stamp {
        block: 7,
        generation: 1,
    };

    #[test]
    fn a_block_says_what_it_is() {
        let mut data = vec![0; 4096];
        assert_eq!(
            read(&data),
            Content::Garbage {
                sector: 0,
                some_sound: false
            }
        );
        fill(&mut data, NEW);
        assert_eq!(read(&data), Content::Whole(NEW));
        fill(&mut data[..1024], OLD);
        assert_eq!(read(&data), Content::Torn(vec![(0..=1, OLD), (2..=7, NEW)]));
        data[4095] ^= 1;
        assert_eq!(
            read(&data),
            Content::Garbage {
                sector: 7,
                some_sound: true
            }
        );
    }

    #[test]
    fn sectors_out_of_place_are_seen() {
        let mut data = vec![0; 1024];
        fill(&mut data, NEW);
        data.rotate_left(512);
        assert_eq!(
            read(&data),
            Content::Garbage {
                sector: 0,
                some_sound: false
            }
        );
    }
}
