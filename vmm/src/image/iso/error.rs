//! Why nothing can be booted from an ISO image, in words for the person who gave it. The caller adds
//! which image was meant.

use std::io;

use thiserror::Error;

/// Why an ISO image is of no use.
#[derive(Debug, Error)]
pub enum IsoError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// The file is something else.
    #[error(
        "it is no ISO 9660 image: there is no CD001 at byte 32769; unpack one that is compressed, and \
         give a disk image by --disk path=FILE"
    )]
    NotIso,
    /// The file system contradicts itself.
    #[error("its file system is damaged: {0}; download it again")]
    Damaged(&'static str),
    /// The file ends too early.
    #[error(
        "it is cut short: its {what} would end at byte {end}, and it has {size}; download it again"
    )]
    Short {
        /// A file's path, or what else is meant.
        what: String,
        /// Where it would end.
        end: u64,
        /// The image's length.
        size: u64,
    },
    /// There is no menu that can be read.
    #[error(
        "it has no boot menu of isolinux, syslinux or GRUB; give the kernel beside it by --kernel FILE"
    )]
    NoMenu,
    /// There is a menu, and Linux is not on it.
    #[error(
        "no entry of its boot menu {menu} starts a Linux kernel; give the kernel beside it by --kernel \
         FILE"
    )]
    NoEntries {
        /// The menu's path in the image.
        menu: String,
    },
    /// The entry that was asked for is not there.
    #[error("its boot menu {menu} has no entry '{entry}'; it has {known}")]
    NoSuchEntry {
        /// The menu's path in the image.
        menu: String,
        /// What was asked for.
        entry: String,
        /// Some of those there are.
        known: String,
    },
    /// The entry is beyond the limits of one.
    #[error(
        "its entry '{entry}' has a text longer than 4 KiB, or more than 64 initrds; choose another entry by \
         --boot-entry, or give the kernel beside it by --kernel FILE"
    )]
    TooLong {
        /// The entry, or the beginning of its name.
        entry: String,
    },
    /// An entry names a file that is not there.
    #[error(
        "its entry '{entry}' wants the {role} {path}, which it does not have; choose another entry by \
         --boot-entry"
    )]
    NoFile {
        /// The entry.
        entry: String,
        /// "kernel" or "initrd".
        role: &'static str,
        /// The path in the image.
        path: String,
    },
}
