//! Where kernels come from: files, kept open so that every reboot loads the same ones again; and
//! [disk images](disk), which have them inside.

pub mod disk;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use vm_memory::GuestMemoryMmap;

use crate::arch::x86_64::boot::{Boot, BootError, EntryState, load};

/// Why boot files cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A file cannot be opened.
    #[error("Cannot open the {role} {}", path.display())]
    Open {
        /// "kernel" or "initrd".
        role: &'static str,
        /// The path that was given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that is no file with a length: a directory, a pipe, a terminal.
    #[error("The {role} {} is {found}; give a file", path.display())]
    NotAFile {
        /// "kernel" or "initrd".
        role: &'static str,
        /// The path that was given.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The files do not boot on this machine.
    #[error("Cannot boot {}", kernel.display())]
    Boot {
        /// The kernel's path.
        kernel: PathBuf,
        /// Why.
        #[source]
        source: BootError,
    },
}

/// What `--kernel`, `--initrd` and `--cmdline` gave, opened once.
///
/// The files stay open: a reboot reads them again, and sees their present content, but not a file
/// that was put in their place.
#[derive(Debug)]
pub struct BootFiles {
    kernel: File,
    kernel_path: PathBuf,
    initrd: Option<File>,
    cmdline: String,
}

impl BootFiles {
    /// Opens the files. What is in them is looked at by [`load`](Self::load).
    pub fn open(
        kernel: &Path,
        initrd: Option<&Path>,
        cmdline: Option<&str>,
    ) -> Result<Self, ImageError> {
        Ok(Self {
            kernel: open("kernel", kernel)?,
            kernel_path: kernel.to_owned(),
            initrd: initrd
                .filter(|path| !is_null(path))
                .map(|path| open("initrd", path))
                .transpose()?,
            cmdline: cmdline.unwrap_or_default().to_owned(),
        })
    }

    /// Loads everything into `ram`; see [`boot::load`](load).
    pub fn load(&mut self, ram: &GuestMemoryMmap, rsdp: u64) -> Result<EntryState, ImageError> {
        let boot = Boot {
            kernel: &mut self.kernel,
            initrd: self.initrd.as_mut(),
            cmdline: &self.cmdline,
            rsdp,
        };
        load(ram, boot).map_err(|source| ImageError::Boot {
            kernel: self.kernel_path.clone(),
            source,
        })
    }
}

fn open(role: &'static str, path: &Path) -> Result<File, ImageError> {
    let failed = |source| ImageError::Open {
        role,
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    let kind = path.metadata().map_err(failed)?.file_type();
    if kind.is_file() || kind_is_block(kind) {
        return File::open(path).map_err(failed);
    }
    let found = if kind.is_dir() {
        "a directory"
    } else {
        "a pipe, a socket or a device"
    };
    Err(ImageError::NotAFile {
        role,
        path: path.to_owned(),
        found,
    })
}

/// Whether it is `/dev/null`, which is as empty as a file can be: an empty initrd counts as none.
fn is_null(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    path.metadata().is_ok_and(|meta| {
        meta.file_type().is_char_device() && meta.rdev() == nix::libc::makedev(1, 3)
    })
}

fn kind_is_block(kind: std::fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_block_device()
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use vm_memory::GuestAddress;

    use super::*;

    #[test]
    fn errors_name_the_file_and_what_is_wrong_with_it() {
        let missing = BootFiles::open(Path::new("/no/such/vmlinuz"), None, None).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "Cannot open the kernel /no/such/vmlinuz"
        );
        let directory = BootFiles::open(Path::new("/"), None, None).unwrap_err();
        assert_eq!(
            directory.to_string(),
            "The kernel / is a directory; give a file"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let initrd = BootFiles::open(file.path(), Some(Path::new("/dev/zero")), None).unwrap_err();
        assert!(
            initrd.to_string().contains("initrd /dev/zero is a pipe"),
            "{initrd}"
        );
        let none = BootFiles::open(file.path(), Some(Path::new("/dev/null")), None).unwrap();
        assert!(none.initrd.is_none(), "an empty initrd counts as none");

        let mut files = BootFiles::open(file.path(), None, None).unwrap();
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let empty = files.load(&ram, 0).unwrap_err();
        assert!(empty.to_string().starts_with("Cannot boot /"));
        assert!(empty.source().unwrap().to_string().contains("is empty"));
    }
}
