//! The channel on which a backend sends requests to us.
//!
//! Read without blocking, by the watcher: half a message keeps nobody waiting. Of the requests
//! only `CONFIG_CHANGE` is known; no other's protocol feature is negotiated.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{BackendReq, MAX_MSG_SIZE, VhostUserHeaderFlag};

use super::raw::word;

const HEADER_LEN: usize = 12;
const VERSION_MASK: u32 = 3;
const VERSION: u32 = 1;
/// Requests answered in one go, before the watcher looks at its deadlines again.
const BATCH: usize = 32;

/// What became of the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Everything that was there has been answered.
    Idle,
    /// A batch has been answered and more may be there.
    Busy,
    /// The backend closed it, or spoke nonsense on it; it is of no more use.
    Closed,
}

/// Our end of the channel.
#[derive(Debug)]
pub(super) struct Requests {
    stream: UnixStream,
    /// Bytes of a message that is not complete yet; at most one message and one read.
    partial: Vec<u8>,
}

impl Requests {
    /// Takes our end and makes it non-blocking.
    pub(super) fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            partial: Vec::new(),
        })
    }

    /// The stream, for waiting on it.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads and acknowledges what is there; calls `config_changed` for each `CONFIG_CHANGE`.
    pub(super) fn serve(&mut self, mut config_changed: impl FnMut()) -> Channel {
        for _ in 0..BATCH {
            let Some(message) = self.next() else {
                return Channel::Closed;
            };
            let Some((code, flags)) = message else {
                return Channel::Idle;
            };
            let known = code == u32::from(BackendReq::CONFIG_CHANGE_MSG);
            if known {
                config_changed();
            }
            if flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0 && !self.acknowledge(code, known)
            {
                return Channel::Closed;
            }
        }
        Channel::Busy
    }

    /// The next complete message's code and flags; `Some(None)` when there is none yet.
    #[allow(clippy::option_option)] // the outer one is the channel, the inner one the message
    fn next(&mut self) -> Option<Option<(u32, u32)>> {
        let mut buffer = [0; 256];
        loop {
            if let Some(header) = self.partial.get(..HEADER_LEN) {
                let (code, flags, size) =
                    (word(header, 0), word(header, 1), word(header, 2) as usize);
                if flags & VERSION_MASK != VERSION || size > MAX_MSG_SIZE {
                    return None;
                }
                let end = HEADER_LEN.saturating_add(size);
                if self.partial.len() >= end {
                    self.partial.drain(..end);
                    return Some(Some((code, flags)));
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.partial.extend_from_slice(buffer.get(..n)?),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(None),
                Err(_) => return None,
            }
        }
    }

    /// False when the backend does not read its acknowledgements.
    fn acknowledge(&mut self, code: u32, known: bool) -> bool {
        let mut reply = Vec::new();
        for field in [code, VERSION | VhostUserHeaderFlag::REPLY.bits(), 8] {
            reply.extend_from_slice(&u32::to_ne_bytes(field));
        }
        reply.extend_from_slice(&u64::from(!known).to_ne_bytes());
        // So short a message is written whole or not at all.
        matches!(self.stream.write(&reply), Ok(n) if n == reply.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Requests, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Requests::new(ours).unwrap(), theirs)
    }

    fn message(code: u32, flags: u32, body: &[u8]) -> Vec<u8> {
        let header = [code, flags, body.len() as u32];
        header
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .chain(body.iter().copied())
            .collect()
    }

    fn ack(theirs: &mut UnixStream) -> (u32, u64) {
        let mut reply = [0; 20];
        theirs.read_exact(&mut reply).unwrap();
        assert_eq!((word(&reply, 1), word(&reply, 2)), (5, 8));
        (
            word(&reply, 0),
            u64::from_ne_bytes(reply[12..].try_into().unwrap()),
        )
    }

    #[test]
    fn config_changes_are_counted_and_acknowledged() {
        let (mut requests, mut theirs) = pair();
        let mut changes = 0;
        theirs.write_all(&message(2, 9, b"")).unwrap();
        theirs.write_all(&message(2, 1, b"")).unwrap();
        theirs.write_all(&message(9, 9, b"what is that")).unwrap();
        assert_eq!(requests.serve(|| changes += 1), Channel::Idle);
        assert_eq!(changes, 2);
        assert_eq!(ack(&mut theirs), (2, 0));
        assert_eq!(ack(&mut theirs), (9, 1), "what is not known is refused");
    }

    #[test]
    fn half_a_message_is_waited_for_without_blocking() {
        let (mut requests, mut theirs) = pair();
        let bytes = message(2, 1, b"body");
        let mut changes = 0;
        for byte in &bytes {
            assert_eq!(changes, 0);
            theirs.write_all(&[*byte]).unwrap();
            assert_eq!(requests.serve(|| changes += 1), Channel::Idle);
        }
        assert_eq!(changes, 1);
        drop(theirs);
        assert_eq!(requests.serve(|| ()), Channel::Closed);
    }

    #[test]
    fn a_flood_gives_way_and_a_deaf_backend_is_dropped() {
        let (mut requests, mut theirs) = pair();
        theirs
            .write_all(&message(2, 1, b"").repeat(BATCH + 1))
            .unwrap();
        assert_eq!(requests.serve(|| ()), Channel::Busy);
        assert_eq!(requests.serve(|| ()), Channel::Idle);
        theirs.set_nonblocking(true).unwrap();
        let deaf = (0..100_000).find_map(|_| {
            let _ = theirs.write_all(&message(2, 9, b""));
            (requests.serve(|| ()) == Channel::Closed).then_some(())
        });
        assert_eq!(deaf, Some(()));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_harmful(bytes: Vec<u8>, flags in 0..16u32, size in 0..8192u32) {
            let (mut requests, mut theirs) = pair();
            theirs.write_all(&bytes).unwrap();
            let _ = requests.serve(|| ());
            let (mut requests, mut theirs) = pair();
            theirs.write_all(&[2, flags, size].iter().flat_map(|f| f.to_ne_bytes()).collect::<Vec<_>>()).unwrap();
            theirs.write_all(&bytes).unwrap();
            let _ = requests.serve(|| ());
            proptest::prop_assert!(requests.partial.len() <= HEADER_LEN + MAX_MSG_SIZE + 256);
        }
    }
}
