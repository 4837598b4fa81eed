//! Cursors over the bytes of a request, whatever way the driver has cut them into buffers.
//!
//! A device must not care about that framing (virtio 1.2, section 2.7.4), so it never sees it here.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use libc::iovec;
use vm_memory::ByteValued;

use super::Segment;

/// The guest's chain is shorter than what its device class asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request has {have} bytes where {need} are needed")]
pub struct ShortRequest {
    /// Bytes asked for.
    pub need: usize,
    /// Bytes that were left.
    pub have: usize,
}

/// A run of bytes over several segments: what both cursors are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    segments: &'a [Segment],
    /// Bytes of the first segment that are behind the cursor.
    skip: usize,
    /// Bytes between the cursor and the end of the span.
    len: usize,
}

impl<'a> Span<'a> {
    pub(super) fn new(segments: &'a [Segment]) -> Self {
        let len = segments
            .iter()
            .fold(0usize, |sum, s| sum.saturating_add(s.len()));
        Self {
            segments,
            skip: 0,
            len,
        }
    }

    /// The next piece that is contiguous, at most `limit` bytes; moves behind it.
    fn take(&mut self, limit: usize) -> Option<Segment> {
        let limit = limit.min(self.len);
        if limit == 0 {
            return None;
        }
        let (first, rest) = self.segments.split_first()?;
        let piece = first.part(self.skip, limit);
        self.len = self.len.saturating_sub(piece.len());
        self.skip = self.skip.saturating_add(piece.len());
        if self.skip >= first.len() {
            self.segments = rest;
            self.skip = 0;
        }
        Some(piece)
    }

    /// The next piece that is contiguous.
    fn peek(&self) -> Option<Segment> {
        Span { ..*self }.take(usize::MAX)
    }

    fn need(&self, need: usize) -> Result<(), ShortRequest> {
        if self.len < need {
            return Err(ShortRequest {
                need,
                have: self.len,
            });
        }
        Ok(())
    }

    fn skip(&mut self, mut count: usize) -> Result<(), ShortRequest> {
        self.need(count)?;
        while let Some(piece) = self.take(count) {
            count = count.saturating_sub(piece.len());
        }
        Ok(())
    }

    fn split_at(self, at: usize) -> Result<(Self, Self), ShortRequest> {
        let mut tail = self;
        tail.skip(at)?;
        Ok((Self { len: at, ..self }, tail))
    }

    fn pieces(mut self) -> impl Iterator<Item = Segment> + 'a {
        std::iter::from_fn(move || self.take(usize::MAX))
    }
}

macro_rules! cursor_methods {
    () => {
        pub(super) fn new(span: Span<'a>) -> Self {
            Self(span)
        }

        /// Bytes left between the cursor and the end.
        pub fn len(&self) -> usize {
            self.0.len
        }

        /// Whether nothing is left.
        pub fn is_empty(&self) -> bool {
            self.0.len == 0
        }

        /// Moves the cursor over `count` bytes. Nothing moves when fewer are left.
        pub fn skip(&mut self, count: usize) -> Result<(), ShortRequest> {
            self.0.skip(count)
        }

        /// The next `at` bytes, and what follows them.
        pub fn split_at(self, at: usize) -> Result<(Self, Self), ShortRequest> {
            let (head, tail) = self.0.split_at(at)?;
            Ok((Self(head), Self(tail)))
        }

        /// What comes before the last `count` bytes, and those bytes (a status byte, say).
        pub fn split_last(self, count: usize) -> Result<(Self, Self), ShortRequest> {
            self.0.need(count)?;
            self.split_at(self.len().saturating_sub(count))
        }

        /// What is left, piece by piece; each piece lies contiguous in this process.
        pub fn segments(self) -> impl Iterator<Item = Segment> + 'a {
            self.0.pieces()
        }

        /// What is left, as the kernel's scatter-gather elements. They may be used until the
        /// request is completed or given back.
        pub fn iovecs(self) -> impl Iterator<Item = iovec> + 'a {
            self.0.pieces().map(|piece| piece.iovec())
        }
    };
}

/// A cursor over the bytes the guest lets the device read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(Span<'a>);

impl<'a> Reader<'a> {
    cursor_methods!();

    /// Copies as much as both sides hold; returns the number of bytes.
    pub fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0usize;
        while let Some(rest) = buf.get_mut(done..) {
            let Some(piece) = self.0.take(rest.len()) else {
                break;
            };
            piece.volatile().copy_to(rest);
            done = done.saturating_add(piece.len());
        }
        done
    }

    /// Fills `buf`, or leaves the cursor where it is.
    pub fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ShortRequest> {
        self.0.need(buf.len())?;
        self.read(buf);
        Ok(())
    }

    /// Copies one fixed-layout value out of guest memory.
    pub fn read_obj<T: ByteValued + Default>(&mut self) -> Result<T, ShortRequest> {
        let mut value = T::default();
        self.read_exact(value.as_mut_slice())?;
        Ok(value)
    }
}

/// A cursor over the bytes the guest lets the device write.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a>(Span<'a>);

impl<'a> Writer<'a> {
    cursor_methods!();

    /// Copies as much as both sides hold; returns the number of bytes.
    pub fn write(&mut self, buf: &[u8]) -> usize {
        let mut done = 0usize;
        while let Some(rest) = buf.get(done..) {
            let Some(piece) = self.0.take(rest.len()) else {
                break;
            };
            piece.volatile().copy_from(rest);
            done = done.saturating_add(piece.len());
        }
        done
    }

