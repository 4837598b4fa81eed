//! An ISO 9660 image, read as a boot loader reads it: files, by their paths.
//!
//! | file | idea |
//! |---|---|
//! | `volume.rs` | volume descriptors: where the root folder is, and which names count |
//! | `record.rs` | one directory record |
//! | `rock_ridge.rs` | the POSIX names and links in a record's system use field |
//! | `error.rs` | why not |
//!
//! The image is somebody else's: lengths and places in it are checked against the file, what may be
//! chained is counted, and no name of it is used as a path of the host's.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod error;
mod record;
mod rock_ridge;
mod volume;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

pub use error::IsoError;
use record::{Kind, Record};
use volume::Names;

use super::menu::Files;

/// ECMA-119 6.1.2: a logical sector. Directory records do not cross its end (6.8.1.1).
const SECTOR: usize = 2048;
/// The most bytes of a folder that are read: some 40,000 files.
const MAX_FOLDER: u64 = 4 << 20;
/// The most bytes of a boot menu.
const MAX_TEXT: u64 = 256 << 10;
/// The most links that lead from one path to its file, as Linux has it.
const MAX_LINKS: u32 = 40;
/// The most that is read of one image's folders and menus; each read counts for a page more.
const MAX_READ: u64 = 256 << 20;
const PAGE: u64 = 4096;
/// The most parts that a path has, those of its links included.
const MAX_PARTS: usize = 512;

/// Where the bytes of a file or folder are in the image; within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in bytes.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// An open image.
#[derive(Debug)]
pub struct Iso {
    file: Arc<File>,
    size: u64,
    block: u64,
    names: Names,
    root: Extent,
    /// Of [`MAX_READ`].
    left: Cell<u64>,
}

impl Iso {
    /// Reads the volume descriptors and the root folder.
    ///
    /// # Errors
    /// It is no ISO 9660 image, or a damaged one.
    pub fn new(file: File) -> Result<Self, IsoError> {
        let size = (&file).seek(SeekFrom::End(0)).map_err(IsoError::Read)?;
        let mut iso = Self {
            file: Arc::new(file),
            size,
            block: SECTOR as u64,
            names: Names::Plain,
            root: Extent { start: 0, len: 0 },
            left: Cell::new(MAX_READ),
        };
        volume::read(&mut iso)?;
        Ok(iso)
    }

    /// The file itself; its position is nobody's.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The bytes of the file at `path`, which counts from the root; links are followed. `None` if there
    /// is no such file.
    ///
    /// # Errors
    /// A folder on the way is damaged, or the file reaches beyond the image.
    pub fn find(&self, path: &str) -> Result<Option<Extent>, IsoError> {
        let mut folders = vec![self.root];
        let mut left: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let mut links = 0u32;
        while let Some(part) = left.pop() {
            if left.len() > MAX_PARTS {
                return Ok(None);
            }
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    folders.truncate(folders.len().saturating_sub(1).max(1));
                    continue;
                }
                _ => {}
            }
            let folder = folders.last().copied().unwrap_or(self.root);
            match self.entry(folder, &part)? {
                Some(Kind::Folder(extent)) => folders.push(extent),
                Some(Kind::File(extent)) if left.iter().all(String::is_empty) => {
                    return self.whole(extent, path).map(Some);
                }
                Some(Kind::Link(target)) => {
                    links = links.saturating_add(1);
                    if links > MAX_LINKS {
                        return Ok(None);
                    }
                    if target.starts_with('/') {
                        folders.truncate(1);
                    }
                    left.extend(target.rsplit('/').map(str::to_owned));
                }
                Some(Kind::File(_) | Kind::Other) | None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// What `folder` has under this name; one that differs in case only will do, for plain ISO 9660
    /// names are in capitals.
    fn entry(&self, folder: Extent, name: &str) -> Result<Option<Kind>, IsoError> {
        let mut similar = None;
        for record in self.folder(folder)? {
            if record.name == name {
                return Ok(Some(record.kind));
            }
            if similar.is_none() && record.name.eq_ignore_ascii_case(name) {
                similar = Some(record.kind);
            }
        }
        Ok(similar)
    }

    fn folder(&self, folder: Extent) -> Result<Vec<Record>, IsoError> {
        if folder.len > MAX_FOLDER {
            return Err(IsoError::Damaged("one of its folders has over 4 MiB"));
        }
        let bytes = self.bytes(self.whole(folder, "folders")?)?;
        let mut records = Vec::new();
        for sector in bytes.chunks(SECTOR) {
            let mut rest = sector;
            // A length of 0 says that there are no more in this sector.
            while let Some((&len, _)) = rest.split_first().filter(|(len, _)| **len > 0) {
                let Some((bytes, after)) = rest.split_at_checked(len.into()) else {
                    return Err(IsoError::Damaged("a directory record crosses its sector"));
                };
                records.extend(Record::read(self, bytes)?);
                rest = after;
            }
        }
        Ok(records)
    }

    /// Checks that it is all there.
    fn whole(&self, extent: Extent, what: &str) -> Result<Extent, IsoError> {
        match extent.start.checked_add(extent.len) {
            Some(end) if end <= self.size => Ok(extent),
            end => Err(IsoError::Short {
                what: what.to_owned(),
                end: end.unwrap_or(u64::MAX),
                size: self.size,
            }),
        }
    }

    /// Whoever calls has bounded the length.
    fn bytes(&self, extent: Extent) -> Result<Vec<u8>, IsoError> {
        let left = self
            .left
            .get()
            .checked_sub(extent.len.saturating_add(PAGE))
            .ok_or(IsoError::Damaged("its folders and menus have no end"))?;
        self.left.set(left);
        let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, extent.start)
            .map_err(IsoError::Read)?;
        Ok(bytes)
    }
}

/// An image as the menus' code sees it: what cannot be read is not there, and the first reason is kept.
#[derive(Debug)]
pub struct Texts<'a> {
    iso: &'a Iso,
    error: RefCell<Option<IsoError>>,
}

impl<'a> Texts<'a> {
    /// The texts of an image.
    pub fn new(iso: &'a Iso) -> Self {
        Self {
            iso,
            error: RefCell::default(),
        }
    }

    /// Why something could not be read.
    pub fn error(self) -> Option<IsoError> {
        self.error.into_inner()
    }

    fn find(&self, path: &str) -> Option<Extent> {
        self.noted(self.iso.find(path)).flatten()
    }

    fn noted<T>(&self, result: Result<T, IsoError>) -> Option<T> {
        match result {
            Ok(found) => Some(found),
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                None
            }
        }
    }
}

impl Files for Texts<'_> {
    fn read(&self, path: &str) -> Option<String> {
        let extent = self.find(path).filter(|extent| extent.len <= MAX_TEXT)?;
        let bytes = self.noted(self.iso.bytes(extent))?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }
}

/// Little-endian fields; beyond the end reads as 0, which every caller has ruled out by length.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or([0; N])
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

#[cfg(test)]
mod tests;
