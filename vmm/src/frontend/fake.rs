//! A backend for tests: obeys the protocol, save where its script says otherwise.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use vhost::vhost_user::message::FrontendReq;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::raw::word;

/// What the fake does with one kind of request.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// Never answers.
    Hang,
    /// Closes the connection.
    Die,
    /// Sends these bytes instead.
    Bytes(Vec<u8>),
    /// Says no.
    Refuse,
    /// Sends `CONFIG_CHANGE` and waits for its acknowledgement, then answers.
    ConfigChangeFirst,
}

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) code: FrontendReq,
    pub(super) body: Vec<u8>,
    pub(super) with_file: bool,
}

impl Seen {
    /// The queue that a `SET_VRING_*` names.
    pub(super) fn queue(&self) -> u32 {
        word(&self.body, 0)
    }
}

/// The fake's offer, its script, and what it saw.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) features: u64,
    pub(super) protocol: u64,
    pub(super) queues: u64,
    pub(super) config: Vec<u8>,
    pub(super) script: HashMap<u32, Answer>,
    pub(super) seen: Vec<Seen>,
    pub(super) status: u64,
    pub(super) connections: usize,
    /// How many connections have ended.
    pub(super) ended: usize,
    requests: Option<UnixStream>,
    stream: Option<UnixStream>,
}

/// A handle on a fake that listens on a socket.
#[derive(Debug, Clone)]
pub(super) struct Fake(Arc<Mutex<Backend>>);

impl Fake {
    /// A block device of one queue, with every protocol feature that we know.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Backend {
            features: 1 << 32 | 1 << 30 | 1 << 9,
            protocol: u64::MAX,
            queues: 2,
            config: (0..60).collect(),
            script: HashMap::new(),
            seen: Vec::new(),
            status: 0,
            connections: 0,
            ended: 0,
            requests: None,
            stream: None,
        })))
    }

    pub(super) fn get(&self) -> MutexGuard<'_, Backend> {
        self.0.lock().unwrap()
    }

    /// From now on, does this with that request.
    pub(super) fn on(&self, code: FrontendReq, answer: Answer) {
        self.get().script.insert(code.into(), answer);
    }

    /// Serves every connection that is made to `path`, for as long as the test runs.
    pub(super) fn listen(&self, path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        let fake = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (fake, stream) = (fake.clone(), stream.unwrap());
                fake.get().connections += 1;
                fake.get().stream = stream.try_clone().ok();
                thread::spawn(move || {
                    fake.serve(&stream);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    fake.get().ended += 1;
                });
            }
        });
    }

    /// Ends the present connection.
    pub(super) fn die(&self) {
        let stream = self.get().stream.take().unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Sends these bytes, asked or not.
    pub(super) fn say(&self, bytes: &[u8]) {
        let mut stream = self.get().stream.as_ref().unwrap().try_clone().unwrap();
        stream.write_all(bytes).unwrap();
    }

    /// Sends `CONFIG_CHANGE` and waits for the acknowledgement.
    pub(super) fn change_config(&self) {
        let mut stream = self.get().requests.as_ref().unwrap().try_clone().unwrap();
        stream.write_all(&message(2, 9, &[])).unwrap();
        let mut reply = [0; 20];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply.to_vec(), message(2, 5, &[0; 8]));
    }

    /// What came after the handshake.
    pub(super) fn codes_after_handshake(&self) -> Vec<(FrontendReq, u32)> {
        let seen = self.get().seen.clone();
        let start = seen
            .iter()
            .position(|seen| seen.code == FrontendReq::SET_BACKEND_REQ_FD);
        seen[start.map_or(0, |at| at + 1)..]
            .iter()
            .map(|seen| (seen.code, seen.queue()))
            .collect()
    }

    fn serve(&self, mut stream: &UnixStream) {
        loop {
            let mut header = [0; 12];
            let Ok((n @ 1.., file)) = stream.recv_with_fd(&mut header) else {
                return;
            };
            if n < 12 && stream.read_exact(&mut header[n..]).is_err() {
                return;
            }
            let mut body = vec![0; word(&header, 2) as usize];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            let code = FrontendReq::try_from(word(&header, 0)).unwrap();
            let with_file = file.is_some();
            if code == FrontendReq::SET_BACKEND_REQ_FD {
                self.get().requests = file.map(|file| std::os::fd::OwnedFd::from(file).into());
            }
            let script = self.get().script.get(&code.into()).cloned();
            self.get().seen.push(Seen {
                code,
                body: body.clone(),
                with_file,
            });
            let refuse = matches!(script, Some(Answer::Refuse));
            match script {
                Some(Answer::Hang) => {
                    // Until the frontend has had enough.
                    let _ = stream.read(&mut [0]);
                    return;
                }
                Some(Answer::Die) => return,
                Some(Answer::Bytes(bytes)) => {
                    let _ = stream.write_all(&bytes);
                    continue;
                }
                Some(Answer::ConfigChangeFirst) => self.change_config(),
                Some(Answer::Refuse) | None => {}
            }
            let reply = self
                .get()
                .answer(code, &body, word(&header, 1) & 8 != 0, refuse);
            if reply
                .is_some_and(|reply| stream.write_all(&message(code.into(), 5, &reply)).is_err())
            {
                return;
            }
        }
    }
}

impl Backend {
    fn answer(
        &mut self,
        code: FrontendReq,
        body: &[u8],
        need_reply: bool,
        refuse: bool,
    ) -> Option<Vec<u8>> {
        let number = |value: u64| Some(value.to_ne_bytes().to_vec());
        match code {
            FrontendReq::GET_FEATURES => number(self.features),
            FrontendReq::GET_PROTOCOL_FEATURES => number(self.protocol),
            FrontendReq::GET_QUEUE_NUM => number(self.queues),
            FrontendReq::GET_STATUS => number(self.status),
            FrontendReq::GET_VRING_BASE => Some(body.to_vec()),
            FrontendReq::GET_CONFIG if refuse => Some(message(0, 0, &[])),
            FrontendReq::GET_CONFIG => {
                let len = word(body, 1);
                let config = &self.config;
                let bytes = (0..len as usize)
                    .map(|at| config.get(at).copied().unwrap_or(0))
                    .collect::<Vec<_>>();
                let mut reply = message(0, len, &[]);
                reply.extend_from_slice(&bytes);
                Some(reply)
            }
            FrontendReq::SET_CONFIG if !refuse => {
                let offset = word(body, 0) as usize;
                self.config[offset..offset + body.len() - 12].copy_from_slice(&body[12..]);
                need_reply.then(|| vec![0; 8])
            }
            FrontendReq::SET_STATUS if !refuse => {
                self.status = u64::from(word(body, 0));
                need_reply.then(|| vec![0; 8])
            }
            _ if need_reply => number(u64::from(refuse)),
            _ => None,
        }
    }
}

/// A message: two words, the length, and a body.
pub(super) fn message(first: u32, second: u32, body: &[u8]) -> Vec<u8> {
    let header = [first, second, body.len() as u32];
    header
        .iter()
        .flat_map(|field| field.to_ne_bytes())
        .chain(body.iter().copied())
        .collect()
}
