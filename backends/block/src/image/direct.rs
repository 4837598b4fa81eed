//! Direct I/O: transfers past the page cache, and what the kernel asks of them.
#![allow(unsafe_code)] // statx(2) has no safe form.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use outboard_device::Segment;

/// What is asked for where the kernel does not say: as much as any disk wants.
const CAUTIOUS: u32 = 4096;

/// A descriptor opened for direct I/O.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) file: File,
    /// Buffers begin at multiples of this.
    memory: u32,
    /// Transfers begin at multiples of this, and so long are their pieces.
    pub(super) block: u32,
}

impl Direct {
    /// Opens the file that `file` is once more, for direct I/O.
    ///
    /// # Errors
    /// `InvalidInput`: its file system has no direct I/O.
    pub(super) fn open(file: &File, readonly: bool) -> io::Result<Self> {
        let again = format!("/proc/self/fd/{}", file.as_raw_fd());
        let direct = File::options()
            .read(true)
            .write(!readonly)
            .custom_flags(libc::O_DIRECT)
            .open(Path::new(&again))?;
        let (memory, block) = alignment(&direct)?.unwrap_or((CAUTIOUS, CAUTIOUS));
        if block == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            file: direct,
            memory: memory.max(1),
            block,
        })
    }

    /// Whether a transfer of `len` bytes at `offset` is made of whole blocks.
    pub(super) fn covers(&self, offset: u64, len: u64) -> bool {
        let block = u64::from(self.block);
        offset.is_multiple_of(block) && len.is_multiple_of(block)
    }

    /// Whether the device can reach memory that is cut like this.
    pub(super) fn reaches(&self, pieces: &[Segment]) -> bool {
        pieces.iter().all(|piece| {
            piece.addr().addr().is_multiple_of(self.memory as usize)
                && piece.len().is_multiple_of(self.block as usize)
        })
    }
}

/// Alignment of memory and of transfers, in bytes, both 0 where there is no direct I/O; `None` from
/// kernels before 6.1, which do not say.
fn alignment(file: &File) -> io::Result<Option<(u32, u32)>> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty string, which together with the flag means the descriptor, and
    // the answer is written to a local of the type the call is documented to fill.
    let done = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    };
    Errno::result(done)?;
    // SAFETY: it was zeroed, which is a value of this type, and filled.
    let answer = unsafe { answer.assume_init() };
    let told = answer.stx_mask & libc::STATX_DIOALIGN != 0;
    Ok(told.then_some((answer.stx_dio_mem_align, answer.stx_dio_offset_align)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_go_past_the_cache() {
        let file = tempfile::tempfile().unwrap();
        let direct = Direct {
            file,
            memory: 4,
            block: 4096,
        };
        assert!(direct.covers(8192, 4096));
        assert!(direct.covers(0, 0));
        assert!(!direct.covers(512, 4096));
        assert!(!direct.covers(4096, 512));
    }
}
