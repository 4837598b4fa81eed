//! A qcow2 image: QEMU's format, with allocation on demand and backing files, read and written by
//! the crate `imago`.
//!
//! Its calls wait, so they are made by the threads of a pool. Data goes through a copy: the library
//! wants memory that nobody else changes, and the guest's is not.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod chain;
mod header;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use imago::FormatAccess;
use imago::file::File as Storage;

use super::direct::Direct;
use super::{Blocks, ImageError, Options, SECTOR};
use crate::bounce::Bounce;
use crate::op::Op;
use crate::plan::HostIo;
use chain::Layer;
pub use header::HeaderError;
pub(super) use header::has_magic;

/// An open qcow2 image. When this value goes, what is only in memory of its tables is written.
#[derive(Debug)]
pub struct Qcow2 {
    /// `None` once the library has panicked: what its tables hold then is not to be written.
    ///
    /// Read-locked by transfers. A discard takes it for itself: it frees clusters that a transfer
    /// may be about to use. So does what settles the image.
    access: RwLock<Option<FormatAccess<Storage>>>,
    /// Length of a cluster in bytes.
    cluster: u32,
    /// Length of the disk in bytes.
    pub(super) size: u64,
    /// Holds the lock; the library may have a descriptor of another description.
    _lock: File,
}

impl Qcow2 {
    /// Opens the image in `file`, which lies at `path`, and, when the options allow, those below it.
    pub(super) fn open(
        file: File,
        direct: Option<Direct>,
        path: &Path,
        options: &Options,
    ) -> Result<Self, ImageError> {
        let storage = match direct {
            Some(direct) => direct.file,
            None => file.try_clone().map_err(|source| ImageError::Unsound {
                path: path.to_owned(),
                source,
            })?,
        };
        let layer = Layer {
            file: &file,
            storage,
            path,
            writable: !options.readonly,
        };
        let chain = chain::open(layer, options.backing, &mut Vec::new())?;
        Ok(Self {
            cluster: chain.cluster,
            size: chain.top.size(),
            access: RwLock::new(Some(chain.top)),
            _lock: file,
        })
    }

    /// The units it works in.
    pub(super) fn blocks(&self) -> Blocks {
        Blocks {
            logical: SECTOR as u32,
            physical: self.cluster.min(4096),
            optimal: self.cluster,
            discard: self.cluster,
        }
    }

    /// Carries out `io` for `op`. Waits until it is done.
    pub(super) fn perform(&self, op: &Op, io: HostIo, bounce: &mut Bounce) -> io::Result<u32> {
        let done = match io {
            HostIo::Read { offset, done } => self.shared(|image| {
                let Some(mut room) = op.room(done) else {
                    return Ok(0);
                };
                let buffer = bounce.get(room.len());
                image.read(&mut *buffer, offset)?;
                Ok(room.write(buffer))
            }),
            HostIo::Write {
                offset,
                done,
                durable,
            } => self.shared(|image| {
                let Some(mut data) = op.data(done) else {
                    return Ok(0);
                };
                let buffer = bounce.get(data.len());
                data.read(buffer);
                image.write(&*buffer, offset)?;
                if durable {
                    sync(image)?;
                }
                Ok(buffer.len())
            }),
            HostIo::WriteZeroes { offset, len } => self.shared(|image| {
                let buffer = bounce.get(usize::try_from(len).unwrap_or(usize::MAX));
                buffer.fill(0);
                image.write(&*buffer, offset)?;
                Ok(buffer.len())
            }),
            HostIo::ZeroRange { offset, len } => {
                self.shared(|image| image.write_zeroes(offset, len).map(|()| 0))
            }
            // What is discarded reads as zeroes, never as what the backing file holds there.
            HostIo::Punch { offset, len } | HostIo::Discard { offset, len } => {
                self.alone(|image| image.discard_to_zero(offset, len).map(|()| 0))
            }
            HostIo::Sync => self.shared(|image| sync(image).map(|()| 0)),
        };
        match done {
            Ok(count) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
            // As the plan knows it. Version 2 has no clusters of zeroes.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes what is only in memory of its tables to the file. Operations that begin meanwhile
    /// wait for it.
    pub(super) fn settle(&self) -> io::Result<()> {
        self.alone(|image| image.flush())
    }

    /// The library has panicked: nothing more is read or written, the tables in memory least of all.
    pub(super) fn give_up(&self) {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(access.take());
    }

    fn shared<T>(
        &self,
        call: impl FnOnce(&FormatAccess<Storage>) -> io::Result<T>,
    ) -> io::Result<T> {
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        call(access.as_ref().ok_or_else(gone)?)
    }

    fn alone<T>(
        &self,
        call: impl FnOnce(&mut FormatAccess<Storage>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        call(access.as_mut().ok_or_else(gone)?)
    }
}

/// Tables first, then all of it to the disk.
fn sync(image: &FormatAccess<Storage>) -> io::Result<()> {
    image.flush()?;
    image.sync()
}

fn gone() -> io::Error {
    io::Error::other("the image was given up after an error of the format's code")
}
