//! One filesystem of a disk image: ext2, ext3 or ext4, and the kernels in it.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ext4_view::{Ext4, Ext4Read};
use tempfile::NamedTempFile;

pub(super) use ext4_view::Ext4Error;

use super::partitions::Partition;
use super::{DiskImageError, release};

/// What distributions begin a kernel's name with; the release follows.
const KERNELS: [&str; 2] = ["vmlinuz-", "kernel-"];
/// What surrounds the release in the name of its initrd: Debian, Fedora, SUSE, Arch.
const INITRDS: [(&str, &str); 4] = [
    ("initrd.img-", ""),
    ("initramfs-", ".img"),
    ("initrd-", ""),
    ("initramfs-", ""),
];
/// A kernel without a release in its name, and its initrds.
const PLAIN_KERNEL: &str = "vmlinuz";
const PLAIN_INITRDS: [&str; 4] = ["initrd.img", "initrd", "initramfs.img", "initrd.gz"];
/// Where kernels are: in a filesystem of their own, or in the root filesystem.
const FOLDERS: [&str; 2] = ["/boot", "/"];
/// What only a root filesystem has.
const ROOT_MARKS: [&str; 3] = ["/etc/fstab", "/sbin/init", "/etc/os-release"];
/// The most that a kernel or an initrd may have; they must fit below 3 GiB in the guest.
const MAX_SIZE: u64 = 2 << 30;

/// The most entries of a folder that are looked at. One piece of a disk can be in a folder over and
/// over, so that the image's size is no limit.
const MAX_NAMES: usize = 100_000;

/// A kernel in a filesystem.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Its place in the filesystem.
    pub(super) path: String,
    /// Its file name: letters, digits and a few harmless signs.
    pub(super) name: String,
    /// Place and name of its initrd.
    pub(super) initrd: Option<(String, String)>,
    /// Empty where the name does not say.
    release: String,
}

impl Kernel {
    pub(super) fn newer(&self, other: &Self) -> bool {
        release::compare(&self.release, &other.release).is_gt()
    }
}

/// A filesystem that can be read, and its length in bytes.
pub(super) struct Filesystem(Ext4, u64);

impl Filesystem {
    /// Opens the filesystem of a partition; `None` if it is of another kind.
    pub(super) fn open(disk: &Arc<File>, place: &Partition) -> Result<Option<Self>, Ext4Error> {
        let mut window = Window {
            disk: disk.clone(),
            start: place.start,
            size: place.size,
        };
        let mut magic = [0; 2];
        if window.read(0x438, &mut magic).is_err() || magic != [0x53, 0xef] {
            return Ok(None);
        }
        Ext4::load(Box::new(window)).map(|filesystem| Some(Self(filesystem, place.size)))
    }

    /// Whether it looks like the root of an operating system.
    pub(super) fn is_root(&self) -> bool {
        // A link that leads nowhere in the image, as /sbin/init to another filesystem's, is one too.
        ROOT_MARKS
            .iter()
            .any(|mark| self.0.symlink_metadata(*mark).is_ok())
    }

    /// The newest kernel, by the release in its name.
    pub(super) fn newest_kernel(&self) -> Result<Option<Kernel>, Ext4Error> {
        let mut newest: Option<Kernel> = None;
        for folder in FOLDERS {
            let names = match self.names(folder) {
                Ok(names) => names,
                Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => continue,
                Err(error) => return Err(error),
            };
            for kernel in names.iter().filter_map(|name| kernel(folder, name, &names)) {
                if self.is_file(&kernel.path)
                    && newest.as_ref().is_none_or(|best| kernel.newer(best))
                {
                    newest = Some(kernel);
                }
            }
        }
        Ok(newest.map(|mut kernel| {
            kernel.initrd = kernel.initrd.filter(|(path, _)| self.is_file(path));
            kernel
        }))
    }

