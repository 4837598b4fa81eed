//! A connection whose bytes may bring descriptors (`SCM_RIGHTS`, unix(7)).
#![allow(unsafe_code)] // recvmsg(2): nix loses descriptors when some did not fit

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};

/// The most descriptors that may come with one request: a card's pairs of queues.
pub(super) const FDS_MAX: usize = 32;

/// Room for `FDS_MAX` descriptors and the header before them, in words of a header's alignment.
const CONTROL_WORDS: usize = (FDS_MAX * size_of::<RawFd>() + 32).div_ceil(size_of::<u64>());

/// How long a client may take over a request's head, over its body, and to read any of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience(pub(super) Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

/// What has come on a connection and was not taken; closed when dropped.
#[derive(Clone, Default)]
pub(super) struct Fds(Arc<Mutex<Arrived>>);

#[derive(Default)]
struct Arrived {
    fds: Vec<OwnedFd>,
    lost: Option<Lost>,
}

/// Why descriptors that were sent are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// More than [`FDS_MAX`] have come.
    TooMany,
    /// This process may have no more open.
    NoRoom,
}

impl Fds {
    /// Takes those that have come since the last time. After too many, none: all are closed; so they are
    /// when one is missing.
    pub(super) fn take(&self) -> Result<Vec<OwnedFd>, Lost> {
        let arrived = std::mem::take(&mut *self.lock());
        arrived.lost.map_or(Ok(arrived.fds), Err)
    }

    /// Keeps what came with a message. That it `lost_some` says the kernel both of more than there was
    /// room for here, which is for more than [`FDS_MAX`], and of those that it could not open.
    fn keep(&self, fds: Vec<OwnedFd>, lost_some: bool) {
        if fds.is_empty() && !lost_some {
            return;
        }
        let mut arrived = self.lock();
        let count = arrived.fds.len().saturating_add(fds.len());
        if count > FDS_MAX {
            arrived.lost = Some(Lost::TooMany);
        } else if lost_some {
            arrived.lost.get_or_insert(Lost::NoRoom);
        }
        if arrived.lost.is_some() {
            arrived.fds.clear();
        } else {
            arrived.fds.extend(fds);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that keeps what comes beside its bytes, and whose writes fail when the other side has read
/// nothing for as long as there is patience.
pub(super) struct Connection {
    stream: UnixStream,
    fds: Fds,
    patience: Patience,
    /// Ends a write that waits.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, patience: Patience) -> (Self, Fds) {
        let fds = Fds::default();
        let kept = fds.clone();
        let connection = Self {
            stream,
            fds,
            patience,
            stuck: None,
        };
        (connection, kept)
    }

    /// What has come of a write; that its time is up, when it waits for too long.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let Patience(patience) = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stuck.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            let socket = this.stream.as_raw_fd();
            let received = this
                .stream
                .try_io(Interest::READABLE, || receive(socket, buf, &this.fds));
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }
}

/// Reads what there is room for. A read ends with the bytes that descriptors came with.
fn receive(socket: RawFd, buf: &mut ReadBuf<'_>, fds: &Fds) -> io::Result<()> {
    let mut control = [0_u64; CONTROL_WORDS];
    // SAFETY: nothing is read from the unfilled part before the kernel has written it.
    let room: &mut [MaybeUninit<u8>] = unsafe { buf.unfilled_mut() };
    let mut piece = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    };
    // SAFETY: all zeroes is a message without anything.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the message names memory of ours, of the lengths it says, until the call returns.
    let got = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    // Before anything can fail: they are open.
    fds.keep(opened(&message), message.msg_flags & libc::MSG_CTRUNC != 0);
    // SAFETY: the kernel has written so many bytes.
    unsafe { buf.assume_init(got) };
    buf.advance(got);
    Ok(())
}

/// The descriptors that the kernel has opened for a message.
fn opened(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: `message` is what recvmsg has filled in, and its control buffer is still there.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a header that the macros give lies whole in the control buffer.
    while let Some(control) = unsafe { header.as_ref() } {
        if control.cmsg_level == libc::SOL_SOCKET && control.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the length of an empty one.
            let before = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = control.cmsg_len.saturating_sub(before) / size_of::<RawFd>();
            // SAFETY: as the header says, so many follow it.
            let data = unsafe { libc::CMSG_DATA(header) };
            for n in 0..count {
                // SAFETY: within the data; the kernel has opened it for us, and nobody else owns it.
                fds.push(unsafe { OwnedFd::from_raw_fd(number_at(data, n)) });
            }
        }
        // SAFETY: as for the first one.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    fds
}

/// The descriptor's number at place `n` of `data`.
///
/// # Safety
/// There is one.
unsafe fn number_at(data: *const u8, n: usize) -> RawFd {
    // SAFETY: as promised; an array of bytes can lie anywhere.
    let bytes = unsafe { data.cast::<[u8; size_of::<RawFd>()]>().add(n).read() };
    RawFd::from_ne_bytes(bytes)
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.in_time(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::unix::net::UnixStream as StdStream;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Runs what is to be done with a stream, on a runtime of its own.
    fn on<T>(stream: StdStream, done: impl AsyncFnOnce(UnixStream) -> T) -> T {
        stream.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { done(UnixStream::from_std(stream).unwrap()).await })
    }

    /// Sends a byte with each of `batches` many descriptors, and takes what has come.
    fn pass(batches: &[usize]) -> Result<usize, Lost> {
        let (ours, theirs) = StdStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for count in batches {
            let numbers = vec![file.as_raw_fd(); *count];
            let rights = [ControlMessage::ScmRights(&numbers)];
            let byte = [IoSlice::new(b"x")];
            sendmsg::<()>(theirs.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None).unwrap();
        }
        drop(theirs);
        on(ours, async |stream| {
            let (mut connection, fds) = Connection::new(stream, Patience::default());
            let mut bytes = Vec::new();
            connection.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes.len(), batches.len());
            let taken = fds.take().map(|fds| fds.len());
            assert_eq!(fds.take().unwrap().len(), 0, "taken is taken");
            taken
        })
    }

    #[test]
    fn a_client_that_reads_nothing_is_not_waited_for() {
        let (ours, _theirs) = StdStream::pair().unwrap();
        on(ours, async |stream| {
            let (mut connection, _) = Connection::new(stream, Patience(Duration::from_millis(20)));
            let written = connection.write_all(&vec![b'x'; 8 << 20]).await;
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn descriptors_are_taken_once_and_no_more_than_32() {
        assert_eq!(pass(&[1]).unwrap(), 1);
        assert_eq!(pass(&[20, 12]).unwrap(), FDS_MAX);
        for too_many in [&[FDS_MAX + 1][..], &[200], &[20, 13], &[FDS_MAX, 1]] {
            assert_eq!(pass(too_many), Err(Lost::TooMany), "{too_many:?}");
        }
    }
}
