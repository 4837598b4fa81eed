//! The VM's own folder, for sockets that nobody named.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::VmError;
use crate::config::{DeviceConfig, Host, Port, VmConfig};

/// The folder, if the VM needs one; gone when dropped, unless somebody put something else there.
pub(super) struct RuntimeDir(Option<Locked>);

struct Locked {
    path: PathBuf,
    /// Where daemons that are not ours were told to listen; not all remove what they made.
    sockets: Vec<PathBuf>,
    /// Locked, which tells another VM of the same name that this one runs.
    _folder: File,
}

impl RuntimeDir {
    /// Makes the folder, for its owner only. One that is left from before is used again.
    pub(super) fn make(config: &VmConfig) -> Result<Self, VmError> {
        let unnamed = Port::Socket(None);
        let sockets: Vec<PathBuf> = config.devices.iter().filter_map(socket).collect();
        if config.serial != unnamed
            && config.console.as_ref() != Some(&unnamed)
            && sockets.is_empty()
        {
            return Ok(Self(None));
        }
        let path = config.runtime_dir.clone();
        let failed = |source| VmError::RuntimeDir {
            path: path.clone(),
            source,
        };
        let folder = open(&path).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(VmError::NameInUse {
                    name: config.name.clone(),
                    path,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Self(Some(Locked {
            path,
            sockets,
            _folder: folder,
        })))
    }
}

fn socket(device: &DeviceConfig) -> Option<PathBuf> {
    match &device.host {
        Host::Foreign { socket, .. } => socket.clone(),
        _ => None,
    }
}

fn open(path: &Path) -> io::Result<File> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
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