    /// Copies a file of at most [`MAX_SIZE`] bytes into a folder, whole or not at all, without its name yet. One
    /// that is larger than its filesystem has holes, as no kernel has.
    pub(super) fn copy(
        &self,
        path: &str,
        folder: &Path,
        name: &str,
    ) -> Result<Copied, DiskImageError> {
        let to = folder.join(name);
        let unreadable = |source| DiskImageError::Read {
            file: path.to_owned(),
            source,
        };
        let unwritable = |source| DiskImageError::Write {
            path: to.clone(),
            source,
        };
        let mut from = self.0.open(path).map_err(unreadable)?;
        let size = from.metadata().len();
        if size > MAX_SIZE.min(self.1) {
            return Err(DiskImageError::TooLarge {
                file: path.to_owned(),
                size,
            });
        }
        let mut copy = NamedTempFile::new_in(folder).map_err(unwritable)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = from.read_bytes(&mut buffer).map_err(unreadable)?;
            if length == 0 {
                break;
            }
            copy.write_all(buffer.get(..length).unwrap_or_default())
                .map_err(unwritable)?;
        }
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        copy.as_file()
            .set_permissions(readable)
            .map_err(unwritable)?;
        Ok(Copied { copy, to })
    }

    /// The harmless names in a folder.
    fn names(&self, folder: &str) -> Result<Vec<String>, Ext4Error> {
        let mut names = Vec::new();
        for entry in self.0.read_dir(folder)?.take(MAX_NAMES) {
            let entry = entry?;
            if let Ok(name) = entry.file_name().as_str()
                && is_harmless(name)
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn is_file(&self, path: &str) -> bool {
        let found = self.0.metadata(path);
        found.is_ok_and(|found| found.file_type().is_regular_file())
    }
}

/// A copy that is whole, and goes unless it is put in its place.
pub(super) struct Copied {
    copy: NamedTempFile,
    to: PathBuf,
}

impl Copied {
    /// Gives it its name.
    pub(super) fn put(self) -> Result<PathBuf, DiskImageError> {
        let to = self.to;
        match self.copy.persist(&to) {
            Ok(_) => Ok(to),
            Err(error) => Err(DiskImageError::Write {
                path: to,
                source: error.error,
            }),
        }
    }
}

/// The length of a filesystem of ext2's family by its superblock (the kernel's
/// Documentation/filesystems/ext4/super.rst), if there is one; the partition may be shorter.
pub(super) fn length(disk: &File, place: &Partition) -> Option<u64> {
    let mut block = [0; 0x154];
    disk.read_exact_at(&mut block, place.start.checked_add(1024)?)
        .ok()?;
    let field = |at: usize| {
        let bytes = block.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    // s_magic, s_blocks_count_lo, s_log_block_size, s_feature_incompat with INCOMPAT_64BIT.
    let (magic, low, size, incompatible) = (field(0x38)?, field(4)?, field(0x18)?, field(0x60)?);
    if magic & 0xffff != 0xef53 {
        return None;
    }
    let high = match incompatible & 0x80 {
        0 => 0,
        _ => field(0x150)?,
    };
    let blocks = u64::from(high) << 32 | u64::from(low);
    blocks.checked_mul(1024_u64.checked_shl(size).filter(|_| size < 32)?)
}

/// Whether a name may be printed on a terminal and used as a file name and in a shell.
fn is_harmless(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c))
}

/// The kernel of this name, with the initrd that `names` has for it; `None` if the name is another
/// kind of file's.
fn kernel(folder: &str, name: &str, names: &[String]) -> Option<Kernel> {
    let release = KERNELS.iter().find_map(|prefix| name.strip_prefix(prefix));
    if release.is_none() && name != PLAIN_KERNEL {
        return None;
    }
    let candidates: Vec<String> = match release {
        // Fedora's rescue kernel is named after a machine and starts no system.
        Some(release) if release.contains("rescue") => return None,
        Some(release) => (INITRDS.iter())
            .map(|(before, after)| format!("{before}{release}{after}"))
            .collect(),
        None => PLAIN_INITRDS.map(str::to_owned).into(),
    };
    let place = |name: &str| format!("{}/{name}", folder.trim_end_matches('/'));
    Some(Kernel {
        path: place(name),
        name: name.to_owned(),
        initrd: (candidates.into_iter())
            .find(|initrd| names.contains(initrd))
            .map(|initrd| (place(&initrd), initrd)),
        release: release.unwrap_or_default().to_owned(),
    })
}

/// A partition, as the filesystem's code reads it.
struct Window {
    disk: Arc<File>,
    start: u64,
    size: u64,
}

impl Ext4Read for Window {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        let end = start.checked_add(into.len() as u64);
        let at = self.start.checked_add(start);
        match (at, end) {
            (Some(at), Some(end)) if end <= self.size => Ok(self.disk.read_exact_at(into, at)?),
            _ => Err("the filesystem reaches beyond its partition".into()),
        }
    }
}
