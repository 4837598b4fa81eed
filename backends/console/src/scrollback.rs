//! The newest bytes of an output, for people who were not there.

use std::collections::VecDeque;

/// A bounded run of bytes that forgets its oldest.
#[derive(Debug)]
pub struct Scrollback {
    bytes: VecDeque<u8>,
    capacity: usize,
}

impl Scrollback {
    /// What a console keeps: 256 KiB, a boot log and some.
    pub const CAPACITY: usize = 256 << 10;

    /// An empty one that keeps at most `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            capacity,
        }
    }

    /// Appends, forgetting the oldest bytes where there is no room.
    pub fn push(&mut self, bytes: &[u8]) {
        let kept = bytes
            .get(bytes.len().saturating_sub(self.capacity)..)
            .unwrap_or_default();
        let excess = (self.bytes.len().saturating_add(kept.len())).saturating_sub(self.capacity);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// Everything kept, oldest first.
    pub fn contents(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
    }

    /// The longest run at the front that lies in one piece.
    pub fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Everything kept, and forgets it.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes).into()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_stay() {
        let mut log = Scrollback::new(4);
        log.push(b"abc");
        log.push(b"de");
        assert_eq!(log.contents(), b"bcde");
        log.push(b"0123456789");
        assert_eq!(log.contents(), b"6789");
        log.consume(1);
        assert_eq!(log.take(), b"789");
        assert!(log.is_empty());
    }
}
