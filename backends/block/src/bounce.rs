//! Memory of our own that a transfer goes through when it cannot use the guest's in place.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Most bytes of one transfer through a copy; what is longer is done in parts.
pub(crate) const MAX_LEN: usize = 1 << 20;

/// At least so aligned: no direct I/O asks for more.
const ALIGN: usize = 4096;

/// A buffer that is made with its first use and kept for the next.
#[derive(Debug, Default)]
pub(crate) struct Bounce(Vec<u8>);

impl Bounce {
    /// `len` bytes, at most [`MAX_LEN`], whose address is a multiple of 4096. They hold anything.
    pub(crate) fn get(&mut self, len: usize) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = vec![0; MAX_LEN.saturating_add(ALIGN)];
        }
        let start = self.0.as_ptr().align_offset(ALIGN);
        let aligned = self.0.get_mut(start..).unwrap_or_default();
        let len = len.min(MAX_LEN).min(aligned.len());
        aligned.get_mut(..len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_and_bounded() {
        let mut bounce = Bounce::default();
        for len in [512, 4096, MAX_LEN, MAX_LEN * 2] {
            let buffer = bounce.get(len);
            assert_eq!(buffer.len(), len.min(MAX_LEN));
            assert_eq!(buffer.as_ptr().addr() % ALIGN, 0);
        }
    }
}
