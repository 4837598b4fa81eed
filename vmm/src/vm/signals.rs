//! Signals, as events.
#![allow(unsafe_code)] // signals' dispositions

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::VmError;
use super::events::{Event, Events};
use crate::held::is_ignored;

/// Those that end the VM, and SIGPWR, which presses its power button. Each only where whoever started
/// us has not had us ignore it.
const CAUGHT: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGPWR,
];

/// While it lives, signals become events. It must be made before any thread that would otherwise
/// take them. Threads and processes started meanwhile inherit the blocked signals (the supervisor
/// unblocks them for daemons).
pub(super) struct Signals {
    stop: EventFd,
    came: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    before: SigSet,
}

impl Signals {
    pub(super) fn catch(events: &Events) -> Result<Self, VmError> {
        let failed = |source: io::Error| VmError::Host {
            what: "Catching signals",
            source,
        };
        let errno = |errno: nix::Error| failed(errno.into());
        let caught: SigSet = CAUGHT
            .into_iter()
            .filter(|&signal| !is_ignored(signal))
            .collect();
        let before = SigSet::thread_get_mask().map_err(errno)?;
        caught.thread_block().map_err(errno)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&caught, flags).map_err(errno)?;
        let stop =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(errno)?;
        let stopped = stop.as_fd().try_clone_to_owned().map_err(failed)?;
        let events = events.clone();
        let came = Arc::<AtomicBool>::default();
        let seen = came.clone();
        let thread = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                loop {
                    let mut fds = [
                        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                        PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
                    ];
                    let _ = poll(&mut fds, PollTimeout::NONE);
                    while let Ok(Some(signal)) = signals.read_signal() {
                        let signal = signal.ssi_signo.cast_signed();
                        events.post(Event::Signal(signal));
                        // Whoever sees it finds the event.
                        seen.fetch_or(signal != libc::SIGPWR, Ordering::SeqCst);
                    }
                    if fds[1].any().unwrap_or(false) {
                        return;
                    }
                }
            })
            .map_err(failed)?;
        Ok(Self {
            stop,
            came,
            thread: Some(thread),
            before,
        })
    }
}

/// Has what goes past the limit of file sizes (`ulimit -f`) fail, as everything else does that a host
/// cannot give, and not end the process by a signal.
pub(super) fn survive_large_files() {
    // SAFETY: to ignore a signal runs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

impl Signals {
    /// Whether any that ends the VM has come; its event has been posted.
    pub(super) fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = self.before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::thread::JoinHandleExt;

    use super::super::events;
    use super::*;

    #[test]
    fn a_signal_that_has_come_has_been_posted() {
        let (events, inbox) = events::pair();
        for round in 0..300 {
            let signals = Signals::catch(&events).unwrap();
            let thread = signals.thread.as_ref().unwrap().as_pthread_t();
            // To the thread: others of this process would end by it.
            // SAFETY: the thread has not been joined.
            assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGTERM) }, 0);
            while !signals.came() {
                std::hint::spin_loop();
            }
            assert!(inbox.there().iter().any(Event::ends_the_vm), "{round}");
        }
    }

    #[test]
    fn a_signal_that_is_ignored_is_seen_to_be() {
        survive_large_files();
        assert!(is_ignored(Signal::SIGXFSZ));
        assert!(!is_ignored(Signal::SIGTERM));
    }
}
