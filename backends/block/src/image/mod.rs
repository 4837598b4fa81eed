//! A disk image: a raw file or a block device, opened, measured and locked.

mod blockdev;
mod format;
mod lock;

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use tracing::warn;

pub use format::Format;
use lock::{Access, LockError};

/// Bytes in a sector, the unit of every virtio-blk request (virtio 1.2, section 5.2.4).
pub const SECTOR: u64 = 512;

/// How often a lock that is held is tried again: a daemon that was killed holds its lock until the
/// kernel has ended its last writes.
const LOCK_ATTEMPTS: u32 = 10;

/// Time between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(30);

/// Why an image cannot be a disk. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be opened as asked.
    #[error("Cannot open disk image '{path}'{remedy}")]
    Open {
        /// The image.
        path: PathBuf,
        /// What to try, beginning with a separator; or nothing.
        remedy: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a socket or a terminal.
    #[error("Disk image '{path}' is a {kind}: give a regular file or a block device")]
    Kind {
        /// The image.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A format this release does not read.
    #[error(
        "Disk image '{path}' is in qcow2 format, which comes with a later release: convert it with \
         `qemu-img convert -O raw`, or pass --format raw if its name misleads"
    )]
    Qcow2 {
        /// The image.
        path: PathBuf,
    },
    /// A size that no whole number of sectors makes.
    #[error(
        "Disk image '{path}' has {size} bytes, which is not a multiple of 512: grow it with \
         `truncate -s %512 '{path}'`"
    )]
    Size {
        /// The image.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
    },
    /// A disk of no bytes.
    #[error("Disk image '{path}' is empty: give it a size with `truncate -s 10G '{path}'`")]
    Empty {
        /// The image.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("Disk image '{path}' is in use: another process {}", held(*.by_writer, *.readonly))]
    Locked {
        /// The image.
        path: PathBuf,
        /// The other one writes; otherwise it only reads.
        by_writer: bool,
        /// This one only wanted to read.
        readonly: bool,
    },
    /// A question to the device failed.
    #[error("Cannot learn the size of disk image '{path}'")]
    Measure {
        /// The image.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// What the other process does, and the remedy.
fn held(by_writer: bool, readonly: bool) -> &'static str {
    match (by_writer, readonly) {
        (true, _) => "writes to it; stop that one, or give this VM a copy",
        (false, false) => {
            "reads it and counts on it not changing; stop that one, or use --readonly"
        }
        (false, true) => "lets nobody read it; stop that one",
    }
}

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

    /// Whether the image lies in memory (tmpfs): reading and writing it never waits for a disk.
    pub fn in_memory(&self) -> bool {
        nix::sys::statfs::fstatfs(&self.file)
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

fn open_error(path: &Path, readonly: bool, source: io::Error) -> ImageError {
    let remedy = match source.raw_os_error() {
        Some(libc::ENOENT) => ": create it first, for example with `truncate -s 10G`",
        Some(libc::EACCES | libc::EPERM | libc::EROFS) if !readonly => {
            " for writing: fix its permissions, or use --readonly"
        }
        Some(libc::EACCES | libc::EPERM) => ": fix its permissions",
        _ => "",
    };
    ImageError::Open {
        path: path.to_owned(),
        remedy,
        source,
    }
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
mod tests {
    use super::*;

    fn file_of(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(".img").tempfile().unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    fn refusal(path: &Path, readonly: bool) -> String {
        Image::open(path, None, readonly).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_measured() {
        let file = file_of(1 << 20);
        let image = Image::open(file.path(), None, false).unwrap();
        assert_eq!(image.size(), 1 << 20);
        assert_eq!(image.logical_block(), 512);
        assert!(!image.readonly());
        assert!(image.physical_block().is_power_of_two());
    }

    #[test]
    fn two_writers_are_refused_by_name_and_readers_share() {
        let file = file_of(4096);
        let first = Image::open(file.path(), None, false).unwrap();
        let message = refusal(file.path(), false);
        assert!(message.contains(file.path().to_str().unwrap()), "{message}");
        assert!(message.contains("in use"), "{message}");
        assert!(refusal(file.path(), true).contains("writes to it"));
        drop(first);
        let _a = Image::open(file.path(), None, true).unwrap();
        let _b = Image::open(file.path(), None, true).unwrap();
        assert!(refusal(file.path(), false).contains("--readonly"));
    }

    #[test]
    fn what_cannot_be_a_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refusal(dir.path(), false).contains("is a directory"));
        assert!(refusal(&dir.path().join("none"), false).contains("create it first"));
        assert!(refusal(Path::new("/dev/null"), false).contains("character device"));
        assert!(refusal(file_of(1000).path(), false).contains("1000 bytes"));
        assert!(refusal(file_of(0).path(), false).contains("is empty"));
        let qcow2 = dir.path().join("a.qcow2");
        std::fs::write(&qcow2, [0; 512]).unwrap();
        assert!(refusal(&qcow2, false).contains("later release"));
        assert!(Image::open(&qcow2, Some(Format::Raw), false).is_ok());
    }

    #[test]
    fn the_content_never_decides_the_format() {
        let file = file_of(512);
        std::fs::write(file.path(), [b"QFI\xfb".as_slice(), &[0; 508]].concat()).unwrap();
        assert!(Image::open(file.path(), None, false).is_ok());
    }
}
