//! The terminal, as it was before a console's daemon took it.

use std::io::{IsTerminal, Stdin, stdin};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The settings of standard input's terminal, put back when the last clone is dropped. The daemon
/// that owns the terminal does so itself, unless it is killed.
#[derive(Debug, Clone)]
pub(super) struct Terminal(Arc<Saved>);

#[derive(Debug)]
struct Saved(Option<(Stdin, Mutex<Termios>)>);

impl Terminal {
    /// Call it before any daemon is spawned.
    pub(super) fn remember() -> Self {
        let stdin = stdin();
        let settings = stdin
            .is_terminal()
            .then(|| tcgetattr(stdin.as_fd()).ok())
            .flatten();
        Self(Arc::new(Saved(
            settings.map(|settings| (stdin, Mutex::new(settings))),
        )))
    }

    /// Puts the settings back now.
    pub(super) fn restore(&self) {
        self.0.restore();
    }
}

impl Saved {
    fn restore(&self) {
        let Some((stdin, settings)) = &self.0 else {
            return;
        };
        // In the background nothing of ours has changed it, and whoever has it now may have.
        if tcgetpgrp(stdin.as_fd()) != Ok(getpgrp()) {
            return;
        }
        let settings = settings.lock().unwrap_or_else(PoisonError::into_inner);
        if tcgetattr(stdin.as_fd()).is_ok_and(|now| now == *settings) {
            return;
        }
        // In the background by now, this would raise SIGTTOU and stop us, were it not blocked.
        let stopping = SigSet::from(Signal::SIGTTOU);
        let before = stopping.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
        if let Err(error) = tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &settings) {
            tracing::debug!(%error, "the terminal cannot be restored");
        }
        if let Ok(before) = before {
            let _ = before.thread_set_mask();
        }
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        self.restore();
    }
}
