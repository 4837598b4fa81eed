//! The VM's own folder, for sockets that nobody named.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::VmError;
use crate::config::{Port, VmConfig};

/// The folder, if the VM needs one; gone when dropped, unless somebody put something else there.
pub(super) struct RuntimeDir(Option<PathBuf>);

impl RuntimeDir {
    /// Makes the folder, for its owner only. One that is left from before is used again.
    pub(super) fn make(config: &VmConfig) -> Result<Self, VmError> {
        let unnamed = Port::Socket(None);
        if config.serial != unnamed && config.console.as_ref() != Some(&unnamed) {
            return Ok(Self(None));
        }
        let path = &config.runtime_dir;
        create(path).map_err(|source| VmError::RuntimeDir {
            path: path.clone(),
            source,
        })?;
        Ok(Self(Some(path.clone())))
    }
}

fn create(path: &std::path::Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // The daemons have removed their sockets; a folder in use by others stays.
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_dir(path)
        {
            tracing::debug!(path = %path.display(), %error, "the VM's folder stays");
        }
    }
}
