//! Why no kernel can be taken out of a disk image, in words for the person who gave it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::apart::{LIMIT, MEMORY, SECONDS};
use super::filesystem::Ext4Error;

/// Why [`take_kernel`](super::take_kernel) failed.
#[derive(Debug, Error)]
pub enum DiskImageError {
    /// The image cannot be opened or read.
    #[error("Cannot read the disk image {}", image.display())]
    Open {
        /// The path that was given.
        image: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a terminal.
    #[error("The disk image {} is neither a file nor a block device", image.display())]
    NotAFile {
        /// The path that was given.
        image: PathBuf,
    },
    /// An image in a format of its own.
    #[error(
        "The disk image {} is {format}, and only raw ones are read; convert it first: qemu-img \
         convert -O raw {} disk.raw",
        image.display(),
        image.display()
    )]
    NotRaw {
        /// The path that was given.
        image: PathBuf,
        /// The format's name.
        format: &'static str,
    },
    /// The partition table contradicts itself.
    #[error(
        "The partition table of {} is damaged: {what}; look at it with fdisk -l",
        image.display()
    )]
    Table {
        /// The path that was given.
        image: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The image ends before its partitions, or its filesystem, do.
    #[error(
        "{} is cut short: it has {size} bytes, and its {what} ends at byte {end}; get it again, whole",
        image.display()
    )]
    Short {
        /// The path that was given.
        image: PathBuf,
        /// What says so: the partition or the filesystem on it, by Linux's name.
        what: String,
        /// Its length.
        size: u64,
        /// The least that it should have.
        end: u64,
    },
    /// There are filesystems, and none has a kernel.
    #[error(
        "No kernel in {}: none of its {filesystems} ext2, ext3 or ext4 filesystem(s) has a \
         vmlinuz in / or /boot; give one that has",
        image.display()
    )]
    NoKernel {
        /// The path that was given.
        image: PathBuf,
        /// How many were looked into.
        filesystems: usize,
    },
    /// No filesystem that could hold a kernel.
    #[error(
        "No filesystem to look into in {}: only ext2, ext3 and ext4 are read, on the whole disk or \
         in a GPT or MBR partition; for another one, mount the image and give its kernel by \
         outboard run --kernel",
        image.display()
    )]
    NoFilesystem {
        /// The path that was given.
        image: PathBuf,
    },
    /// A filesystem cannot be read, and no other has a kernel.
    #[error("Cannot look for a kernel in {device} of {}", image.display())]
    Filesystem {
        /// The path that was given.
        image: PathBuf,
        /// The partition, by Linux's name.
        device: String,
        /// Why.
        #[source]
        source: Ext4Error,
    },
    /// A file of the image cannot be read.
    #[error("Cannot read {file} in the image")]
    Read {
        /// Its path in the filesystem.
        file: String,
        /// Why.
        #[source]
        source: Ext4Error,
    },
    /// A file of the image is larger than any kernel or initrd.
    #[error("{file} in the image has {size} bytes, more than a kernel or an initrd can have here")]
    TooLarge {
        /// Its path in the filesystem.
        file: String,
        /// Its length.
        size: u64,
    },
    /// Reading it ended a process.
    #[error(
        "The disk image {} is damaged, or made to do harm: reading it takes more than {} MiB of memory or {} s of a \
         processor's time, or ends the process that does ({how})",
        image.display(),
        MEMORY >> 20,
        SECONDS
    )]
    Harmful {
        /// The path that was given.
        image: PathBuf,
        /// How the process ended, and its last words.
        how: String,
    },
    /// It is read for too long, and not for want of a processor.
    #[error(
        "The disk image {} has not been read after {} minutes; copy it to a faster disk",
        image.display(),
        LIMIT.as_secs() / 60
    )]
    Late {
        /// The path that was given.
        image: PathBuf,
    },
    /// What the process that reads the image says.
    #[error("{0}")]
    Told(String),
    /// There is something else where the folder was to be.
    #[error("{} is no folder; give the path of one with --out, or one where nothing is yet", .0.display())]
    NoFolder(PathBuf),
    /// The copy cannot be written.
    #[error("Cannot write {}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl DiskImageError {
    /// Nothing was found, and `filesystems` were looked into.
    pub(super) fn no_kernel(image: &Path, filesystems: usize) -> Self {
        let image = image.to_owned();
        match filesystems {
            0 => Self::NoFilesystem { image },
            filesystems => Self::NoKernel { image, filesystems },
        }
    }
}
