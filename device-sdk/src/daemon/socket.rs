//! A listening socket at a path: that of `--socket`, or one of a device's own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::warn;

use super::ServeError;
use super::signals::Stop;
use crate::ratelimit::RateLimit;

/// How long to wait, in milliseconds, when a frontend cannot be taken, for want of descriptors, say: the
/// others of this process have no part in it.
const PAUSE: u8 = 100;

/// A listening socket, removed from the file system when this value goes.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, to remove only what was made here.
    identity: Option<(u64, u64)>,
}

impl Socket {
    /// Listens at `path`. A socket there that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Somebody listens there, something else is there, or the folder cannot be used.
    pub fn listen(path: &Path) -> Result<Self, ServeError> {
        let refuse = |remedy| {
            move |source| ServeError::Endpoint {
                what: format!("cannot listen on {}", path.display()),
                remedy,
                source,
            }
        };
        super::socket_path::check(path)
            .map_err(refuse("choose a shorter path, or set XDG_RUNTIME_DIR"))?;
        let other = "choose another path, or end what is there first";
        match UnixStream::connect(path) {
            Ok(_) => {
                let in_use = io::Error::from(io::ErrorKind::AddrInUse);
                return Err(refuse(other)(in_use));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Someone's, who lets us not in, or is of another kind.
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
                return Err(refuse(other)(error));
            }
            Err(_) => {
                let meta = fs::symlink_metadata(path).map_err(refuse(other))?;
                if !meta.file_type().is_socket() {
                    let exists = io::Error::from(io::ErrorKind::AlreadyExists);
                    return Err(refuse(other)(exists));
                }
                fs::remove_file(path).map_err(refuse(other))?;
            }
        }
        let listener = UnixListener::bind(path)
            .map_err(refuse("check that the directory exists and is writable"))?;
        super::will_remove(path);
        Ok(Self {
            listener,
            identity: identity(path),
            path: path.to_owned(),
        })
    }

    /// The next frontend; `None` when asked to stop.
    pub(super) fn accept(&self, stop: &Stop) -> io::Result<Option<UnixStream>> {
        loop {
            let mut fds = [
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if stop.requested() {
                return Ok(None);
            }
            match self.listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                // The frontend gave up between poll and accept.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    static REFUSED: RateLimit = RateLimit::new();
                    if let Some(unseen) = REFUSED.pass() {
                        let socket = self.path.display();
                        warn!(%socket, %error, "no frontend can be taken; tried again{unseen}");
                    }
                    // The end of a pause, or of all; EINTR ends it early.
                    let _ = poll(
                        &mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)],
                        PollTimeout::from(PAUSE),
                    );
                }
            }
        }
    }
}

impl Socket {
    /// Who has connected, if anybody; never waits. For one who polls the socket; not together with
    /// [`serve`](super::serve), which has a socket of its own.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_accept(&self) -> io::Result<Option<UnixStream>> {
        self.listener.set_nonblocking(true)?;
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// Readable when somebody has connected.
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::thread;
    use std::time::Duration;

    use nix::sys::socket::{Shutdown, shutdown};

    use super::*;

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let live = Socket::listen(&path).unwrap();
        let error = Socket::listen(&path).err().unwrap();
        assert!(error.to_string().contains("choose another path"), "{error}");
        drop(live);
        // As after SIGKILL: the file stays, nobody listens.
        drop(UnixListener::bind(dir.path().join("t")).unwrap());
        let replaced = Socket::listen(&dir.path().join("t")).unwrap();
        assert!(UnixStream::connect(&replaced.path).is_ok());
    }

    #[test]
    fn a_path_that_is_too_long_is_told_so() {
        let path = std::env::temp_dir().join("s".repeat(110));
        let error = Socket::listen(&path).err().unwrap();
        let why = crate::device::chain(&error);
        assert!(why.contains("shorter") && why.contains("107"), "{why}");
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(Socket::listen(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn a_live_socket_of_another_kind_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let live = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(Socket::listen(&path).is_err());
        let words = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(words.send_to(b"here", &path).unwrap(), 4);
        drop(live);
    }

    #[test]
    fn only_the_own_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = Socket::listen(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        let socket = Socket::listen(&path).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_wish_to_stop_ends_the_wait_for_a_frontend() {
        let dir = tempfile::tempdir().unwrap();
        let socket = Socket::listen(&dir.path().join("s")).unwrap();
        let stop = Stop::new().unwrap();
        let _frontend = UnixStream::connect(&socket.path).unwrap();
        assert!(socket.accept(&stop).unwrap().is_some());
        stop.request();
        assert!(socket.accept(&stop).unwrap().is_none());
    }

    #[test]
    fn a_frontend_that_cannot_be_taken_does_not_end_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let socket = Socket::listen(&dir.path().join("s")).unwrap();
        // From here on accept fails, and poll calls it ready.
        shutdown(socket.as_fd().as_raw_fd(), Shutdown::Read).unwrap();
        let stop = Stop::new().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| socket.accept(&stop));
            thread::sleep(Duration::from_millis(250));
            assert!(!waiting.is_finished());
            stop.request();
            assert!(waiting.join().unwrap().unwrap().is_none());
        });
    }
}
