//! The other end of a stream, while it is there.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use outboard_device::request::Reader;

use super::framing::{Incoming, MIN_FRAME, Outgoing};

/// A peer that has stayed so long is one, whether it speaks or not.
const TRIAL: Duration = Duration::from_secs(5);

/// A connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    socket: UnixStream,
    incoming: Incoming,
    outgoing: Outgoing,
    /// The epoll also waits for room to write.
    waits_to_write: bool,
    since: Instant,
    has_spoken: bool,
}

/// What an attempt to receive came to.
pub(super) enum Input<'a> {
    /// A frame, at least an Ethernet header long.
    Frame(&'a [u8]),
    /// Something shorter than that, which is no frame.
    Runt,
    /// None now.
    Nothing,
    /// The peer has gone, or has to: why.
    Lost(String),
}

impl Peer {
    /// Watches `socket` with `epoll`, for input.
    pub(super) fn new(socket: UnixStream, epoll: &Epoll) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        epoll.add(&socket, events(false))?;
        Ok(Self {
            socket,
            incoming: Incoming::new(),
            outgoing: Outgoing::default(),
            waits_to_write: false,
            since: Instant::now(),
            has_spoken: false,
        })
    }

    /// Whether it has shown that it means to stay.
    pub(super) fn proved(&self) -> bool {
        self.has_spoken || self.since.elapsed() >= TRIAL
    }

    /// The next frame, reading as often as that takes. A runt is an input of its own: who sends
    /// nothing else, and does not end, must not hold the caller here.
    pub(super) fn receive(&mut self) -> Input<'_> {
        let frame = loop {
            match self.incoming.next() {
                Ok(Some(frame)) if frame.len() >= MIN_FRAME => break frame,
                Ok(Some(_)) => return Input::Runt,
                Err(oversize) => return Input::Lost(oversize.to_string()),
                Ok(None) => match self.socket.read(self.incoming.space()) {
                    Ok(0) => return Input::Lost("it was closed".into()),
                    Ok(count) => self.incoming.filled(count),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Input::Nothing,
                    Err(error) => return Input::Lost(error.to_string()),
                },
            }
        };
        self.has_spoken = true;
        Input::Frame(self.incoming.frame(frame))
    }

    /// Whether frames have to wait until the peer has taken some.
    pub(super) fn is_full(&self) -> bool {
        self.outgoing.is_full()
    }

    /// Appends a frame to what is to be written.
    pub(super) fn push(&mut self, frame: &mut Reader<'_>) {
        self.outgoing.push(frame);
    }

    /// Writes what the peer takes; `epoll` tells when it takes more. An error is its end.
    pub(super) fn write(&mut self, epoll: &Epoll) -> io::Result<()> {
        while !self.outgoing.pending().is_empty() {
            match self.socket.write(self.outgoing.pending()) {
                Ok(count) => self.outgoing.sent(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let waits = !self.outgoing.pending().is_empty();
        if waits != self.waits_to_write {
            // Looks at the socket again too, so room made meanwhile is heard of.
            epoll.modify(&self.socket, &mut events(waits))?;
            self.waits_to_write = waits;
        }
        Ok(())
    }
}

fn events(to_write: bool) -> EpollEvent {
    let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    flags.set(EpollFlags::EPOLLOUT, to_write);
    EpollEvent::new(flags, 0)
}
