//! Which VMs of this user run: each has a folder, which it keeps locked, with its API's socket in it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outboard_device::daemon::sweep;

use crate::api::{Client, SOCKET};
use crate::config::runtime_base;
use crate::own_folder;

/// A VM that runs.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
}

/// Why a VM cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No VM of this name runs.
    #[error("No VM called '{name}' runs; outboard list shows those that do")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The folder of all VMs cannot be read.
    #[error("The folder {} of running VMs cannot be read", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Running {
    /// Asks it.
    pub fn client(&self) -> Client {
        Client::new(&self.folder.join(SOCKET))
    }
}

/// Every VM that runs and can be asked, by name. What killed ones have left is removed.
///
/// # Errors
/// The folder is there and cannot be read.
pub fn running() -> Result<Vec<Running>, RegistryError> {
    list(&runtime_base())
}

/// The VM of this name.
///
/// # Errors
/// It does not run.
pub fn find(name: &str) -> Result<Running, RegistryError> {
    let all = running()?;
    let found = all.into_iter().find(|vm| vm.name == name);
    found.ok_or_else(|| RegistryError::Unknown { name: name.into() })
}

fn list(base: &Path) -> Result<Vec<Running>, RegistryError> {
    let failed = |source| RegistryError::Folder {
        path: base.into(),
        source,
    };
    let entries = match std::fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    // Else another user could have put links or sockets there.
    own_folder::level(base).map_err(failed)?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let folder = entry.path();
        if sweep(&folder, Duration::ZERO) || !folder.join(SOCKET).exists() {
            continue;
        }
        found.push(Running {
            name: entry.file_name().to_string_lossy().into_owned(),
            folder,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_stale_folder_is_swept_and_a_locked_one_is_found() {
        let home = tempfile::tempdir().unwrap();
        let base = home.path().join("outboard");
        std::fs::create_dir(&base).unwrap();
        set_permissions(&base, Permissions::from_mode(0o700)).unwrap();
        let make = |name: &str| {
            let folder = base.join(name);
            std::fs::create_dir(&folder).unwrap();
            drop(UnixListener::bind(folder.join(SOCKET)).unwrap());
            folder
        };
        let (stale, live) = (make("stale"), make("live"));
        let lock = File::open(&live).unwrap();
        lock.lock().unwrap();
        let names = |vms: Vec<Running>| vms.into_iter().map(|vm| vm.name).collect::<Vec<_>>();
        assert_eq!(names(list(&base).unwrap()), ["live"]);
        assert!(!stale.exists() && live.exists());
        drop(lock);
        assert!(list(&base).unwrap().is_empty());
        assert!(!live.exists());
        assert!(list(&base.join("none")).unwrap().is_empty());
        set_permissions(&base, Permissions::from_mode(0o777)).unwrap();
        assert!(list(&base).is_err());
    }
}
