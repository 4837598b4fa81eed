//! A kernel or an initrd as the boot code reads it: a file, or pieces of an ISO image.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use super::iso::Extent;

/// What [`load`](crate::arch::x86_64::boot::load) reads.
#[derive(Debug)]
pub(super) enum Source {
    File(File),
    Pieces(Pieces),
}

/// Pieces of one file, one after the other as if they were a file; zeros between them, for the kernel
/// wants each archive of an initrd to begin at a multiple of 4.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Its position is moved about.
    file: Arc<File>,
    /// Where each begins in the whole, and where in the file.
    list: Vec<(u64, Extent)>,
    len: u64,
    position: u64,
}

/// What is at a position.
enum Next {
    /// So many bytes of the file, from here on.
    Bytes(u64, u64),
    Zeros(u64),
    End,
}

impl Pieces {
    pub(super) fn new(file: &Arc<File>, extents: &[Extent]) -> Self {
        let (mut list, mut len) = (Vec::new(), 0u64);
        for extent in extents {
            let start = len.checked_next_multiple_of(4).unwrap_or(u64::MAX);
            list.push((start, *extent));
            len = start.saturating_add(extent.len);
        }
        Self {
            file: file.clone(),
            list,
            len,
            position: 0,
        }
    }

    fn next(&self) -> Next {
        if self.position >= self.len {
            return Next::End;
        }
        for (start, extent) in &self.list {
            let Some(within) = self.position.checked_sub(*start) else {
                return Next::Zeros(start.saturating_sub(self.position));
            };
            if let Some(left) = extent.len.checked_sub(within).filter(|left| *left > 0) {
                return Next::Bytes(extent.start.saturating_add(within), left);
            }
        }
        Next::End
    }

    fn advance(&mut self, by: usize) {
        self.position = self.position.saturating_add(by as u64);
    }

    /// The file, about to be read at `at`.
    fn file_at(&self, at: u64) -> io::Result<&File> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(at))?;
        Ok(file)
    }
}

/// `len`, as far as there are bytes.
fn least(len: usize, left: u64) -> usize {
    usize::try_from(left).map_or(len, |left| len.min(left))
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let pieces = match self {
            Self::File(file) => return file.read(into),
            Self::Pieces(pieces) => pieces,
        };
        let part = |left| least(into.len(), left);
        let read = match pieces.next() {
            Next::End => 0,
            Next::Bytes(at, left) => {
                let part = into.get_mut(..part(left)).unwrap_or_default();
                pieces.file_at(at)?.read(part)?
            }
            Next::Zeros(left) => {
                let part = into.get_mut(..part(left)).unwrap_or_default();
                part.fill(0);
                part.len()
            }
        };
        pieces.advance(read);
        Ok(read)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let pieces = match self {
            Self::File(file) => return file.seek(to),
            Self::Pieces(pieces) => pieces,
        };
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => pieces.len.checked_add_signed(by),
            SeekFrom::Current(by) => pieces.position.checked_add_signed(by),
        };
        pieces.position = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(pieces.position)
    }
}

impl ReadVolatile for Source {
    /// Fills `into` as far as there are bytes: whoever reads for guest memory takes less for the end.
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        into: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let pieces = match self {
            Self::File(file) => return file.read_volatile(into),
            Self::Pieces(pieces) => pieces,
        };
        let mut done = 0usize;
        while done < into.len() {
            let rest = into.offset(done)?;
            let part = |left| least(rest.len(), left);
            let read = match pieces.next() {
                Next::End => 0,
                Next::Bytes(at, left) => {
                    let mut part = rest.subslice(0, part(left))?;
                    let mut file = pieces.file_at(at).map_err(VolatileMemoryError::IOError)?;
                    file.read_volatile(&mut part)?
                }
                Next::Zeros(left) => {
                    let zeros = [0; 4];
                    let zeros = zeros.get(..part(left)).unwrap_or(&zeros);
                    {
                        rest.copy_from(zeros);
                        zeros.len()
                    }
                }
            };
            if read == 0 {
                break;
            }
            pieces.advance(read);
            done = done.saturating_add(read);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;

    fn pieces() -> Source {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"..kernel..one---two----").unwrap();
        let extents = [(10, 3), (2, 0), (18, 5)].map(|(start, len)| Extent { start, len });
        Source::Pieces(Pieces::new(&Arc::new(file), &extents))
    }

    #[test]
    fn pieces_are_read_as_one_file() {
        let mut source = pieces();
        let mut all = Vec::new();
        source.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"one\0o----");
        assert_eq!(source.seek(SeekFrom::End(-4)).unwrap(), 5);
        let mut rest = String::new();
        source.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "----");
        assert!(source.seek(SeekFrom::Current(-10)).is_err());
    }

    #[test]
    fn guest_memory_gets_the_same() {
        let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
        let mut source = pieces();
        ram.read_exact_volatile_from(GuestAddress(8), &mut source, 9)
            .unwrap();
        let mut seen = [1; 10];
        ram.read_slice(&mut seen, GuestAddress(8)).unwrap();
        assert_eq!(&seen, b"one\0o----\0");
        let more = ram.read_exact_volatile_from(GuestAddress(8), &mut source, 1);
        assert!(more.is_err(), "there is no more");
    }
}
