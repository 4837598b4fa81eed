//! Messages that the `vhost` crate's frontend cannot send, or not safely, on the same stream.
//!
//! `GET_STATUS` and `SET_STATUS` it lacks. Its `GET_CONFIG` waits for ever when a backend refuses,
//! since a refusal is shorter than an answer. Its `GET_QUEUE_NUM` makes the answer a limit on queue
//! numbers, which it is not for net backends that count pairs.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{FrontendReq, MAX_MSG_SIZE, VhostUserHeaderFlag};

use super::error::CallError;

/// Version 1, in the low bits of a header's flags.
const VERSION: u32 = 1;
/// Request, flags, size: 32 bits each, in the machine's order.
const HEADER_LEN: usize = 12;
/// Offset, size, flags, before the bytes of the config space.
const CONFIG_HEADER_LEN: usize = 12;

/// The second user of a connection. Used by the actor alone, between calls of the first.
#[derive(Debug)]
pub(super) struct Raw {
    stream: UnixStream,
    reply_ack: bool,
}

impl Raw {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            reply_ack: false,
        }
    }

    /// From now on every request asks for an acknowledgement.
    pub(super) fn set_reply_ack(&mut self) {
        self.reply_ack = true;
    }

    /// The device status (virtio 1.2, section 2.1) as the backend sees it.
    pub(super) fn status(&mut self) -> Result<u8, CallError> {
        // The status is 8 bits of a 64-bit answer.
        Ok(self.get_u64(FrontendReq::GET_STATUS, "GET_STATUS")? as u8)
    }

    /// Tells the backend the device status.
    pub(super) fn set_status(&mut self, status: u8) -> Result<(), CallError> {
        let request = "SET_STATUS";
        self.send(
            FrontendReq::SET_STATUS,
            request,
            &u64::from(status).to_ne_bytes(),
        )?;
        if !self.reply_ack {
            return Ok(());
        }
        match self.receive_u64(FrontendReq::SET_STATUS, request)? {
            0 => Ok(()),
            _ => Err(CallError::Refused { request }),
        }
    }

    /// How many queues the backend says it has.
    pub(super) fn queue_num(&mut self) -> Result<u64, CallError> {
        self.get_u64(FrontendReq::GET_QUEUE_NUM, "GET_QUEUE_NUM")
    }

    /// The first `len` bytes of the config space; `len` is 1 to 3840.
    pub(super) fn config(&mut self, len: u32) -> Result<Vec<u8>, CallError> {
        let request = "GET_CONFIG";
        let mut body = Vec::new();
        for field in [0, len, 0] {
            body.extend_from_slice(&field.to_ne_bytes());
        }
        body.resize(CONFIG_HEADER_LEN.saturating_add(len as usize), 0);
        self.send(FrontendReq::GET_CONFIG, request, &body)?;
        let reply = self.receive(FrontendReq::GET_CONFIG, request)?;
        let Some((header, bytes)) = reply.split_at_checked(CONFIG_HEADER_LEN) else {
            return Err(if reply.is_empty() {
                CallError::Refused { request }
            } else {
                CallError::Malformed {
                    request,
                    what: "it has no header",
                }
            });
        };
        if word(header, 1) == 0 {
            return Err(CallError::Refused { request });
        }
        if word(header, 0) != 0 || word(header, 1) != len || bytes.len() != len as usize {
            return Err(CallError::Malformed {
                request,
                what: "it is not the range asked for",
            });
        }
        Ok(bytes.to_vec())
    }

    fn get_u64(&mut self, code: FrontendReq, request: &'static str) -> Result<u64, CallError> {
        self.send(code, request, &[])?;
        self.receive_u64(code, request)
    }

    fn send(
        &mut self,
        code: FrontendReq,
        request: &'static str,
        body: &[u8],
    ) -> Result<(), CallError> {
        let need_reply = if self.reply_ack {
            VhostUserHeaderFlag::NEED_REPLY.bits()
        } else {
            0
        };
        let mut message = Vec::new();
        for field in [code.into(), VERSION | need_reply, body.len() as u32] {
            message.extend_from_slice(&u32::to_ne_bytes(field));
        }
        message.extend_from_slice(body);
        self.stream
            .write_all(&message)
            .map_err(|source| CallError::Stream { request, source })
    }

    fn receive_u64(&mut self, code: FrontendReq, request: &'static str) -> Result<u64, CallError> {
        let body = self.receive(code, request)?;
        let bytes = body.try_into().map_err(|_| CallError::Malformed {
            request,
            what: "it is not 8 bytes",
        })?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Reads one reply's body. Descriptors that come with it are closed by the kernel, since no
    /// room is made for them.
    fn receive(&mut self, code: FrontendReq, request: &'static str) -> Result<Vec<u8>, CallError> {
        let failed = |source: io::Error| CallError::Stream { request, source };
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header).map_err(failed)?;
        let expected = [u32::from(code), VERSION | VhostUserHeaderFlag::REPLY.bits()];
        // QEMU's library leaves the request's flag in its answer to GET_CONFIG.
        let flags = word(&header, 1) & !VhostUserHeaderFlag::NEED_REPLY.bits();
        if [word(&header, 0), flags] != expected {
            return Err(CallError::Malformed {
                request,
                what: "it is not a reply to it",
            });
        }
        let size = word(&header, 2) as usize;
        if size > MAX_MSG_SIZE {
            return Err(CallError::Malformed {
                request,
                what: "it is too long",
            });
        }
        let mut body = vec![0; size];
        self.stream.read_exact(&mut body).map_err(failed)?;
        Ok(body)
    }
}

