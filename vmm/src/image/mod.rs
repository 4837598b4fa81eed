//! Where kernels come from: files, kept open so that every reboot loads the same ones again; [ISO
//! images](iso) with their [boot menus](menu); and [disk images](disk), which have them inside.

pub mod disk;
pub mod iso;
pub mod menu;
mod pieces;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use vm_memory::GuestMemoryMmap;

use crate::arch::x86_64::boot::{Boot, BootError, EntryState, load};
use crate::config::{BootConfig, BootFrom};
use iso::{Extent, Iso, IsoError, Texts};
use menu::{Entry, Menu, NoMenu};
use pieces::{Pieces, Source};

/// Why boot files cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A file cannot be opened.
    #[error("Cannot open the {role} {}", path.display())]
    Open {
        /// "kernel", "initrd" or "ISO image".
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
        /// "kernel", "initrd" or "ISO image".
        role: &'static str,
        /// The path that was given.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// There is nothing to boot on an ISO image.
    #[error("Cannot boot from {}", image.display())]
    Iso {
        /// The path that was given.
        image: PathBuf,
        /// Why.
        #[source]
        source: IsoError,
    },
    /// The initrd cannot be loaded.
    #[error("Cannot load the initrd {initrd}")]
    Initrd {
        /// Its path, or those in the image and the image's.
        initrd: String,
        /// Why.
        #[source]
        source: BootError,
    },
    /// The files do not boot on this machine.
    #[error("Cannot boot {kernel}")]
    Boot {
        /// The kernel's path, that in the image behind the image's.
        kernel: String,
        /// Why.
        #[source]
        source: BootError,
    },
}

/// What is appended to the command line of an ISO image's entry that names no console: the first serial
/// port is where its words can be read, and `/dev/console` is the last.
const CONSOLES: &str = "console=tty0 console=ttyS0";
/// The most entries that a message names, and the most of one name.
const NAMED: usize = 12;
const SHOWN: usize = 80;

/// What the guest starts from, opened once.
///
/// The files stay open: a reboot reads them again, and sees their present content, but not a file
/// that was put in their place.
#[derive(Debug)]
pub struct BootFiles {
    kernel: Source,
    kernel_path: String,
    initrd: Option<Source>,
    initrd_path: String,
    cmdline: String,
    notice: Option<String>,
}

impl BootFiles {
    /// Opens the files. What is in a kernel is looked at by [`load`](Self::load); of an ISO image the boot
    /// menu is read here, and the entry's files are found.
    pub fn open(config: &BootConfig) -> Result<Self, ImageError> {
        let given = |path: &&PathBuf| !is_null(path);
        let initrd = config.initrd.as_ref().filter(given);
        let initrd = initrd.map(|path| open("initrd", path).map(Source::File));
        let initrd = initrd.transpose()?;
        let mut initrd_path = (config.initrd.as_ref())
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        let cmdline = config.cmdline.clone();
        let (image, name) = match &config.from {
            BootFrom::Kernel(path) => {
                return Ok(Self {
                    kernel: Source::File(open("kernel", path)?),
                    kernel_path: path.display().to_string(),
                    initrd,
                    initrd_path,
                    cmdline: appended(&cmdline.unwrap_or_default(), config.append.as_deref()),
                    notice: None,
                });
            }
            BootFrom::Iso { image, entry } => (image, entry.as_deref()),
        };
        let failed = |source| ImageError::Iso {
            image: image.clone(),
            source,
        };
        let iso = Iso::new(open("ISO image", image)?).map_err(failed)?;
        let menu = read_menu(&iso).map_err(failed)?;
        let entry = (menu.entry(name))
            .ok_or_else(|| failed(no_such_entry(&menu, name)))?
            .clone();
        if entry.cut {
            let entry = entry.word().chars().take(SHOWN).collect();
            return Err(failed(IsoError::TooLong { entry }));
        }
        let kernel = find(&iso, &entry, "kernel", &entry.kernel).map_err(failed)?;
        let mut notice = format!("Booting '{}' of {}", entry.path(), image.display());
        let initrd = match (&config.initrd, entry.initrds.as_slice()) {
            (Some(_), _) => initrd,
            (None, []) => None,
            (None, paths) => {
                let found = paths.iter().map(|path| find(&iso, &entry, "initrd", path));
                let found = found.collect::<Result<Vec<_>, _>>().map_err(failed)?;
                initrd_path = format!("{} of {}", paths.join(" + "), image.display());
                Some(Source::Pieces(Pieces::new(iso.file(), &found)))
            }
        };
        let own = cmdline.is_none();
        let mut cmdline = appended(&cmdline.unwrap_or(entry.cmdline), config.append.as_deref());
        if own && !cmdline.split(' ').any(|word| word.starts_with("console=")) {
            cmdline = appended(&cmdline, Some(CONSOLES));
            notice = format!("{notice}; it names no console, so {CONSOLES} is appended");
        }
        Ok(Self {
            kernel: Source::Pieces(Pieces::new(iso.file(), &[kernel])),
            kernel_path: format!("{} of {}", entry.kernel, image.display()),
            initrd,
            initrd_path,
            cmdline,
            notice: Some(notice),
        })
    }

