//! Which parts of a stretch of memory are free: first fit, so that little of it is ever touched.

use std::collections::BTreeMap;

/// Everything is handed out in multiples of this.
const GRAIN: u64 = 64;

/// Free extents by their beginning; none touches the next.
#[derive(Debug)]
pub(crate) struct Room {
    free: BTreeMap<u64, u64>,
}

/// A part that is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) at: u64,
    len: u64,
}

impl Room {
    /// From `start` to `end`, both whole pages.
    pub(crate) fn new(start: u64, end: u64) -> Self {
        Self {
            free: BTreeMap::from([(start, end)]),
        }
    }

    /// The first free part of so many bytes that begins at a multiple of `align`, a power of two.
    pub(crate) fn take(&mut self, len: u64, align: u64) -> Option<Block> {
        let len = len.max(1).checked_next_multiple_of(GRAIN)?;
        let (start, at, end) = self.free.iter().find_map(|(&start, &end)| {
            let at = start.checked_next_multiple_of(align.max(GRAIN))?;
            (at.checked_add(len)? <= end).then_some((start, at, end))
        })?;
        self.free.remove(&start);
        if start < at {
            self.free.insert(start, at);
        }
        let after = at.saturating_add(len);
        if after < end {
            self.free.insert(after, end);
        }
        Some(Block { at, len })
    }

    /// Takes a part back.
    pub(crate) fn give_back(&mut self, block: Block) {
        let (mut start, mut end) = (block.at, block.at.saturating_add(block.len));
        if let Some(after) = self.free.remove(&end) {
            end = after;
        }
        if let Some((&before, &touching)) = self.free.range(..start).next_back()
            && touching == start
        {
            start = before;
        }
        self.free.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects)]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Blocks never overlap, lie where they may, and leave one whole extent when all are back.
        #[test]
        fn blocks_do_not_overlap(steps in vec((any::<bool>(), 0u64..9000, 0u32..13, any::<prop::sample::Index>()), 0..80)) {
            let mut room = Room::new(4096, 65536);
            let mut taken: Vec<Block> = Vec::new();
            for (take, len, align, which) in steps {
                if take {
                    let Some(block) = room.take(len, 1 << align) else { continue };
                    prop_assert!(block.at % (1 << align) == 0);
                    prop_assert!(block.len >= len && block.at >= 4096 && block.at + block.len <= 65536);
                    let apart = |other: &Block| other.at + other.len <= block.at || block.at + block.len <= other.at;
                    prop_assert!(taken.iter().all(apart));
                    taken.push(block);
                } else if !taken.is_empty() {
                    room.give_back(taken.swap_remove(which.index(taken.len())));
                }
            }
            taken.drain(..).for_each(|block| room.give_back(block));
            prop_assert_eq!(room.free, BTreeMap::from([(4096, 65536)]));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut room = Room::new(0, 4096);
        assert!(room.take(4097, 1).is_none());
        assert!(room.take(u64::MAX, 1).is_none());
        let all = room.take(4096, 4096).unwrap();
        assert!(room.take(0, 1).is_none());
        room.give_back(all);
        assert!(room.take(1, 1).is_some());
    }
}