/// The 32-bit field at `index`; 0 beyond the end.
pub(super) fn word(bytes: &[u8], index: usize) -> u32 {
    let bytes = bytes
        .chunks_exact(4)
        .nth(index)
        .and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reply: &[u8]) -> (Raw, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(reply).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        (Raw::new(ours), theirs)
    }

    fn message(fields: [u32; 3], body: &[u8]) -> Vec<u8> {
        fields
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .chain(body.iter().copied())
            .collect()
    }

    #[test]
    fn a_refused_config_is_told_from_a_short_one() {
        let body = |offset, size, bytes: &[u8]| message([offset, size, 0], bytes);
        let reply = |body: &[u8]| message([24, 5, body.len() as u32], body);
        let read = |reply: &[u8]| answer(reply).0.config(2);
        assert_eq!(read(&reply(&body(0, 2, b"ab"))).unwrap(), b"ab");
        assert!(matches!(
            read(&reply(&body(0, 0, b""))),
            Err(CallError::Refused { .. })
        ));
        assert!(matches!(read(&reply(b"")), Err(CallError::Refused { .. })));
        let echoed = message([24, 13, 14], &body(0, 2, b"ab"));
        assert_eq!(read(&echoed).unwrap(), b"ab", "with the request's flag");
        for bad in [
            body(0, 2, b"a"),
            body(0, 2, b"abc"),
            body(1, 2, b"ab"),
            body(0, 3, b"abc"),
            b"xyz".to_vec(),
        ] {
            assert!(
                matches!(read(&reply(&bad)), Err(CallError::Malformed { .. })),
                "{bad:?}"
            );
        }
        assert!(matches!(
            read(&reply(&body(0, 2, b"ab"))[..20]),
            Err(CallError::Stream { .. })
        ));
    }

    #[test]
    fn a_huge_reply_is_not_awaited() {
        let (mut raw, _theirs) = answer(&message([40, 5, u32::MAX], b""));
        assert!(matches!(raw.status(), Err(CallError::Malformed { .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_is_harmful(reply: Vec<u8>) {
            let _ = answer(&reply).0.config(60);
            let _ = answer(&reply).0.queue_num();
        }
    }
}
