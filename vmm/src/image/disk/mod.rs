//! Takes a kernel and its initrd out of a raw disk image, for those who boot without firmware.
//!
//! | file | idea |
//! |---|---|
//! | `partitions.rs` | where the image's filesystems may be: GPT, MBR, or the whole disk |
//! | `filesystem.rs` | one ext2, ext3 or ext4 filesystem: which kernels it holds |
//! | `release.rs` | which of two kernels is the newer, by their names |
//! | `apart.rs` | all of that in a process which may have so much memory and time, and no more |
//! | `error.rs` | why not |
//!
//! The image is somebody else's: nothing in it is believed, no name of it is used as a path.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod apart;
mod error;
mod filesystem;
mod partitions;
mod release;

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use apart::{answer, take_kernel};
pub use error::DiskImageError;
use filesystem::{Copied, Filesystem, Kernel};
use partitions::Partition;

/// Image formats that are no raw disk, by their first bytes.
const FORMATS: [(&[u8], &str); 4] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"<<< Oracle VM VirtualBox", "VDI"),
];

/// What [`take_kernel`] took.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The kernel, in the folder that was given.
    pub kernel: PathBuf,
    /// The initrd beside it, if the kernel has one.
    pub initrd: Option<PathBuf>,
    /// The kernel's name for the root filesystem when the image is its first disk; `None` where it
    /// is none of those that can be read here.
    pub root: Option<String>,
}

/// Does so in this process, which an image may end, or keep busy for hours.
///
/// # Errors
/// As for [`take_kernel`].
pub fn take_kernel_here(image: &Path, folder: &Path) -> Result<Taken, DiskImageError> {
    let (disk, size) = open(image)?;
    let disk = Arc::new(disk);
    let mut reach = Reach::default();
    let taken = take(&disk, size, image, folder, &mut reach);
    taken.map_err(|error| match (error, reach.short_of(size)) {
        // What cannot be found or read in a part of an image is no wonder.
        (error @ DiskImageError::Write { .. }, _) | (error, None) => error,
        (_, Some((what, end))) => DiskImageError::Short {
            image: image.to_owned(),
            what,
            size,
            end,
        },
    })
}

/// How far a disk goes by what is on it: the end of what reaches farthest, and what that is.
#[derive(Default)]
struct Reach(Option<(String, u64)>);

impl Reach {
    fn note(&mut self, what: impl FnOnce() -> String, start: u64, size: u64) {
        let end = start.saturating_add(size);
        if self.0.as_ref().is_none_or(|(_, farthest)| end > *farthest) {
            self.0 = Some((what(), end));
        }
    }

    /// What is beyond a disk of `size` bytes.
    fn short_of(self, size: u64) -> Option<(String, u64)> {
        self.0.filter(|(_, end)| *end > size)
    }
}

fn take(
    disk: &Arc<File>,
    size: u64,
    image: &Path,
    folder: &Path,
    reach: &mut Reach,
) -> Result<Taken, DiskImageError> {
    let (mut best, mut root, mut damage): (Option<(Filesystem, Kernel)>, _, _) = (None, None, None);
    let mut filesystems = 0usize;
    for partition in partitions::find(disk, size, image)? {
        let name = || format!("partition {}", device(&partition));
        reach.note(name, partition.start, partition.size);
        if !partition.is_within(size) {
            continue;
        }
        if let Some(length) = filesystem::length(disk, &partition) {
            let name = || format!("filesystem on {}", device(&partition));
            reach.note(name, partition.start, length);
        }
        match look(disk, &partition) {
            Ok(None) => {}
            Ok(Some((filesystem, kernel))) => {
                filesystems = filesystems.saturating_add(1);
                if root.is_none() && filesystem.is_root() {
                    root = Some(device(&partition));
                }
                if let Some(kernel) = kernel
                    && best.as_ref().is_none_or(|(_, best)| kernel.newer(best))
                {
                    best = Some((filesystem, kernel));
                }
            }
            Err(source) => {
                damage.get_or_insert(DiskImageError::Filesystem {
                    image: image.to_owned(),
                    device: device(&partition),
                    source,
                });
            }
        }
    }
    let Some((filesystem, kernel)) = best else {
        return Err(damage.unwrap_or_else(|| DiskImageError::no_kernel(image, filesystems)));
    };
    let (kernel, initrd) = made_for(folder, || copy(&filesystem, &kernel, folder))?;
    Ok(Taken {
        kernel,
        initrd,
        root,
    })
}

/// Does some work in a folder, which is made if it is missing; then it is gone again if the work fails.
fn made_for<T>(
    folder: &Path,
    work: impl FnOnce() -> Result<T, DiskImageError>,
) -> Result<T, DiskImageError> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let made: Vec<&Path> = folder.ancestors().take_while(missing).collect();
    let there = std::fs::create_dir_all(folder).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => DiskImageError::NoFolder(folder.to_owned()),
        _ => DiskImageError::Write {
            path: folder.to_owned(),
            source,
        },
    });
    let done = there.and_then(|()| work());
    if done.is_err() {
        // From the inside out; what is not empty stays.
        for folder in made {
            let _ = std::fs::remove_dir(folder);
        }
    }
    done
}

/// Copies both files, and puts them in place when both are whole.
fn copy(
    filesystem: &Filesystem,
    kernel: &Kernel,
    folder: &Path,
) -> Result<(PathBuf, Option<PathBuf>), DiskImageError> {
    let initrd = kernel.initrd.as_ref();
    let initrd = initrd.map(|(path, name)| filesystem.copy(path, folder, name));
    let (kernel, initrd) = (
        filesystem.copy(&kernel.path, folder, &kernel.name)?,
        initrd.transpose()?,
    );
    Ok((kernel.put()?, initrd.map(Copied::put).transpose()?))
}

/// The filesystem of a partition, if it has one that is read here, and its newest kernel.
fn look(
    disk: &Arc<File>,
    partition: &Partition,
) -> Result<Option<(Filesystem, Option<Kernel>)>, filesystem::Ext4Error> {
    let Some(filesystem) = Filesystem::open(disk, partition)? else {
        return Ok(None);
    };
    let kernel = filesystem.newest_kernel()?;
    Ok(Some((filesystem, kernel)))
}

/// What Linux calls the partition when the image is its first virtio disk.
fn device(partition: &Partition) -> String {
    let number = partition.number.map(|number| number.to_string());
    format!("/dev/vda{}", number.unwrap_or_default())
}

/// Opens an image and returns its length in bytes.
fn open(path: &Path) -> Result<(File, u64), DiskImageError> {
    let failed = |source| DiskImageError::Open {
        image: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    let kind = path.metadata().map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskImageError::NotAFile {
            image: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(failed)?;
    // A block device's metadata says 0.
    let size = std::io::Seek::seek(&mut &file, std::io::SeekFrom::End(0)).map_err(failed)?;
    let mut start = [0; 24];
    let length = file.read_at(&mut start, 0).map_err(failed)?;
    let start = start.get(..length).unwrap_or_default();
    if let Some((_, format)) = FORMATS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(DiskImageError::NotRaw {
            image: path.to_owned(),
            format,
        });
    }
    Ok((file, size))
}

#[cfg(test)]
mod tests;
