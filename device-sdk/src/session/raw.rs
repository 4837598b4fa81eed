//! What the `vhost` crate lacks, on the same stream: a look at the next message before it is
//! taken, messages with numbers the crate does not handle, and messages of the backend's own.
//!
//! A message is a header of three native-endian u32 (request, flags, size of the payload) and the
//! payload; descriptors travel beside the header ("Message Specification" in QEMU's vhost-user
//! document).
#![allow(unsafe_code)] // Takes ownership of received descriptors.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, send};

/// `SET_VRING_ENABLE`, with a ring's index and 0 or 1.
pub(super) const SET_VRING_ENABLE: u32 = 18;
/// `SET_BACKEND_REQ_FD`: carries one end of the backend's own channel.
pub(super) const SET_BACKEND_REQ_FD: u32 = 21;
/// `SET_STATUS`, with the virtio device status as u64.
pub(super) const SET_STATUS: u32 = 39;
/// `GET_STATUS`, answered with the same.
pub(super) const GET_STATUS: u32 = 40;
/// Sent by the backend: configuration space has changed.
const BACKEND_CONFIG_CHANGE: u32 = 2;

/// Protocol version, in the lowest two bits of the flags.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

const HEADER_LEN: usize = 12;

/// Most descriptors the kernel passes at once (`SCM_MAX_FD`). With room for fewer, those that did
/// fit would be lost to us, and open for ever.
const MAX_FDS: usize = 253;

/// Longest payload taken; no message in the specification comes near it.
const MAX_PAYLOAD: u32 = 4096;

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) request: u32,
    flags: u32,
    size: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let word = |n: usize| {
            let bytes = bytes.chunks_exact(4).nth(n);
            bytes
                .and_then(|b| b.try_into().ok())
                .map_or(0, u32::from_ne_bytes)
        };
        Self {
            request: word(0),
            flags: word(1),
            size: word(2),
        }
    }

    fn bytes(self) -> Vec<u8> {
        [self.request, self.flags, self.size]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }

    /// Whether the sender waits for an acknowledgement (if that was negotiated).
    pub(super) fn wants_ack(self) -> bool {
        self.flags & NEED_REPLY != 0
    }
}

/// What comes next on a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A message with this header.
    Message(Header),
    /// A piece of a header. Nobody writes a header in pieces but to try us.
    Fragment,
    /// Nothing: the other side has closed.
    End,
}

/// Waits for the next message and looks at its header, without taking it.
pub(super) fn peek(stream: &UnixStream) -> io::Result<Next> {
    let mut bytes = [0; HEADER_LEN];
    loop {
        return match recv(stream.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK) {
            // Closed, perhaps with something of ours unread.
            Ok(0) | Err(nix::Error::ECONNRESET) => Ok(Next::End),
            Ok(HEADER_LEN) => Ok(Next::Message(Header::parse(&bytes))),
            Ok(_) => Ok(Next::Fragment),
            Err(nix::Error::EINTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// A message the crate does not take.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

impl Message {
    /// The payload, if it is exactly one u64.
    pub(super) fn u64(&self) -> Option<u64> {
        let bytes = self.payload.as_slice().try_into().ok()?;
        Some(u64::from_ne_bytes(bytes))
    }

    /// The payload, if it is exactly two u32: a ring's index and a value.
    pub(super) fn ring_state(&self) -> Option<(u32, u32)> {
        let (index, value) = self.payload.split_first_chunk()?;
        let value = value.try_into().ok()?;
        Some((u32::from_ne_bytes(*index), u32::from_ne_bytes(value)))
    }
}

/// Takes the next message, its payload and descriptors.
pub(super) fn receive(mut stream: &UnixStream) -> io::Result<Message> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut bytes = [0; HEADER_LEN];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; MAX_FDS]);
    let mut fds = Vec::new();
    let taken = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = part {
                // SAFETY: the kernel has just made these descriptors for this process, and
                // nobody else knows of them.
                fds.extend(
                    received
                        .iter()
                        .map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        message.bytes
    };
    let rest = bytes.get_mut(taken..).unwrap_or_default();
    stream.read_exact(rest)?;
    let header = Header::parse(&bytes);
    if header.flags & VERSION_MASK != VERSION || header.flags & REPLY != 0 {
        return Err(invalid(
            "a message of another version, or a reply to nothing",
        ));
    }
    if header.size > MAX_PAYLOAD {
        return Err(invalid("a message longer than any there is"));
    }
    let mut payload = vec![0; header.size as usize];
    stream.read_exact(&mut payload)?;
    Ok(Message {
        header,
        payload,
        fds,
    })
}

/// Answers a request with one u64: its result, or the acknowledgement (0 is success).
pub(super) fn reply(mut stream: &UnixStream, request: Header, value: u64) -> io::Result<()> {
    let mut bytes = Header {
        request: request.request,
        flags: VERSION | REPLY,
        size: 8,
    }
    .bytes();
    bytes.extend(value.to_ne_bytes());
    stream.write_all(&bytes)
}

/// Tells the frontend, on the backend's channel, that configuration space has changed. Asks for
/// no reply and does not wait: a frontend that has left so many of these unread that no more fit
/// will look at the configuration anyway.
pub(super) fn send_config_change(channel: &UnixStream) {
    let bytes = Header {
        request: BACKEND_CONFIG_CHANGE,
        flags: VERSION,
        size: 0,
    }
    .bytes();
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let _ = send(channel.as_raw_fd(), &bytes, flags);
}
