//! Signals that wait until nothing would be left behind.
#![allow(unsafe_code)] // signals' dispositions

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Those by which a person or a system ends a program.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// While it lives, a signal that would end this thread's process waits. Dropped, what came ends it.
pub(crate) struct Held {
    signals: SignalFd,
    before: SigSet,
}

impl Held {
    /// Holds them back; those that whoever started us has had us ignore are ignored as before.
    pub(crate) fn hold() -> nix::Result<Self> {
        let held: SigSet = ENDING
            .into_iter()
            .filter(|&signal| !is_ignored(signal))
            .collect();
        let signals = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC)?;
        let before = SigSet::thread_get_mask()?;
        held.thread_block()?;
        Ok(Self { signals, before })
    }

    /// Whether one waits. It is not taken.
    pub(crate) fn came(&self) -> bool {
        let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// Whether we were started with this signal ignored, as `nohup` does. Blocked and read from a
/// descriptor it would come all the same.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    // SAFETY: all zeros are a valid action; without a new one the call only fills it in.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as libc::c_int, std::ptr::null(), &raw mut action);
        action.sa_sigaction
    };
    action == libc::SIG_IGN
}
