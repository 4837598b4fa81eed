//! Why an image cannot be a disk, in words for a person.

use std::io;
use std::path::{Path, PathBuf};

use super::Format;
use super::qcow2::HeaderError;

/// Why an image cannot be a disk. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be opened as asked.
    #[error("Cannot open disk image '{path}'{remedy}")]
    Open {
        /// The image.
        path: PathBuf,
        /// What to try, beginning with a separator; or nothing.
        remedy: String,
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
    /// A qcow2 image whose header says no.
    #[error("Disk image '{path}' {why}")]
    Header {
        /// The image.
        path: PathBuf,
        /// What is wrong with it: the end of the sentence, and so no source, which is told behind it.
        why: HeaderError,
    },
    /// A qcow2 image that cannot be used.
    #[error(
        "Disk image '{path}' cannot be used as qcow2 (`qemu-img check '{path}'` may know more; pass \
         --format raw (format=raw) if its name misleads)"
    )]
    Unsound {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// A file below the image that nobody has allowed.
    #[error(
        "Disk image '{path}' lies on top of the file '{backing}', which is opened only when you say \
         so: pass --backing (backing=on) if you trust whoever made the image, or flatten it with \
         `qemu-img convert -O qcow2`"
    )]
    BackingDenied {
        /// The image.
        path: PathBuf,
        /// The file below it, as the image spells it.
        backing: String,
    },
    /// A file below the image that cannot lie there.
    #[error("Disk image '{path}' lies on top of the file '{backing}', which {why}")]
    Backing {
        /// The image.
        path: PathBuf,
        /// The file below it, as the image spells it.
        backing: String,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// A file below the image that cannot be opened.
    #[error(
        "Disk image '{path}' lies on top of its backing file '{backing}', which cannot be opened: \
         restore that file or its permissions, or, where it has moved, tell the image with \
         `qemu-img rebase -u -b FILE -F FORMAT '{path}'`"
    )]
    BackingOpen {
        /// The image.
        path: PathBuf,
        /// The file below it.
        backing: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file system without direct I/O.
    #[error(
        "Disk image '{path}' lies on a file system without direct I/O: leave --direct (direct=on) out"
    )]
    NoDirect {
        /// The image.
        path: PathBuf,
    },
    /// The image cannot be opened for direct I/O.
    #[error("Cannot open disk image '{path}' for direct I/O")]
    Direct {
        /// The image.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A disk whose size only somebody else can change.
    #[error(
        "Disk image '{path}' is in a format that grows only while nobody uses it: stop the VM, and \
         use `qemu-img resize`"
    )]
    FixedSize {
        /// The image.
        path: PathBuf,
    },
    /// A size that no whole number of blocks makes.
    #[error(
        "Disk image '{path}' has {size} bytes, which is not a multiple of {block}: grow it with \
         `truncate -s %{block} '{path}'`, or with `qemu-img resize` where it is qcow2"
    )]
    Size {
        /// The image.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
        /// The unit the guest addresses.
        block: u64,
    },
    /// The same of what is probably no raw disk at all: to grow it would do harm.
    #[error(
        "Disk image '{path}' has {size} bytes, which is not a multiple of {block}, and begins as a \
         qcow2 image does: if you made it one, pass --format qcow2 (format=qcow2)"
    )]
    SizeOfQcow2 {
        /// The image.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
        /// The unit the guest addresses.
        block: u64,
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
            "reads it and counts on it not changing; stop that one, or open it read-only (readonly=on of \
             --disk, --readonly of outboard-block)"
        }
        (false, true) => "lets nobody read it; stop that one",
    }
}

/// A file that cannot be opened, with the remedy for the reason.
pub(super) fn open_error(
    path: &Path,
    format: Format,
    readonly: bool,
    source: io::Error,
) -> ImageError {
    let shown = path.display();
    let remedy = match source.raw_os_error() {
        // What was to be read is somewhere else.
        Some(libc::ENOENT) if readonly => ": correct the path".into(),
        Some(libc::ENOENT) => match format {
            Format::Raw => {
                format!(": correct the path, or create it with `truncate -s 10G '{shown}'`")
            }
            Format::Qcow2 => format!(
                ": correct the path, or create it with `qemu-img create -f qcow2 '{shown}' 10G`"
            ),
        },
        Some(libc::EACCES | libc::EPERM | libc::EROFS) if !readonly => {
            " for writing: fix its permissions, or open it read-only (readonly=on of --disk, \
             --readonly of outboard-block)"
                .into()
        }
        Some(libc::EACCES | libc::EPERM) => ": fix its permissions".into(),
        _ => String::new(),
    };
    ImageError::Open {
        path: path.to_owned(),
        remedy,
        source,
    }
}

/// A file that cannot be opened for direct I/O.
pub(super) fn direct_error(path: &Path, source: io::Error) -> ImageError {
    let path = path.to_owned();
    // EINVAL is how the kernel says so (open(2)).
    if source.kind() == io::ErrorKind::InvalidInput {
        return ImageError::NoDirect { path };
    }
    ImageError::Direct { path, source }
}
