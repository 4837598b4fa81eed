//! Requests word for word on a connection that stays open, and their answers as the strictest of
//! clients read them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc
)] // a test fails by panicking

use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::Value;

/// Reached only by a failing test.
const LONG: Duration = Duration::from_mins(1);

/// A connection to an API's socket.
pub struct Wire {
    stream: UnixStream,
    headers: String,
}

impl Wire {
    /// Connects to `socket`. Each request will have these header lines, each with its end.
    pub fn to(socket: &Path, headers: &str) -> Self {
        let stream = UnixStream::connect(socket).expect("the API listens");
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self {
            stream,
            headers: headers.to_owned(),
        }
    }

    /// A request with this text for its body, or with none: its status, and the answer's body.
    pub fn ask(&mut self, method: &str, what: &str, body: Option<&str>) -> (u16, Value) {
        self.pass(method, what, body, &[])
    }

    /// The same, and descriptors with its bytes.
    pub fn pass(
        &mut self,
        method: &str,
        what: &str,
        body: Option<&str>,
        fds: &[OwnedFd],
    ) -> (u16, Value) {
        let length = body.map(|body| format!("Content-Length: {}\r\n", body.len()));
        let request = format!(
            "{method} /api/v1/{what} HTTP/1.1\r\n{}{}\r\n{}",
            self.headers,
            length.unwrap_or_default(),
            body.unwrap_or_default()
        );
        let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = rights.get(..usize::from(!fds.is_empty())).unwrap();
        let bytes = [IoSlice::new(request.as_bytes())];
        let socket = self.stream.as_raw_fd();
        let sent = sendmsg::<()>(socket, &bytes, rights, MsgFlags::empty(), None);
        assert_eq!(sent.unwrap(), request.len());
        self.answer()
    }

    /// The next answer. Its status is all that stands between the version and the end of the line, and
    /// it has a body when it has a `Content-Length` that is written so: as Cloud Hypervisor's own client
    /// reads it. What it does not take for the body it would take for the next answer.
    fn answer(&mut self) -> (u16, Value) {
        let mut text = String::new();
        let mut piece = [0; 256];
        loop {
            let got = self.stream.read(&mut piece).unwrap();
            assert_ne!(got, 0, "the connection has ended: {text}");
            text.push_str(std::str::from_utf8(piece.get(..got).unwrap()).unwrap());
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.split("Content-Length: ").nth(1);
            let length = length.map_or(0, |rest| {
                rest.split('\r').next().unwrap().trim().parse().unwrap()
            });
            if body.len() >= length {
                assert_eq!(body.len(), length, "more than the answer came: {text}");
                let line = head.split('\r').next().unwrap();
                let status = line.strip_prefix("HTTP/1.1 ").expect("a status line");
                let status = status.trim().parse();
                let status = status.unwrap_or_else(|_| panic!("no status: {line}"));
                let body = (length > 0).then(|| serde_json::from_str(body).expect("JSON"));
                return (status, body.unwrap_or_default());
            }
        }
    }
}
