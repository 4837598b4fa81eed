//! vhost-user messages written by hand: those the `vhost` crate has no call for, and wrong ones.
//!
//! A message is a header of three native-endian 32-bit words (request, flags, size) and a payload
//! of `size` bytes ("Message Specification" in QEMU's vhost-user document).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// The protocol's version, in bits 0 and 1 of the flags.
pub const VERSION: u32 = 1;
/// The message is a reply.
pub const REPLY: u32 = 1 << 2;
/// The sender wants an acknowledgement.
pub const NEED_REPLY: u32 = 1 << 3;

/// `SET_VRING_BASE`, with a queue's index and its base, of 32 bits each.
pub const SET_VRING_BASE: u32 = 10;
/// `SET_STATUS`, with a 64-bit status.
pub const SET_STATUS: u32 = 39;
/// `GET_STATUS`, answered with a 64-bit status.
pub const GET_STATUS: u32 = 40;

/// The longest payload believed in a reply.
const MAX_PAYLOAD: u32 = 4096;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The request's number.
    pub request: u32,
    /// The version, [`REPLY`], [`NEED_REPLY`].
    pub flags: u32,
    /// The payload's length in bytes.
    pub size: u32,
}

impl Header {
    fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let (request, rest) = bytes.split_at_mut(4);
        let (flags, size) = rest.split_at_mut(4);
        request.copy_from_slice(&self.request.to_ne_bytes());
        flags.copy_from_slice(&self.flags.to_ne_bytes());
        size.copy_from_slice(&self.size.to_ne_bytes());
        bytes
    }

    fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut word = || -> io::Result<u32> {
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes)?;
            Ok(u32::from_ne_bytes(bytes))
        };
        Ok(Self {
            request: word()?,
            flags: word()?,
            size: word()?,
        })
    }
}

/// Sends a request with exactly this header and payload, whether they agree or not.
pub fn send(mut stream: &UnixStream, header: Header, payload: &[u8]) -> io::Result<()> {
    let mut message = header.to_bytes().to_vec();
    message.extend_from_slice(payload);
    stream.write_all(&message)
}

/// Reads the reply to `request`; a malformed one is [`io::ErrorKind::InvalidData`].
pub fn receive(mut stream: &UnixStream, request: u32) -> io::Result<Vec<u8>> {
    let header = Header::read(&mut stream)?;
    if header.request != request || header.flags & REPLY == 0 || header.size > MAX_PAYLOAD {
        let reason = format!("a reply to request {request} was expected, not {header:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut payload = vec![0; header.size as usize];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

/// Reads one request from the other side, with its payload.
pub fn receive_request(mut stream: &UnixStream) -> io::Result<(Header, Vec<u8>)> {
    let header = Header::read(&mut stream)?;
    if header.flags & REPLY != 0 || header.size > MAX_PAYLOAD {
        let reason = format!("a request was expected, not {header:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut payload = vec![0; header.size as usize];
    stream.read_exact(&mut payload)?;
    Ok((header, payload))
}

/// Reads a reply that is one 64-bit number.
pub fn receive_u64(stream: &UnixStream, request: u32) -> io::Result<u64> {
    let payload = receive(stream, request)?;
    let bytes = <[u8; 8]>::try_from(payload.as_slice()).map_err(|_| {
        let reason = format!("a reply of 8 bytes was expected, not {}", payload.len());
        io::Error::new(io::ErrorKind::InvalidData, reason)
    })?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_crosses_unchanged() {
        let (near, far) = UnixStream::pair().unwrap();
        let header = Header {
            request: GET_STATUS,
            flags: VERSION | REPLY,
            size: 8,
        };
        send(&near, header, &7u64.to_ne_bytes()).unwrap();
        assert_eq!(receive_u64(&far, GET_STATUS).unwrap(), 7);
    }

    #[test]
    fn wrong_replies_are_refused() {
        let (near, far) = UnixStream::pair().unwrap();
        let good = Header {
            request: GET_STATUS,
            flags: VERSION | REPLY,
            size: 8,
        };
        for bad in [
            Header {
                request: SET_STATUS,
                ..good
            },
            Header {
                flags: VERSION,
                ..good
            },
            Header {
                size: MAX_PAYLOAD + 1,
                ..good
            },
        ] {
            send(&near, bad, &[]).unwrap();
            assert!(receive(&far, GET_STATUS).is_err());
        }
    }
}
