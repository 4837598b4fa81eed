//! The same in a process of its own: ext4-view allocates what an image says, and follows it wherever it leads.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{DiskImageError, Taken, made_for, take_kernel_here};
use crate::apart;
use crate::held::Held;

/// The hidden verb by which this program asks itself.
const VERB: &str = "kernel-here";

/// What it may have: address space in bytes, a processor's time in seconds. A sound image of any size takes a
/// tenth.
pub(super) const MEMORY: u64 = 512 << 20;
pub(super) const SECONDS: u64 = 20;
/// How long it may take in all, waiting for the image's disk.
pub(super) const LIMIT: Duration = Duration::from_mins(10);

/// Finds the newest kernel of a raw disk image, with its initrd, and copies both into `folder`, which
/// is made if it is missing. Files of the same names there are replaced.
///
/// Looks into `/boot` and `/` of every ext2, ext3 and ext4 filesystem of the image, in a process of its own,
/// which may use up what it has. A signal that ends this one waits until the folder holds nothing half.
///
/// # Errors
/// The image or the folder cannot be used, or no kernel is in the image. A folder that was made is gone
/// again, unless the second of the files could not be put in place beside the first.
pub fn take_kernel(image: &Path, folder: &Path) -> Result<Taken, DiskImageError> {
    let held = Held::hold().map_err(|errno| DiskImageError::Open {
        image: image.to_owned(),
        source: errno.into(),
    })?;
    made_for(folder, || {
        // Gone with what is in it, however the process ends.
        let aside = tempfile::Builder::new()
            .prefix(".taken-")
            .tempdir_in(folder);
        let aside = aside.map_err(|source| DiskImageError::Write {
            path: folder.to_owned(),
            source,
        })?;
        let taken = ask(image, aside.path(), &held)?;
        let put = |file: &Path| put(file, aside.path(), folder);
        Ok(Taken {
            kernel: put(&taken.kernel)?,
            initrd: taken.initrd.as_deref().map(put).transpose()?,
            root: taken.root,
        })
    })
}

/// The process's answer: what is in `folder` now, by its name there.
///
/// # Errors
/// As for [`take_kernel`].
pub fn answer(image: &Path, folder: &Path) -> Result<Taken, DiskImageError> {
    apart::asked();
    // What is not granted was lower before.
    let _ = lower(Resource::RLIMIT_AS, MEMORY);
    let _ = lower(Resource::RLIMIT_CPU, SECONDS);
    let _ = lower(Resource::RLIMIT_CORE, 0);
    let taken = take_kernel_here(image, folder)?;
    let name = |path: PathBuf| path.file_name().map(PathBuf::from).unwrap_or_default();
    Ok(Taken {
        kernel: name(taken.kernel),
        initrd: taken.initrd.map(name),
        root: taken.root,
    })
}

fn lower(what: Resource, most: u64) -> nix::Result<()> {
    let (soft, hard) = getrlimit(what)?;
    setrlimit(what, soft.min(most), hard)
}

fn ask(image: &Path, folder: &Path, held: &Held) -> Result<Taken, DiskImageError> {
    let words = ["image", VERB, "--"].map(OsStr::new);
    let args = [&words[..], &[image.as_os_str(), folder.as_os_str()]].concat();
    let image = || image.to_owned();
    let asked = apart::ask(&args, LIMIT, &|| held.came());
    let answer = asked.map_err(|source| DiskImageError::Open {
        image: image(),
        source,
    })?;
    if let Some(why) = answer.refusal() {
        return Err(DiskImageError::Told(why.to_owned()));
    }
    let Some(status) = answer.status else {
        return Err(DiskImageError::Late { image: image() });
    };
    serde_json::from_str(&answer.said).map_err(|_| DiskImageError::Harmful {
        image: image(),
        how: format!("{status}{}", answer.last_words()),
    })
}

/// Puts a file of the folder `from` into the folder `to`.
fn put(file: &Path, from: &Path, to: &Path) -> Result<PathBuf, DiskImageError> {
    let name = file.file_name().unwrap_or_default();
    let path = to.join(name);
    match std::fs::rename(from.join(name), &path) {
        Ok(()) => Ok(path),
        Err(source) => Err(DiskImageError::Write { path, source }),
    }
}
