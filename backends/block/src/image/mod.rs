//! A disk image: a raw file or a block device, opened, measured and locked.

mod blockdev;
mod error;
mod format;
mod lock;

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use tracing::warn;

pub use error::ImageError;
use error::open_error;
pub use format::Format;
use lock::{Access, LockError};

/// Bytes in a sector, the unit of every virtio-blk request (virtio 1.2, section 5.2.4).
pub const SECTOR: u64 = 512;

/// How often a lock that is held is tried again: a daemon that was killed holds its lock until the
/// kernel has ended its last writes.
const LOCK_ATTEMPTS: u32 = 10;

/// Time between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(30);

/// An open, locked disk image. The lock lasts as long as the image.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
    readonly: bool,
    block_device: bool,
    /// Length in bytes, a multiple of [`SECTOR`].
    size: u64,
    logical_block: u32,
    physical_block: u32,
    /// The file system makes holes.
    punch: bool,
}

impl Image {
    /// Opens the image at `path` in the format `asked` for (else by its suffix) and locks it.
    pub fn open(path: &Path, asked: Option<Format>, readonly: bool) -> Result<Self, ImageError> {
        let named = || path.to_owned();
        // Looked at before it is opened: opening a pipe would wait for its other end.
        let look = std::fs::metadata(path).map_err(|source| open_error(path, readonly, source))?;
        check_kind(path, &look)?;
        if Format::of(asked, path) == Format::Qcow2 {
            return Err(ImageError::Qcow2 { path: named() });
        }
        let file = File::options()
            .read(true)
            .write(!readonly)
            .open(path)
            .map_err(|source| open_error(path, readonly, source))?;
        let measure = |source| ImageError::Measure {
            path: named(),
            source,
        };
        let metadata = file.metadata().map_err(measure)?;
        check_kind(path, &metadata)?;
        let block_device = metadata.file_type().is_block_device();
        take_lock(&file, path, readonly)?;

        let geometry = if block_device {
            blockdev::geometry(&file).map_err(measure)?
        } else {
            blockdev::Geometry {
                size: metadata.len(),
                logical_block: SECTOR as u32,
                physical_block: u32::try_from(metadata.blksize()).unwrap_or(4096).min(4096),
            }
        };
        if geometry.size == 0 {
            return Err(ImageError::Empty { path: named() });
        }
        if !geometry.size.is_multiple_of(SECTOR) {
            return Err(ImageError::Size {
                path: named(),
                size: geometry.size,
            });
        }
        Ok(Self {
            punch: !block_device && can_punch(&file, geometry.size),
            file,
            path: named(),
            readonly,
            block_device,
            size: geometry.size,
            logical_block: geometry.logical_block,
            physical_block: geometry.physical_block,
        })
    }

    /// The open file: read and write it at byte offsets below [`Self::size`].
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was opened for reading only.
    pub fn readonly(&self) -> bool {
        self.readonly
    }

    /// Length in bytes, a multiple of 512.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Smallest unit the medium addresses, in bytes.
    pub fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// Unit that is written without reading first, in bytes.
    pub fn physical_block(&self) -> u32 {
        self.physical_block
    }

    /// Whether space can be given back: holes in a file, discard on a device.
    pub fn can_discard(&self) -> bool {
        !self.readonly && (self.block_device || self.punch)
    }

    /// Whether the image lies in memory (tmpfs): reading and writing it never waits for a disk,
    /// and there is nothing to flush. Of a block device only the node in /dev does.
    pub fn in_memory(&self) -> bool {
        !self.block_device
            && nix::sys::statfs::fstatfs(&self.file)
                .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
    }

    /// Whether the image is a block device of the host.
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// Gives the space of a range of a block device back (BLKDISCARD). Blocks until done.
    pub fn discard_blocking(&self, offset: u64, len: u64) -> io::Result<()> {
        blockdev::discard(&self.file, offset, len)
    }
}

/// Whether holes can be made in a file of `size` bytes.
fn can_punch(file: &File, size: u64) -> bool {
    // One past the end changes nothing, and tells. A file opened for reading has none.
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, flags, size.cast_signed(), SECTOR.cast_signed()).is_ok()
}

/// Refuses what is neither a file nor a block device.
fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), ImageError> {
    let kind = metadata.file_type();
    let name = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_char_device() {
        "character device"
    } else if kind.is_fifo() {
        "pipe"
    } else {
        "socket"
    };
    Err(ImageError::Kind {
        path: path.to_owned(),
        kind: name,
    })
}

fn take_lock(file: &File, path: &Path, readonly: bool) -> Result<(), ImageError> {
    let access = if readonly {
        Access::Read
    } else {
        Access::Write
    };
    let mut left = LOCK_ATTEMPTS;
    let locked = loop {
        match lock::lock(file, access) {
            Err(LockError::Held { .. }) if left > 0 => left -= 1,
            other => break other,
        }
        std::thread::sleep(LOCK_PAUSE);
    };
    match locked {
        Ok(()) => Ok(()),
        Err(LockError::Held { by_writer }) => Err(ImageError::Locked {
            path: path.to_owned(),
            by_writer,
            readonly,
        }),
        Err(LockError::Unsupported(error)) => {
            warn!(
                "Cannot lock disk image '{}' ({error}): make sure that nobody else writes to it",
                path.display()
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
