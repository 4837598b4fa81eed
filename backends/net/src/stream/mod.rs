//! A cable that is a stream socket: to passt, to QEMU's stream netdev, to another VM's card.
//!
//! Frames go without virtio headers and so without offloads. A peer that goes pulls the cable;
//! one that comes plugs it in again. All of it happens on the worker's thread, woken by one epoll
//! that stays the same whoever the peer is.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod framing;
mod peer;
mod source;
mod timer;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use outboard_device::Request;
use outboard_device::daemon::{ServeError, Socket};
use outboard_device::ratelimit::RateLimit;
use tracing::{debug, info, warn};

use crate::link::Link;
use crate::posted::{Posted, Received};
use crate::tap::HEADER_LEN;
use peer::{Input, Peer};
use source::{Dial, Source};
use timer::Timer;

/// Who comes while there is a peer is refused; so many at once, and the rest in the next round.
const EXTRAS: usize = 16;

/// Why a stream cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The number names no connected stream.
    #[error("File descriptor {fd} is not a connected stream socket: pass one end of a socketpair")]
    Fd {
        /// The number.
        fd: RawFd,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// We cannot listen.
    #[error(transparent)]
    Listen(#[from] ServeError),
    /// The system refused something every process may have.
    #[error("Cannot set the stream socket up")]
    Setup(#[source] io::Error),
}

/// A stream socket as the card's cable.
#[derive(Debug)]
pub struct Stream {
    name: String,
    link: Arc<Link>,
    /// Wakes the worker: for the peer, the listener, and the time of the next attempt.
    epoll: Epoll,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    source: Source,
    peer: Option<Peer>,
}

impl Stream {
    /// The peer is at the other end of the inherited descriptor `fd`, until it goes.
    ///
    /// # Errors
    /// `fd` is no connected stream socket.
    pub fn inherit(fd: RawFd, link: Arc<Link>) -> Result<Self, StreamError> {
        let refuse = |source| StreamError::Fd { fd, source };
        let peer = source::inherited(fd).map_err(refuse)?;
        let stream = Self::new(format!("descriptor {fd}"), Source::Inherited, link)?;
        stream
            .welcome(&mut stream.lock(), peer)
            .map_err(StreamError::Setup)?;
        Ok(stream)
    }

    /// The peer listens at `path`, now or later: when there is none, or it goes, another is looked
    /// for as long as the card works.
    ///
    /// # Errors
    /// Only of the system: there being nobody is none.
    pub fn connect(path: &Path, link: Arc<Link>) -> Result<Self, StreamError> {
        let timer = Timer::new().map_err(StreamError::Setup)?;
        let source = Source::Dial(Dial::new(path, timer));
        let stream = Self::new(path.display().to_string(), source, link)?;
        stream.seek(&mut stream.lock(), true);
        Ok(stream)
    }

    /// The peer connects to `path`, where the card listens from now on; one at a time.
    ///
    /// # Errors
    /// Somebody else listens there, or the path cannot be used.
    pub fn listen(path: &Path, link: Arc<Link>) -> Result<Self, StreamError> {
        let source = Source::Listen(Socket::listen(path)?);
        Self::new(path.display().to_string(), source, link)
    }

    /// Nobody there yet.
    fn new(name: String, source: Source, link: Arc<Link>) -> Result<Self, StreamError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| StreamError::Setup(errno.into()))?;
        let event = arrival();
        match &source {
            Source::Inherited => Ok(()),
            Source::Dial(dial) => epoll.add(dial, event),
            Source::Listen(socket) => epoll.add(socket, event),
        }
        .map_err(|errno| StreamError::Setup(errno.into()))?;
        link.set(false);
        Ok(Self {
            name,
            link,
            epoll,
            state: Mutex::new(State { source, peer: None }),
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The epoll has become readable: sees who has come.
    pub fn wake(&self) {
        let mut state = self.lock();
        // Everything is looked at anyway; this only lets the next event be one.
        let _ = self
            .epoll
            .wait(&mut [EpollEvent::empty(); 4], EpollTimeout::ZERO);
        self.seek(&mut state, false);
    }

    /// Receives one frame into the buffers at hand.
    ///
    /// # Errors
    /// `WouldBlock`: there is none now; the epoll tells when there may be one.
    pub fn receive(&self, posted: &mut Posted) -> io::Result<Received> {
        let mut state = self.lock();
        let Some(peer) = &mut state.peer else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let lost = match peer.receive() {
            Input::Frame(frame) => return Ok(posted.fill(frame)),
            Input::Runt => {
                short();
                return Ok(Received::Runt);
            }
            Input::Nothing => return Err(io::ErrorKind::WouldBlock.into()),
            Input::Lost(why) => why,
        };
        self.part(&mut state, &lost);
        // No frame, and yet news: those that waited for this peer are to be sent, or lost.
        Ok(Received::Runt)
    }

    /// Sends the readable bytes of a request, less the header, as one frame; without a peer it is
    /// lost. It may stay here until [`flush`](Self::flush).
    ///
    /// # Errors
    /// `WouldBlock`: the peer takes no more now, try again when woken. `InvalidInput`: this is no
    /// frame.
    pub fn send(&self, request: &Request) -> io::Result<()> {
        let mut reader = request.reader();
        let frame = framing::MIN_FRAME..=framing::MAX_FRAME;
        if reader.skip(HEADER_LEN).is_err() || !frame.contains(&reader.len()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut state = self.lock();
        if state.peer.as_ref().is_some_and(Peer::is_full) {
            self.write(&mut state);
        }
        let Some(peer) = &mut state.peer else {
            return Ok(());
        };
        if peer.is_full() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        peer.push(&mut reader);
        Ok(())
    }

    /// Writes what has been sent. What the peer does not take now stays for the next call; the
    /// epoll tells when.
    pub fn flush(&self) {
        self.write(&mut self.lock());
    }

    fn write(&self, state: &mut State) {
        let Some(peer) = &mut state.peer else { return };
        if let Err(error) = peer.write(&self.epoll) {
            self.part(state, &error.to_string());
        }
    }

    /// Looks for a peer, where there is a way to one. `loudly`: failing is worth a word.
    fn seek(&self, state: &mut State, loudly: bool) {
        for _ in 0..EXTRAS {
            let found = match &mut state.source {
                Source::Inherited => return,
                Source::Dial(_) if state.peer.is_some() => return,
                Source::Dial(dial) => dial.attempt(),
                Source::Listen(socket) => socket.try_accept(),
            };
            let welcomed = match found {
                Ok(None) => return,
                Ok(Some(_extra)) if state.peer.is_some() => {
                    static LIMIT: RateLimit = RateLimit::new();
                    if let Some(unseen) = LIMIT.pass() {
                        warn!(
                            "'{}' has a peer already: refused another{unseen}",
                            self.name
                        );
                    }
                    continue;
                }
                Ok(Some(peer)) => self
                    .welcome(state, peer)
                    .inspect_err(|_| self.put_off(state)),
                Err(error) => Err(error),
            };
            match welcomed {
                Ok(()) => {}
                Err(error) if loudly => {
                    warn!(
                        "Nobody is at '{}' ({error}): the guest's link is down until \
                         somebody listens there",
                        self.name
                    );
                    return;
                }
                Err(error) => {
                    debug!("No peer at '{}': {error}", self.name);
                    return;
                }
            }
        }
        if let Source::Listen(socket) = &state.source {
            // Looks at the socket again: who is still waiting there is heard of as one who comes.
            let _ = self.epoll.modify(socket, &mut arrival());
        }
    }

    fn welcome(&self, state: &mut State, socket: UnixStream) -> io::Result<()> {
        static LIMIT: RateLimit = RateLimit::new();
        state.peer = Some(Peer::new(socket, &self.epoll)?);
        if let Some(unseen) = LIMIT.pass() {
            info!("The guest's link is up, to '{}'{unseen}", self.name);
        }
        self.link.set(true);
        Ok(())
    }

    /// The peer is gone, or cut off.
    fn part(&self, state: &mut State, why: &str) {
        static LIMIT: RateLimit = RateLimit::new();
        let peer = state.peer.take();
        if let Some(unseen) = LIMIT.pass() {
            warn!("The guest's link to '{}' is down: {why}{unseen}", self.name);
        }
        self.link.set(false);
        if let Source::Dial(dial) = &mut state.source
            && peer.as_ref().is_some_and(Peer::proved)
        {
            dial.proved();
        }
        self.put_off(state);
        // It sees its end after everybody here has; somebody may be waiting already.
        drop(peer);
        self.seek(state, false);
    }

    /// Another peer is dialled, where we dial, but not at once.
    fn put_off(&self, state: &mut State) {
        if let Source::Dial(dial) = &mut state.source
            && let Err(error) = dial.later()
        {
            warn!("No further peer is looked for at '{}': {error}", self.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody comes, or the time of the next attempt does.
fn arrival() -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)
}

fn short() {
    static LIMIT: RateLimit = RateLimit::new();
    if let Some(unseen) = LIMIT.pass() {
        debug!("A frame is shorter than an Ethernet header: dropped{unseen}");
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn wait(fd: BorrowedFd<'_>) {
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(20_000u16)), Ok(1));
    }

    #[test]
    fn a_peer_that_could_not_be_watched_is_dialled_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cable");
        let link = Arc::new(Link::new());
        let mut stream = Stream::connect(&path, Arc::clone(&link)).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        wait(stream.as_fd());
        // What is no epoll takes no descriptors.
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let epoll = std::mem::replace(&mut stream.epoll, Epoll(null));
        stream.wake();
        assert!(stream.lock().peer.is_none() && !link.is_up());
        stream.epoll = epoll;
        // Takes the edge of the first attempt.
        let _ = stream
            .epoll
            .wait(&mut [EpollEvent::empty(); 4], EpollTimeout::ZERO);
        wait(stream.as_fd());
        stream.wake();
        assert!(link.is_up());
    }
}
