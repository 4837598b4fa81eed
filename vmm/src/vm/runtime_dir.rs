//! The VM's own folder: its API's socket, and those that nobody named.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use outboard_device::daemon::socket_path;

use super::VmError;
use crate::api::SOCKET;
use crate::config::{DEFAULT_NAME, DeviceConfig, Host, Port, VmConfig};
use crate::frontend::chain;

/// How often a folder is tried to be locked, and how long whoever sweeps one up may have it.
const TRIES: u32 = 5;
const SWEEP: Duration = Duration::from_millis(20);

/// The folder; gone when dropped, unless somebody put something else there.
pub(super) struct RuntimeDir(Option<Locked>);

struct Locked {
    path: PathBuf,
    /// Where daemons that are not ours were told to listen; not all remove what they made.
    sockets: Vec<PathBuf>,
    /// Locked, which tells everybody that this VM runs.
    _folder: File,
}

impl RuntimeDir {
    /// Makes the folder, for its owner only. One that is left from before is used again. A VM that
    /// cannot have it and has no sockets of its own there runs without.
    pub(super) fn make(config: &VmConfig) -> Result<Self, VmError> {
        let unnamed = Port::Socket(None);
        let sockets: Vec<PathBuf> = config.devices.iter().filter_map(socket).collect();
        let is_needed = config.serial == unnamed
            || config.console.as_ref() == Some(&unnamed)
            || !sockets.is_empty();
        match lock(config) {
            Ok(folder) => Ok(Self(Some(Locked {
                path: config.runtime_dir.clone(),
                sockets,
                _folder: folder,
            }))),
            Err(error) if is_needed => Err(error),
            // Nobody has chosen this name.
            Err(error @ VmError::NameInUse { .. }) if config.name == DEFAULT_NAME => {
                tracing::info!("{error}. Until then this VM cannot be managed by its name");
                Ok(Self(None))
            }
            Err(error) => {
                let why = chain(&error);
                tracing::warn!("{why}. Until then this VM cannot be managed by its name");
                Ok(Self(None))
            }
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(|locked| locked.path.as_path())
    }
}

/// Makes the folder and locks it.
fn lock(config: &VmConfig) -> Result<File, VmError> {
    let path = &config.runtime_dir;
    let failed = |source| VmError::RuntimeDir {
        path: path.clone(),
        source,
    };
    socket_path::check(&path.join(SOCKET)).map_err(failed)?;
    // Whoever sweeps up after a killed VM removes the folder, and may do so right after it was
    // made or opened here.
    for attempt in 1..=TRIES {
        let folder = match open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && attempt < TRIES => continue,
            folder => folder.map_err(failed)?,
        };
        match folder.try_lock() {
            Ok(()) if is_at(&folder, path) => return Ok(folder),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => std::thread::sleep(SWEEP),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    Err(VmError::NameInUse {
        name: config.name.clone(),
        path: path.clone(),
    })
}

/// Whether `path` leads to this folder, and not to one made since, or none.
fn is_at(folder: &File, path: &Path) -> bool {
    match (folder.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn socket(device: &DeviceConfig) -> Option<PathBuf> {
    match &device.host {
        Host::Foreign { socket, .. } => socket.clone(),
        _ => None,
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Nothing is made where it would be refused.
    if let Some(base) = path.parent().filter(|base| base.exists()) {
        crate::own_folder::level(base)?;
    }
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    crate::own_folder::check(path)?;
    File::open(path)
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // The daemons have removed their sockets, and the last of them the folder, as a rule.
        let Some(Locked { path, sockets, .. }) = &self.0 else {
            return;
        };
        for socket in sockets {
            let _ = std::fs::remove_file(socket);
        }
        if let Err(error) = std::fs::remove_dir(path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(path = %path.display(), %error, "the VM's folder stays");
        }
    }
}
