//! A terminal in raw mode, and back.

use std::io::{IsTerminal, Stdin};
use std::os::fd::AsFd;

use nix::sys::signal::{SigHandler, Signal};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

use super::EndError;

/// Standard input's terminal in raw mode; restored on drop.
#[derive(Debug)]
pub struct RawMode {
    stdin: Stdin,
    saved: Termios,
}

impl RawMode {
    /// Sets raw mode. `None` when standard input is no terminal, or when this process is in the
    /// terminal's background and must leave it alone.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn enter() -> Result<Option<Self>, EndError> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        ignore_job_control();
        if tcgetpgrp(stdin.as_fd()) != Ok(getpgrp()) {
            return Ok(None);
        }
        let refuse = |e: nix::Error| EndError::Terminal(e.into());
        let saved = tcgetattr(stdin.as_fd()).map_err(refuse)?;
        let mut raw = saved.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).map_err(refuse)?;
        Ok(Some(Self { stdin, saved }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = tcsetattr(self.stdin.as_fd(), SetArg::TCSADRAIN, &self.saved);
    }
}

/// In the background, reading fails with EIO and restoring works, instead of stopping us.
#[allow(unsafe_code)]
fn ignore_job_control() {
    for stop in [Signal::SIGTTIN, Signal::SIGTTOU] {
        // SAFETY: ignoring a signal installs no handler.
        let _ = unsafe { nix::sys::signal::signal(stop, SigHandler::SigIgn) };
    }
}
