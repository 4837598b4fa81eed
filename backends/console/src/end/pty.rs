//! A pseudo-terminal.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{read, ttyname, write};
use tokio::io::unix::AsyncFd;

use super::EndError;
use crate::hub::{End, Event};
use crate::scrollback::Scrollback;

nix::ioctl_read_bad!(unread, libc::FIONREAD, libc::c_int);

/// How long the end waits for a reader when the guest is gone.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Time between two looks meanwhile.
const ROUND: Duration = Duration::from_millis(10);

/// The master's side of a pseudo-terminal. What is printed with nobody there waits, the newest
/// [`Scrollback::CAPACITY`] bytes of it.
#[derive(Debug)]
pub struct Pty {
    master: AsyncFd<OwnedFd>,
    /// Held open, so that the master never sees the hang-up of the last person leaving.
    slave: OwnedFd,
    waiting: Scrollback,
}

impl Pty {
    /// Opens a pair; returns the end and the name of the side for people.
    ///
    /// # Errors
    /// The host has no pseudo-terminal left.
    #[allow(unsafe_code)] // AsyncFd wants a promise about the descriptor.
    pub fn open() -> Result<(Self, PathBuf), EndError> {
        let refuse = |source: io::Error| EndError::Path {
            what: "the pty",
            path: "/dev/ptmx".into(),
            source,
        };
        let pair = openpty(None, None).map_err(|e| refuse(e.into()))?;
        Self::prepare(&pair.master, &pair.slave).map_err(|e| refuse(e.into()))?;
        let name = ttyname(pair.slave.as_fd()).map_err(|e| refuse(e.into()))?;
        // SAFETY: an `OwnedFd` gives one descriptor and keeps it open as long as it lives.
        let master = unsafe { AsyncFd::register(pair.master) }.map_err(|e| refuse(e.into()))?;
        let waiting = Scrollback::new(Scrollback::CAPACITY);
        Ok((
            Self {
                master,
                slave: pair.slave,
                waiting,
            },
            name,
        ))
    }

    /// Raw, or the line discipline would echo the guest's output back as its input.
    fn prepare(master: &OwnedFd, slave: &OwnedFd) -> nix::Result<()> {
        let mut mode = tcgetattr(slave.as_fd())?;
        cfmakeraw(&mut mode);
        tcsetattr(slave.as_fd(), SetArg::TCSANOW, &mode)?;
        fcntl(master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// Whether somebody could still read some of it.
    #[allow(unsafe_code)]
    fn unread(&self) -> bool {
        let mut bytes = 0;
        // SAFETY: FIONREAD writes one integer.
        let asked = unsafe { unread(self.slave.as_raw_fd(), &raw mut bytes) };
        asked.is_ok() && bytes > 0
    }

    fn flush(&mut self) {
        while !self.waiting.is_empty() {
            match write(self.master.get_ref(), self.waiting.front()) {
                Ok(taken) => self.waiting.consume(taken),
                Err(_) => break,
            }
        }
    }
}

impl End for Pty {
    fn output(&mut self, bytes: &[u8]) -> bool {
        self.waiting.push(bytes);
        self.flush();
        true
    }

    async fn event(&mut self, typing: bool) -> Event {
        loop {
            tokio::select! {
                Ok(mut ready) = self.master.readable(), if typing => {
                    let mut bytes = [0; 4096];
                    match read(self.master.get_ref(), &mut bytes) {
                        Ok(got @ 1..) => return Event::Input(bytes.get(..got).unwrap_or_default().to_vec()),
                        Err(Errno::EINTR) => {}
                        _ => ready.clear_ready(),
                    }
                }
                Ok(mut ready) = self.master.writable(), if !self.waiting.is_empty() => {
                    ready.clear_ready();
                    drop(ready);
                    self.flush();
                }
                else => std::future::pending().await,
            }
        }
    }

    async fn finish(&mut self) {
        self.flush();
        // What nobody has read yet goes with the pty. Seen twice, since some of it may be on its way
        // from one side to the other, where nobody can ask for it.
        let (begin, mut quiet) = (Instant::now(), 0u8);
        while quiet < 2 && begin.elapsed() < LAST_WORDS {
            tokio::time::sleep(ROUND).await;
            self.flush();
            let rest = self.unread() || !self.waiting.is_empty();
            quiet = if rest { 0 } else { quiet.saturating_add(1) };
        }
    }
}
