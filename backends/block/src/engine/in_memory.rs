//! Operations on a raw image that lies in memory (tmpfs), where nothing waits for a disk: a copy between
//! the mapped image and guest memory, or a plain system call where that cannot be.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io;
use std::sync::Arc;

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use tracing::debug;

use crate::image::Image;
use crate::image::mapped::Mapping;
use crate::image::raw;
use crate::op::Op;
use crate::plan::HostIo;

/// One queue's way to an image in memory.
#[derive(Debug)]
pub(super) struct InMemory {
    image: Arc<Image>,
    mapping: Option<Arc<Mapping>>,
    /// The image's size for which there is that mapping, or none.
    size: u64,
    /// It was written to in a way that its times do not tell.
    touched: bool,
}

impl InMemory {
    pub(super) fn new(image: &Arc<Image>) -> Self {
        let mut this = Self {
            image: Arc::clone(image),
            mapping: None,
            size: 0,
            touched: false,
        };
        this.map();
        this
    }

    /// Runs the operation, for which `op` has gathered; `None`: it is another's.
    #[inline]
    pub(super) fn run(&mut self, file: &File, op: &Op, io: HostIo) -> Option<io::Result<u32>> {
        if self.size != self.image.size() {
            self.map();
        }
        let pieces = op.pieces();
        let mapping = self.mapping.as_deref();
        match io {
            HostIo::Read { offset, .. } => Some(
                match mapping.and_then(|mapping| mapping.read(pieces, offset)) {
                    Some(count) => Ok(count),
                    None => raw::read(file, pieces, offset, 0),
                },
            ),
            HostIo::Write { offset, .. } => {
                if let Some(count) = mapping.and_then(|mapping| mapping.write(pieces, offset)) {
                    self.touched = true;
                    return Some(Ok(count));
                }
                let written = raw::write(file, pieces, offset, 0);
                if let (Some(mapping), Ok(count)) = (mapping, &written) {
                    mapping.written(offset, (*count).into());
                }
                Some(written)
            }
            HostIo::Sync => {
                self.date(file);
                Some(Ok(0))
            }
            HostIo::Punch { offset, len } => {
                if let Some(mapping) = mapping {
                    mapping.punched(offset, len);
                }
                None
            }
            HostIo::WriteZeroes { .. } | HostIo::ZeroRange { .. } | HostIo::Discard { .. } => None,
        }
    }

    /// Maps the image as long as it is now.
    #[cold]
    fn map(&mut self) {
        self.size = self.image.size();
        self.mapping = match self.image.mapping() {
            Ok(mapping) => Some(mapping),
            Err(error) => {
                let path = self.image.path().display();
                debug!("Disk image '{path}' is read and written by system calls: {error}");
                None
            }
        };
    }

    /// Has the file tell that it was written to: through a mapping a tmpfs does not see that.
    fn date(&mut self, file: &File) {
        if self.touched {
            self.touched = false;
            // Where that is not allowed, it stays as old as it looks.
            let _ = futimens(file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW);
        }
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        let image = Arc::clone(&self.image);
        if let Some(raw) = image.raw() {
            self.date(raw.file());
        }
    }
}
