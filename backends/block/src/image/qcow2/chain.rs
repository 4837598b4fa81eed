//! Opening a qcow2 image and, where that is allowed, the files it lies on top of.
//!
//! Whoever made the image chose the backing file's name: without the user's word it would be a way
//! to read any file of the host. So would a format found by looking: it is the one that the image
//! names, or none.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use imago::FormatAccess;
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;

use super::super::lock::{self, Access};
use super::super::{Format, ImageError, file};
use super::header::Header;

/// Longest chain of files: one of a hundred snapshots was forgotten by somebody.
const MAX_DEPTH: usize = 64;

/// An image with all that is below it.
pub(super) struct Chain {
    pub(super) top: FormatAccess<Storage>,
    /// Length of the top image's clusters, in bytes.
    pub(super) cluster: u32,
}

/// One image of a chain, not yet opened as one.
pub(super) struct Layer<'a> {
    /// The file, through which the header is read.
    pub(super) file: &'a File,
    /// The same file, through which the library reads and writes.
    pub(super) storage: File,
    pub(super) path: &'a Path,
    pub(super) writable: bool,
}

/// Opens an image and, when `backing` allows, the files below it. `seen` are the files above, by
/// device and inode.
pub(super) fn open(
    image: Layer<'_>,
    backing: bool,
    seen: &mut Vec<(u64, u64)>,
) -> Result<Chain, ImageError> {
    let path = image.path;
    let unsound = |source| ImageError::Unsound {
        path: path.to_owned(),
        source,
    };
    let len = file::geometry(image.file, path)?.size;
    let header = Header::read(image.file, len).map_err(|why| ImageError::Header {
        path: path.to_owned(),
        why,
    })?;
    if let Some(name) = &header.backing
        && !backing
    {
        return Err(ImageError::BackingDenied {
            path: path.to_owned(),
            backing: name.clone(),
        });
    }
    let identity = image.file.metadata().map_err(unsound)?;
    seen.push((identity.dev(), identity.ino()));
    let storage = Storage::try_from(image.storage).map_err(unsound)?;
    let qcow2 = guarded(|| Qcow2::open_image(storage, image.writable));
    let mut qcow2: Qcow2<Storage> = qcow2.map_err(unsound)?;
    qcow2.set_data_file(None);
    let format = qcow2.implicit_backing_format().cloned();
    let below = header
        .backing
        .map(|name| below(&name, format.as_deref(), path, seen))
        .transpose()?;
    qcow2.set_backing(below);
    Ok(Chain {
        top: FormatAccess::new(qcow2),
        cluster: header.cluster,
    })
}

/// The file called `name`, of the format that the image at `above` says, below that image.
fn below(
    name: &str,
    format: Option<&str>,
    above: &Path,
    seen: &mut Vec<(u64, u64)>,
) -> Result<FormatAccess<Storage>, ImageError> {
    let refuse = |why| ImageError::Backing {
        path: above.to_owned(),
        backing: name.to_owned(),
        why,
    };
    let name = name.strip_prefix("file:").unwrap_or(name);
    let path = resolve(name, above);
    let qcow2 = match format {
        Some("qcow2") => true,
        Some("raw" | "file") => false,
        Some(_) => {
            return Err(refuse(
                "is in a format that is not supported: flatten the image",
            ));
        }
        None => {
            return Err(refuse(
                "has no format in the image: set it with `qemu-img rebase -u -b FILE -F FORMAT`",
            ));
        }
    };
    let format = if qcow2 { Format::Qcow2 } else { Format::Raw };
    let file = file::open(&path, format, true).map_err(|error| match error {
        ImageError::Open { source, .. } => ImageError::BackingOpen {
            path: above.to_owned(),
            backing: path.clone(),
            source,
        },
        other => other,
    })?;
    let unsound = |source| ImageError::Unsound {
        path: path.clone(),
        source,
    };
    let identity = file.metadata().map_err(unsound)?;
    if seen.contains(&(identity.dev(), identity.ino())) {
        return Err(refuse("lies above it already: the chain is a loop"));
    }
    if seen.len() >= MAX_DEPTH {
        return Err(refuse("is one too many: flatten the chain"));
    }
    lock::take(&file, &path, Access::Read)?;
    let storage = file.try_clone().map_err(unsound)?;
    if qcow2 {
        let layer = Layer {
            file: &file,
            storage,
            path: &path,
            writable: false,
        };
        return open(layer, true, seen).map(|chain| chain.top);
    }
    let storage = Storage::try_from(storage).map_err(unsound)?;
    let raw = Raw::open_image(storage, false).map_err(unsound)?;
    Ok(FormatAccess::new(raw))
}

/// Where the file called `name` by the image at `above` lies.
fn resolve(name: &str, above: &Path) -> PathBuf {
    above.parent().unwrap_or(Path::new("")).join(name)
}

/// Runs the library's code on an image that may be anybody's: a panic is an error of the image's.
fn guarded<T>(open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(io::Error::other("the format's code has panicked")))
}
