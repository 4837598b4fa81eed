//! A descriptor that somebody has handed to the VMM for a device.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An open descriptor; clones are the same one, which is closed with the last of them. Two are equal
/// when they are clones of one.
#[derive(Debug, Clone)]
pub struct Handed(Arc<OwnedFd>);

impl Handed {
    /// One more descriptor of the same open file, for a daemon to inherit.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl From<OwnedFd> for Handed {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl PartialEq for Handed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Handed {}
