//! The file or block device under an image: opened, and measured.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::error::open_error;
use super::{Blocks, Format, ImageError, SECTOR, blockdev};

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Length in bytes.
    pub(super) size: u64,
    pub(super) blocks: Blocks,
    /// It is a block device of the host.
    pub(super) device: bool,
}

impl Geometry {
    /// Has the guest address blocks of at least `block` bytes, when the disk is made of such.
    pub(super) fn prefer_block(&mut self, block: u32) {
        if self.size.is_multiple_of(u64::from(block)) {
            self.blocks.logical = self.blocks.logical.max(block);
        }
    }
}

/// Opens what is at `path`, if it is a regular file or a block device.
pub(super) fn open(path: &Path, format: Format, readonly: bool) -> Result<File, ImageError> {
    let refuse = |source| open_error(path, format, readonly, source);
    // Looked at before it is opened: opening a pipe would wait for its other end.
    check_kind(path, &std::fs::metadata(path).map_err(refuse)?)?;
    let file = File::options()
        .read(true)
        .write(!readonly)
        .open(path)
        .map_err(refuse)?;
    check_kind(path, &file.metadata().map_err(refuse)?)?;
    Ok(file)
}

/// Measures an open file.
pub(super) fn geometry(file: &File, path: &Path) -> Result<Geometry, ImageError> {
    let failed = |source| ImageError::Measure {
        path: path.to_owned(),
        source,
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.file_type().is_block_device() {
        return blockdev::geometry(file).map_err(failed);
    }
    let physical = u32::try_from(metadata.blksize()).unwrap_or(4096).min(4096);
    Ok(Geometry {
        size: metadata.len(),
        blocks: Blocks {
            logical: SECTOR as u32,
            physical,
            optimal: 0,
            discard: physical,
        },
        device: false,
    })
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
