//! From a file to a library in this process.
//!
//! The file is copied into a memfd and that is loaded: a file replaced, truncated or deleted later
//! touches nothing that runs, and the next load sees the new one. (The loader answers a path it
//! has seen with the library it has, and a mapped file that is overwritten crashes the process.) For
//! the same reason the memfd of what is loaded is never closed: its number is the path. Nothing is ever
//! unloaded; a file of the same bytes as one that is loaded is that one, so that a plugin that comes and goes, or
//! is tried again and again, costs its memory once.
#![allow(unsafe_code)] // dlopen, and the entry it finds.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::elf;
use super::error::Problem;
use super::raw::OutboardPlugin;

/// More than any plugin; less than what would fill memory.
const SIZE_MAX: u64 = 1 << 30;

type Entry = unsafe extern "C" fn() -> *const OutboardPlugin;

/// The copy that a library was loaded from.
#[derive(Debug, Clone)]
pub(super) struct Copy(Arc<File>);

impl Copy {
    /// Whether it is a copy of these bytes.
    pub(super) fn is_of(&self, bytes: &[u8]) -> bool {
        let len = self.0.metadata().map_or(0, |meta| meta.len());
        let mut own = [0; 1 << 14];
        len == bytes.len() as u64
            && (0..).zip(bytes.chunks(own.len())).all(|(n, chunk)| {
                let own = own.get_mut(..chunk.len()).unwrap_or_default();
                let read = self.0.read_exact_at(own, n << 14);
                read.is_ok() && own == chunk
            })
    }
}

/// Reads a file that looks like a library for this machine.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    if cfg!(target_feature = "crt-static") {
        return Err(Problem::StaticHost);
    }
    let bytes = read_file(path).map_err(Problem::Read)?;
    elf::check(&bytes)?;
    Ok(bytes)
}

/// Loads the library that these bytes of `path` are, and asks its entry for its table, not looked at yet. With
/// the copy comes what is wrong with what is loaded now; without one, nothing is.
pub(super) fn load(path: &Path, bytes: &[u8]) -> Result<(Copy, Found), Problem> {
    let copy = sealed_copy(path, bytes).map_err(Problem::Read)?;
    let name = format!("/proc/self/fd/{}", copy.as_raw_fd());
    // SAFETY: this runs the library's constructors. Whoever names a plugin trusts it as far as the
    // process it is loaded into; see docs/trust.md.
    let library = unsafe { Library::open(Some(&name), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|error| Problem::Load(reason(&error, &name)))?;
    let copy = Arc::new(copy);
    // SAFETY: the symbol is what its name says, by the ABI.
    let entry = unsafe { library.get::<Entry>(elf::ENTRY.as_bytes()) };
    let found = match entry {
        // SAFETY: as above.
        Ok(entry) => Ok(unsafe { entry() }),
        Err(_) => Err(Problem::NoEntry),
    };
    // Held for ever: see above.
    std::mem::forget(copy.clone());
    // Never unloaded: its threads and statics may be anywhere.
    std::mem::forget(library);
    Ok((Copy(copy), found))
}

/// The table of a library that is loaded.
pub(super) type Found = Result<*const OutboardPlugin, Problem>;

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if meta.len() > SIZE_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, SIZE_MAX), &mut bytes)?;
    Ok(bytes)
}

fn sealed_copy(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let name: Vec<u8> = name.iter().copied().filter(|b| *b != 0).take(200).collect();
    let name = std::ffi::CString::new(name)?;
    let fd = memfd_create(
        name.as_c_str(),
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// What the loader says, without the name it does not know the file by.
fn reason(error: &libloading::Error, name: &str) -> String {
    let text = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    text.trim_start_matches(name)
        .trim_start_matches(": ")
        .to_owned()
}
