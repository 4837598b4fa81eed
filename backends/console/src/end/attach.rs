//! A Unix socket that people attach to and leave.
//!
//! Everybody attached sees the output, after the newest [`Scrollback::CAPACITY`] bytes of what
//! came before. The one attached longest types; the others only read. The bytes are the console's
//! own, so any tool will do: `socat -,raw,echo=0 UNIX:PATH`, or `outboard-console --connect PATH`.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use outboard_device::daemon::{socket_path, will_remove};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};

use super::EndError;
use crate::hub::{End, Event};
use crate::scrollback::Scrollback;

/// Bytes a reader may lag behind before it is cut off: the guest waits for nobody.
const LAG: usize = 2 << 20;
/// People at once.
const CLIENTS_MAX: usize = 32;
/// Between two looks at whether one who types no more has gone.
const GONE_LOOK: Duration = Duration::from_millis(100);
/// How long the end waits for readers when the guest is gone.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The listening socket and the people at it.
pub struct Attach {
    listener: UnixListener,
    path: PathBuf,
    /// The folder goes with the socket, when empty.
    own_folder: bool,
    clients: Vec<Client>,
    next: u64,
    typed: mpsc::Receiver<Typed>,
    to_typed: mpsc::Sender<Typed>,
    scrollback: Scrollback,
}

/// What a client typed, with its id.
type Typed = (u64, Vec<u8>);

struct Client {
    id: u64,
    /// Nothing more will be typed.
    silent: Arc<AtomicBool>,
    shown: Arc<Shown>,
    task: tokio::task::JoinHandle<()>,
}

/// What a client has yet to see. In bytes, and not in the pieces it came in: a serial port prints
/// byte by byte.
#[derive(Default)]
struct Shown {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// No more will come.
    last: bool,
}

impl Shown {
    /// Adds output; false when the client lags too far behind.
    fn push(&self, bytes: &[u8]) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes.extend(bytes);
        self.news.notify_one();
        waiting.bytes.len() <= LAG
    }

    fn end(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.last = true;
        self.news.notify_one();
    }

    /// All that waits; `None` after the last.
    async fn next(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if !waiting.bytes.is_empty() {
                    return Some(std::mem::take(&mut waiting.bytes));
                }
                if waiting.last {
                    return None;
                }
            }
            self.news.notified().await;
        }
    }
}

impl Attach {
    /// Listens at `path`, for the owner of this process only. A socket nobody serves is replaced.
    /// With `own_folder` the socket's end is its folder's too, when nothing else is in it.
    ///
    /// # Errors
    /// The path is taken, or the socket cannot be made.
    pub fn listen(path: &Path, own_folder: bool) -> Result<Self, EndError> {
        let refuse = |source| EndError::Path {
            what: "the socket",
            path: path.into(),
            source,
        };
        socket_path::check(path).map_err(|source| EndError::Long {
            path: path.into(),
            source,
        })?;
        let is_socket =
            std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        if is_socket {
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Err(EndError::Live(path.into())),
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(refuse)?;
                }
                Err(e) => return Err(refuse(e)),
            }
        }
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        will_remove(path);
        let (to_typed, typed) = mpsc::channel(1);
        Ok(Self {
            listener: listener.map_err(refuse)?,
            path: path.into(),
            own_folder,
            clients: Vec::new(),
            next: 0,
            typed,
            to_typed,
            scrollback: Scrollback::new(Scrollback::CAPACITY),
        })
    }

    fn admit(&mut self, stream: UnixStream) {
        self.clients.retain(|client| !client.task.is_finished());
        if self.clients.len() >= CLIENTS_MAX {
            return;
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let shown = Arc::new(Shown::default());
        shown.push(&self.scrollback.contents());
        let typed = self.to_typed.clone();
        let silent = Arc::<AtomicBool>::default();
        let typing = Typing {
            id,
            typed,
            silent: Arc::clone(&silent),
        };
        let task = tokio::spawn(converse(stream, Arc::clone(&shown), typing));
        self.clients.push(Client {
            id,
            silent,
            shown,
            task,
        });
    }

    /// Whether this client is the one that types.
    fn types(&mut self, id: u64) -> bool {
        self.clients.retain(|client| !client.task.is_finished());
        let typist = self
            .clients
            .iter()
            .find(|client| client.id == id || !client.silent.load(Ordering::Relaxed));
        typist.is_some_and(|client| client.id == id)
    }
}

/// What a client types, on its way.
struct Typing {
    id: u64,
    typed: mpsc::Sender<Typed>,
    silent: Arc<AtomicBool>,
}

/// One person: output goes there, what is typed comes back. Ends when the person has gone, not when
/// only the typing has ended, as that of `socat -u` or of a pipe.
async fn converse(stream: UnixStream, shown: Arc<Shown>, typing: Typing) {
    let (mut from, mut to) = stream.into_split();
    let show = async {
        while let Some(bytes) = shown.next().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    let listen = async {
        let mut bytes = [0; 4096];
        while let Ok(got @ 1..) = from.read(&mut bytes).await {
            let bytes = bytes.get(..got).unwrap_or_default().to_vec();
            if typing.typed.send((typing.id, bytes)).await.is_err() {
                break;
            }
        }
        typing.silent.store(true, Ordering::Relaxed);
        while !has_gone(from.as_ref()) {
            tokio::time::sleep(GONE_LOOK).await;
        }
    };
    tokio::select! {
        () = show => {}
        () = listen => {}
    }
}

/// Whether the other side reads no more, either. Of a stream that has been read to its end the kernel
/// says that without being asked, so asking is no wait.
fn has_gone(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let answered = poll(&mut fds, PollTimeout::ZERO);
    let [fd] = fds;
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
    answered.is_err() || fd.revents().is_none_or(|said| said.intersects(gone))
}

impl End for Attach {
    fn output(&mut self, bytes: &[u8]) -> bool {
        self.scrollback.push(bytes);
        self.clients.retain(|client| {
            // One that has left takes nothing more; nor need it wait for the next visitor to go.
            let keeps_up = !client.task.is_finished() && client.shown.push(bytes);
            if !keeps_up {
                client.task.abort();
            }
            keeps_up
        });
        true
    }

    async fn event(&mut self, typing: bool) -> Event {
        loop {
            tokio::select! {
                client = self.listener.accept() => match client {
                    Ok((stream, _)) => self.admit(stream),
                    // Out of descriptors, say: try again when some may have been freed.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some((id, bytes)) = self.typed.recv(), if typing => {
                    if self.types(id) {
                        return Event::Input(bytes);
                    }
                }
            }
        }
    }

    async fn finish(&mut self) {
        let clients = std::mem::take(&mut self.clients);
        let all = async {
            for client in &clients {
                client.shown.end();
            }
            for client in clients {
                let _ = client.task.await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, all).await;
    }
}

impl Drop for Attach {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        if let (true, Some(folder)) = (self.own_folder, self.path.parent()) {
            let _ = std::fs::remove_dir(folder);
        }
    }
}