    /// What a person should know of the choices that were made, in a line.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Loads everything into `ram`; see [`boot::load`](load).
    pub fn load(&mut self, ram: &GuestMemoryMmap, rsdp: u64) -> Result<EntryState, ImageError> {
        let boot = Boot {
            kernel: &mut self.kernel,
            initrd: self.initrd.as_mut(),
            cmdline: &self.cmdline,
            rsdp,
        };
        load(ram, boot).map_err(|source| match source {
            BootError::ReadInitrd(_) | BootError::InitrdTooLarge { .. } => ImageError::Initrd {
                initrd: self.initrd_path.clone(),
                source,
            },
            source => ImageError::Boot {
                kernel: self.kernel_path.clone(),
                source,
            },
        })
    }
}

/// The boot menu of an ISO image.
///
/// # Errors
/// It is no such image, or there is no entry on it that starts Linux.
pub fn boot_menu(image: &Path) -> Result<Menu, ImageError> {
    let file = open("ISO image", image)?;
    let menu = Iso::new(file).and_then(|iso| read_menu(&iso));
    menu.map_err(|source| ImageError::Iso {
        image: image.to_owned(),
        source,
    })
}

fn read_menu(iso: &Iso) -> Result<Menu, IsoError> {
    let texts = Texts::new(iso);
    Menu::read(&texts).map_err(|none| {
        texts.error().unwrap_or(match none {
            NoMenu::None => IsoError::NoMenu,
            NoMenu::NoEntries(menu) => IsoError::NoEntries { menu },
        })
    })
}

fn no_such_entry(menu: &Menu, name: Option<&str>) -> IsoError {
    let words = menu.entries.iter().take(NAMED);
    let mut known: Vec<_> = words
        .map(|entry| format!("'{:.SHOWN$}'", entry.word()))
        .collect();
    match menu.entries.len().saturating_sub(known.len()) {
        0 => {}
        more => known.push(format!("{more} more (outboard iso ls tells all)")),
    }
    IsoError::NoSuchEntry {
        menu: menu.file.clone(),
        entry: name.unwrap_or_default().to_owned(),
        known: known.join(", "),
    }
}

fn find(iso: &Iso, entry: &Entry, role: &'static str, path: &str) -> Result<Extent, IsoError> {
    iso.find(path)?.ok_or_else(|| IsoError::NoFile {
        entry: entry.word().to_owned(),
        role,
        path: path.to_owned(),
    })
}

/// A command line with more behind it.
fn appended(cmdline: &str, more: Option<&str>) -> String {
    match more {
        Some(more) if cmdline.is_empty() => more.to_owned(),
        Some(more) => format!("{cmdline} {more}"),
        None => cmdline.to_owned(),
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

    fn open(kernel: &Path, initrd: Option<&Path>) -> Result<BootFiles, ImageError> {
        BootFiles::open(&BootConfig {
            from: BootFrom::Kernel(kernel.to_owned()),
            initrd: initrd.map(Path::to_owned),
            cmdline: None,
            append: None,
        })
    }

    #[test]
    fn errors_name_the_file_and_what_is_wrong_with_it() {
        let missing = open(Path::new("/no/such/vmlinuz"), None).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "Cannot open the kernel /no/such/vmlinuz"
        );
        let directory = open(Path::new("/"), None).unwrap_err();
        assert_eq!(
            directory.to_string(),
            "The kernel / is a directory; give a file"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let initrd = open(file.path(), Some(Path::new("/dev/zero"))).unwrap_err();
        assert!(
            initrd.to_string().contains("initrd /dev/zero is a pipe"),
            "{initrd}"
        );
        let none = open(file.path(), Some(Path::new("/dev/null"))).unwrap();
        assert!(none.initrd.is_none(), "an empty initrd counts as none");

        let mut files = open(file.path(), None).unwrap();
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let empty = files.load(&ram, 0).unwrap_err();
        assert!(empty.to_string().starts_with("Cannot boot /"));
        assert!(empty.source().unwrap().to_string().contains("is empty"));
    }
}
