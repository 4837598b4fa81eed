//! Why an image cannot be a disk, in words for a person.

use std::io;
use std::path::{Path, PathBuf};

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

/// A file that cannot be opened, with the remedy for the reason.
pub(super) fn open_error(path: &Path, readonly: bool, source: io::Error) -> ImageError {
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
