//! Where a VM is asked: the socket in its folder.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::events::Events;
use super::request::Control;
use crate::api::{Place, SOCKET, Server};

/// Where a VM answers.
pub(super) enum Door {
    /// At a socket in its folder, for as long as it lives; then its process ends.
    Own,
    /// At one of its VMM's, which goes on: a link in its folder leads there.
    Elsewhere(Option<PathBuf>),
}

impl Door {
    /// Opens the VM to requests in its folder. One that cannot be asked there runs all the same.
    pub(super) fn open(&self, folder: &Path, events: &Events) -> Option<Opened> {
        let path = folder.join(SOCKET);
        let opened = match self {
            Self::Own => {
                let place = Place::Path(path.clone());
                Server::listen(place, Control::new(events.clone())).map(Opened::Server)
            }
            Self::Elsewhere(None) => return None,
            Self::Elsewhere(Some(socket)) => {
                symlink(socket, &path).map(|()| Opened::Link(path.clone()))
            }
        };
        match opened {
            Ok(opened) => Some(opened),
            Err(error) => {
                tracing::warn!("The VM cannot be managed: {}: {error}", path.display());
                None
            }
        }
    }
}

/// What answers in a VM's folder. Dropped, it is gone from there.
pub(super) enum Opened {
    #[allow(dead_code)] // held
    Server(Server),
    Link(PathBuf),
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Self::Link(path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}
