//! A device's state on its way: to another instance of the device, or from one.
//!
//! QEMU's vhost-user document, "Migrating back-end state": the frontend hands over one end of a pipe, and asks in
//! the end whether all went well. It may be slow, or mean ill, so the bytes are carried by a thread of
//! their own; the device is asked, and told, on the session thread.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vhost::vhost_user::message::VhostTransferStateDirection as Direction;

use super::Refused;
use super::state::State;
use crate::device::Device;

/// The most state that is taken, in bytes.
const MOST: usize = 64 << 20;

/// How long the last of a transfer may take once the frontend says that it is done with its own end.
const LAST: Duration = Duration::from_secs(5);

/// A transfer under way. Dropped, it ends.
pub(super) struct Transfer {
    direction: Direction,
    /// All that has come, or nothing of what was sent.
    carried: Receiver<io::Result<Vec<u8>>>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Transfer {
    fn start(direction: Direction, state: Vec<u8>, pipe: File) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&pipe, FcntlArg::F_GETFL)?);
        fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let (done, carried) = sync_channel(1);
        let ended = Arc::clone(&stop);
        let run = move || {
            let result = match direction {
                Direction::SAVE => send(&pipe, &state, &ended).map(|()| Vec::new()),
                Direction::LOAD => receive(&pipe, &ended),
            };
            // To whom it may concern: the frontend sees the end of what it reads.
            drop(pipe);
            let _ = done.send(result);
        };
        let thread = Builder::new().name("device-state".into()).spawn(run)?;
        Ok(Self {
            direction,
            carried,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until the pipe can be used. An error: it shall not be any more.
fn wait(pipe: &File, what: PollFlags, stop: &EventFd) -> io::Result<()> {
    let mut fds = [
        PollFd::new(pipe.as_fd(), what),
        PollFd::new(stop.as_fd(), PollFlags::POLLIN),
    ];
    poll(&mut fds, PollTimeout::NONE)?;
    match fds.last().and_then(PollFd::any) {
        Some(true) => Err(ErrorKind::ConnectionAborted.into()),
        _ => Ok(()),
    }
}

/// Whether to try again.
fn not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn send(mut pipe: &File, state: &[u8], stop: &EventFd) -> io::Result<()> {
    let mut rest = state;
    while !rest.is_empty() {
        wait(pipe, PollFlags::POLLOUT, stop)?;
        match pipe.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if not_now(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn receive(mut pipe: &File, stop: &EventFd) -> io::Result<Vec<u8>> {
    let mut state = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        wait(pipe, PollFlags::POLLIN, stop)?;
        match pipe.read(&mut piece) {
            Ok(0) => return Ok(state),
            Ok(count) if count > MOST.saturating_sub(state.len()) => {
                return Err(io::Error::other(format!("more than {MOST} bytes of state")));
            }
            Ok(count) => state.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if not_now(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

impl<D: Device> State<'_, D> {
    /// `SET_DEVICE_STATE_FD`: begins to send the device's state, or to receive one.
    pub(super) fn begin_transfer(
        &mut self,
        direction: Direction,
        pipe: File,
    ) -> Result<(), Refused> {
        if self.groups.iter().any(|group| group.running.is_some()) {
            return Err(Refused::Running("the device's state"));
        }
        let state = match direction {
            Direction::SAVE => self.device.save()?,
            Direction::LOAD if self.started => return Err(Refused::Started),
            Direction::LOAD => Vec::new(),
        };
        // One at a time: what was begun before is given up.
        self.transfer = None;
        self.transfer = Some(Transfer::start(direction, state, pipe)?);
        Ok(())
    }

    /// `CHECK_DEVICE_STATE`: whether all of the state was sent; or was received, and the device goes on
    /// from there.
    pub(super) fn end_transfer(&mut self) -> Result<(), Refused> {
        let transfer = self.transfer.take().ok_or(Refused::NoTransfer)?;
        let state = match transfer.carried.recv_timeout(LAST) {
            Ok(carried) => carried?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(Refused::Unfinished);
            }
        };
        if transfer.direction == Direction::LOAD {
            if self.started {
                return Err(Refused::Started);
            }
            self.device.restore(&state)?;
        }
        Ok(())
    }
}
