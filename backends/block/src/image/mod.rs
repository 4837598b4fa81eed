//! A disk image: a file or a block device, raw or in a format, opened, measured and locked.

mod blockdev;
mod direct;
mod error;
mod file;
mod format;
mod lock;
pub mod mapped;
pub mod qcow2;
pub mod raw;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bounce::Bounce;
use crate::op::Op;
use crate::plan::HostIo;
use direct::Direct;
pub use error::ImageError;
use error::direct_error;
pub use format::Format;
use lock::Access;
use mapped::Mapping;
use qcow2::Qcow2;
use raw::Raw;

/// Bytes in a sector, the unit of every virtio-blk request (virtio 1.2, section 5.2.4).
pub const SECTOR: u64 = 512;

/// How an image is to be opened.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // switches are
pub struct Options {
    /// The format; by the suffix when absent.
    pub format: Option<Format>,
    /// Nothing is to be written.
    pub readonly: bool,
    /// Transfers go past the page cache.
    pub direct: bool,
    /// The files that a qcow2 image names as lying below it may be opened.
    pub backing: bool,
    /// The unit that the guest is told to address, in bytes, instead of the medium's own.
    pub block_size: Option<u32>,
    /// Space that the guest no longer needs is not given back.
    pub keep_space: bool,
}

/// An open, locked disk image. The lock lasts as long as the image.
#[derive(Debug)]
pub struct Image {
    content: Content,
    path: PathBuf,
    readonly: bool,
    keeps_space: bool,
    /// Length of the disk in bytes, a multiple of the logical block.
    size: AtomicU64,
    blocks: Blocks,
}

#[derive(Debug)]
enum Content {
    Raw(Raw),
    Qcow2(Qcow2),
}

/// The units the medium works in, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The smallest it addresses.
    pub logical: u32,
    /// The smallest it writes without reading first.
    pub physical: u32,
    /// The best length of a transfer; 0 when nobody knows.
    pub optimal: u32,
    /// The smallest that a discard gives back.
    pub discard: u32,
}

impl Image {
    /// Opens the image at `path` and locks it.
    pub fn open(path: &Path, options: &Options) -> Result<Self, ImageError> {
        let readonly = options.readonly;
        let format = Format::of(options.format, path);
        let file = file::open(path, format, readonly)?;
        let access = if readonly {
            Access::Read
        } else {
            Access::Write
        };
        lock::take(&file, path, access)?;
        let direct = options.direct.then(|| Direct::open(&file, readonly));
        let direct = direct
            .transpose()
            .map_err(|source| direct_error(path, source))?;
        let mut geometry = file::geometry(&file, path)?;
        let looks_qcow2 = qcow2::has_magic(&file);
        let unharmed = |error| match error {
            ImageError::Size { path, size, block } if looks_qcow2 => {
                ImageError::SizeOfQcow2 { path, size, block }
            }
            error => error,
        };
        let content = match format {
            Format::Raw => {
                check_size(path, geometry.size, SECTOR).map_err(unharmed)?;
                if looks_qcow2 && options.format.is_none() {
                    tracing::warn!(
                        "Disk image '{}' begins as a qcow2 image does, and is served as raw, as its \
                         name says: pass format=qcow2 if you made it one, or format=raw to hear no \
                         more of it (a guest can write such a beginning)",
                        path.display()
                    );
                }
                if let Some(direct) = &direct {
                    geometry.prefer_block(direct.block);
                }
                Content::Raw(Raw::new(file, direct, geometry.device, geometry.size))
            }
            Format::Qcow2 => {
                let qcow2 = Qcow2::open(file, direct, path, options)?;
                geometry.size = qcow2.size;
                geometry.blocks = qcow2.blocks();
                Content::Qcow2(qcow2)
            }
        };
        if let Some(block) = options.block_size {
            geometry.blocks.logical = block;
        }
        let blocks = &mut geometry.blocks;
        blocks.physical = blocks.physical.max(blocks.logical);
        check_size(path, geometry.size, u64::from(blocks.logical)).map_err(unharmed)?;
        Ok(Self {
            content,
            path: path.to_owned(),
            readonly,
            keeps_space: options.keep_space,
            size: geometry.size.into(),
            blocks: geometry.blocks,
        })
    }

    /// The image when it is a raw one.
    pub fn raw(&self) -> Option<&Raw> {
        match &self.content {
            Content::Raw(raw) => Some(raw),
            Content::Qcow2(_) => None,
        }
    }

    /// Where it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was opened for reading only.
    pub fn readonly(&self) -> bool {
        self.readonly
    }

    /// Length of the disk in bytes, a multiple of 512. It changes by [`remeasure`](Self::remeasure).
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// The units the medium works in.
    pub fn blocks(&self) -> Blocks {
        self.blocks
    }

    /// Whether space is given back: holes in a file, discard on a device, clusters of a format.
    pub fn can_discard(&self) -> bool {
        !self.readonly && !self.keeps_space && self.raw().is_none_or(Raw::can_discard)
    }

    /// Whether a discard is an order to a block device of the host.
    pub fn is_block_device(&self) -> bool {
        self.raw().is_some_and(Raw::is_block_device)
    }

    /// Looks at the file's size again; says whether it has changed, and takes it when it may be.
    ///
    /// # Errors
    /// It cannot be this disk's size, which stays as it was.
    pub fn remeasure(&self) -> Result<bool, ImageError> {
        let Some(raw) = self.raw() else {
            return Err(ImageError::FixedSize {
                path: self.path.clone(),
            });
        };
        let size = file::geometry(raw.file(), &self.path)?.size;
        check_size(&self.path, size, u64::from(self.blocks.logical))?;
        Ok(self.size.swap(size, Ordering::Relaxed) != size)
    }

    /// The image, mapped, when it is a raw one in memory; its own size or an earlier one says how far.
    ///
    /// # Errors
    /// It is none, or may not be mapped ([`Mapping::new`]).
    pub fn mapping(&self) -> io::Result<Arc<Mapping>> {
        match self.raw().filter(|raw| raw.in_memory()) {
            Some(raw) => raw.mapping(self.size(), !self.readonly),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Carries out `io`, for which `op` has gathered. Waits until it is done: for threads that may.
    pub(crate) fn perform(&self, op: &Op, io: HostIo, bounce: &mut Bounce) -> io::Result<u32> {
        match &self.content {
            Content::Raw(raw) => raw.perform(op, io, bounce),
            Content::Qcow2(qcow2) => qcow2.perform(op, io, bounce),
        }
    }

    /// Whether part of the image may be only in memory: the tables of a format that is written.
    pub(crate) fn has_tables(&self) -> bool {
        matches!(self.content, Content::Qcow2(_)) && !self.readonly
    }

    /// Nobody drives the disk any more: what is only in memory of its tables is written. Waits
    /// until it is done, and operations on the image wait for it.
    pub(crate) fn settle(&self) -> io::Result<()> {
        match &self.content {
            Content::Qcow2(qcow2) if !self.readonly => qcow2.settle(),
            _ => Ok(()),
        }
    }

    /// An operation has panicked.
    pub(crate) fn give_up(&self) {
        if let Content::Qcow2(qcow2) = &self.content {
            qcow2.give_up();
        }
    }
}

/// Refuses a size that is none, or no number of whole blocks.
fn check_size(path: &Path, size: u64, block: u64) -> Result<(), ImageError> {
    let path = || path.to_owned();
    if size == 0 {
        return Err(ImageError::Empty { path: path() });
    }
    if !size.is_multiple_of(block) {
        let path = path();
        return Err(ImageError::Size { path, size, block });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