    /// Writes all of `buf`, or nothing.
    pub fn write_all(&mut self, buf: &[u8]) -> Result<(), ShortRequest> {
        self.0.need(buf.len())?;
        self.write(buf);
        Ok(())
    }

    /// Copies out of another request, as much as both sides hold, with nothing in between; returns
    /// the number of bytes. The two may be of different guests, or lie in the same memory.
    pub fn copy_from(&mut self, from: &mut Reader<'_>) -> usize {
        let mut done = 0usize;
        while let Some(there) = from.0.peek() {
            let Some(here) = self.0.take(there.len()) else {
                break;
            };
            there.volatile().copy_to_volatile_slice(here.volatile());
            from.0.take(here.len());
            done = done.saturating_add(here.len());
        }
        done
    }

    /// Copies back what lies there, as much as both sides hold; returns the number of bytes. What
    /// was written is the driver's to change at any time.
    pub fn read_back(&mut self, buf: &mut [u8]) -> usize {
        let mut there = Reader(self.0);
        let done = there.read(buf);
        self.0 = there.0;
        done
    }

    /// Writes one fixed-layout value, or nothing.
    pub fn write_obj<T: ByteValued>(&mut self, value: T) -> Result<(), ShortRequest> {
        self.write_all(value.as_slice())
    }
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code, clippy::arithmetic_side_effects)]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Segments of these lengths, one behind the other in `bytes`.
    fn cut(bytes: &mut [u8], lens: &[usize]) -> Vec<Segment> {
        let mut rest = bytes;
        let mut segments = Vec::new();
        for &len in lens {
            let (piece, after) = rest.split_at_mut(len);
            // SAFETY: the bytes outlive the test's segments and nobody else touches them.
            segments.push(unsafe { Segment::new(piece.as_mut_ptr(), len) });
            rest = after;
        }
        segments
    }

    proptest! {
        /// Whatever the framing, a cursor is a cursor over the bytes put together.
        #[test]
        fn framing_does_not_matter(
            lens in vec(1usize..40, 0..8),
            steps in vec((0u8..4, 0usize..60), 0..12),
        ) {
            let total: usize = lens.iter().sum();
            let text: Vec<u8> = (0..total).map(|n| n as u8).collect();
            let mut memory = text.clone();
            let segments = cut(&mut memory, &lens);
            let mut reader = Reader::new(Span::new(&segments));
            let mut model = &text[..];
            for (step, count) in steps {
                prop_assert_eq!(reader.len(), model.len());
                let fits = count <= model.len();
                match step {
                    0 => {
                        prop_assert_eq!(reader.skip(count).is_ok(), fits);
                        model = &model[if fits { count } else { 0 }..];
                    }
                    1 => {
                        let mut buf = vec![0; count];
                        let read = reader.read(&mut buf);
                        prop_assert_eq!(&buf[..read], &model[..count.min(model.len())]);
                        model = &model[read..];
                    }
                    2 => {
                        let mut buf = vec![0; count];
                        prop_assert_eq!(reader.read_exact(&mut buf).is_ok(), fits);
                        if fits {
                            prop_assert_eq!(&buf[..], &model[..count]);
                            model = &model[count..];
                        }
                    }
                    _ => {
                        let split = reader.split_last(count);
                        prop_assert_eq!(split.is_ok(), fits);
                        let Ok((front, mut last)) = split else { continue };
                        let mut tail = vec![0; count];
                        last.read_exact(&mut tail).unwrap();
                        prop_assert_eq!(&tail[..], &model[model.len() - count..]);
                        model = &model[..model.len() - count];
                        reader = front;
                    }
                }
            }
            let left: usize = reader.segments().map(|piece| piece.len()).sum();
            prop_assert_eq!(left, model.len());
            prop_assert!(reader.segments().all(|piece| !piece.is_empty()));
        }

        /// Writes land where the cursor is, and nowhere else.
        #[test]
        fn writes_stay_in_place(
            lens in vec(1usize..20, 1..6),
            at in 0usize..50,
            data in vec(any::<u8>(), 0..60),
        ) {
            let total: usize = lens.iter().sum();
            let at = at.min(total);
            let mut memory = vec![0xa5; total];
            let segments = cut(&mut memory, &lens);
            let mut writer = Writer::new(Span::new(&segments));
            writer.skip(at).unwrap();
            let all = writer.write_all(&data);
            prop_assert_eq!(all.is_ok(), data.len() <= total - at);
            if all.is_err() {
                prop_assert_eq!(writer.write(&data), total - at);
            }
            let mut expected = vec![0xa5; total];
            let count = data.len().min(total - at);
            expected[at..at + count].copy_from_slice(&data[..count]);
            prop_assert_eq!(memory, expected);
        }
    }

    #[test]
    fn a_short_request_says_what_was_needed() {
        let mut memory = [0; 3];
        let segments = cut(&mut memory, &[1, 2]);
        let mut reader = Reader::new(Span::new(&segments));
        let error = reader.read_obj::<u64>().unwrap_err();
        assert_eq!(error, ShortRequest { need: 8, have: 3 });
        assert_eq!(reader.read_obj::<u16>().unwrap(), 0);
    }
}
