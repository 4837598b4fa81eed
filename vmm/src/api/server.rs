//! The socket, and the thread that serves it.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{getsockopt, sockopt};
use outboard_device::daemon::socket_path;
use outboard_device::ratelimit::RateLimit;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::connection::{Connection, Patience};
use super::routes;
use crate::inherited;
use crate::vm::Control;

/// How long the answers under way may take once the VM is over.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// As many clients are served at once; others wait.
const CLIENTS: usize = 64;
/// How long to wait when a connection cannot be taken, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Debug)]
pub enum Place {
    /// At a path, for the owner of this process only. The socket of one that was killed is replaced.
    Path(PathBuf),
    /// At a socket that somebody has made, and removes.
    Inherited(OwnedFd),
}

impl Place {
    /// A listening Unix socket that the process has inherited as descriptor `number`. Call it before
    /// anything else opens one.
    ///
    /// # Errors
    /// There is no listening socket, or it has another use already.
    pub fn inherited(number: RawFd) -> io::Result<Self> {
        let socket = inherited::take(number)?;
        if !getsockopt(&socket, sockopt::AcceptConn)? {
            return Err(io::Error::other("the socket does not listen"));
        }
        Ok(Self::Inherited(socket))
    }
}

/// The API, served on a thread called `api`. Dropped, it answers what it has been asked, within a
/// second, and removes the socket that it has made.
pub struct Server {
    path: Option<PathBuf>,
    made: bool,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `place`.
    ///
    /// # Errors
    /// The socket or the thread cannot be made, or another process listens there.
    pub fn listen(place: Place, control: Control) -> io::Result<Self> {
        Self::patiently(place, control, Patience::default())
    }

    fn patiently(place: Place, control: Control, patience: Patience) -> io::Result<Self> {
        let made = matches!(place, Place::Path(_));
        let listener = match place {
            Place::Path(path) => bind(&path)?,
            Place::Inherited(socket) => StdListener::from(socket),
        };
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let path = address.as_pathname().map(std::path::absolute).transpose()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("api".into())
            .spawn(move || {
                if let Err(error) = serve(listener, control, patience, stopped) {
                    tracing::error!(%error, "the VM cannot be asked anything more");
                }
            })?;
        Ok(Self {
            path,
            made,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens; `None` for a socket without a path.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

fn bind(path: &Path) -> io::Result<StdListener> {
    socket_path::check(path)?;
    if let Ok(there) = path.symlink_metadata() {
        // What is no socket, bind complains of.
        if there.file_type().is_socket() && StdStream::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
    }
    let listener = StdListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn serve(
    listener: StdListener,
    control: Control,
    patience: Patience,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = UnixListener::from_std(listener)?;
        let router = routes::router(control);
        let (closing, closed) = watch::channel(());
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                // The sender's end says the same.
                _ = &mut stopped => break,
                accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                    Ok((stream, _)) => {
                        clients.spawn(client(stream, router.clone(), patience, closed.clone()));
                    }
                    Err(error) => {
                        static REFUSED: RateLimit = RateLimit::new();
                        if let Some(unseen) = REFUSED.pass() {
                            tracing::warn!(%error, "a client of the API is not taken{unseen}");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(_) = clients.join_next(), if !clients.is_empty() => {}
            }
        }
        drop((listener, closing));
        let last = async { while clients.join_next().await.is_some() {} };
        // Those who are late see the connection's end.
        let _ = tokio::time::timeout(LAST_ANSWERS, last).await;
        Ok(())
    })
}

/// Serves one client until it leaves, or, between two requests, until `closed` is.
async fn client(
    stream: UnixStream,
    router: Router,
    patience: Patience,
    mut closed: watch::Receiver<()>,
) {
    let (connection, fds) = Connection::new(stream, patience);
    let router = router.layer(Extension(fds)).layer(Extension(patience));
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // Cloud Hypervisor's own client finds `Content-Length` only when it is written so.
        .title_case_headers(true)
        .header_read_timeout(patience.0)
        .serve_connection(TokioIo::new(connection), service);
    tokio::pin!(served);
    let served = tokio::select! {
        served = served.as_mut() => served,
        _ = closed.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a client of the API has left in the middle");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(path) = self.path.as_ref().filter(|_| self.made) {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Reached only by a failing test.
    const LONG: Duration = Duration::from_mins(1);

    /// As many clients as are served send this and no more; another one gets its answer all the same.
    fn sent_by_all(begun: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let patience = Patience(Duration::from_millis(50));
        let place = Place::Path(path.clone());
        let server = Server::patiently(place, Control::of_nothing(), patience).unwrap();
        let client = |text: &str| {
            let mut client = StdStream::connect(&path).unwrap();
            client.write_all(text.as_bytes()).unwrap();
            client.set_read_timeout(Some(LONG)).unwrap();
            client
        };
        let slow: Vec<_> = (0..CLIENTS).map(|_| client(begun)).collect();
        let ask = "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        client(ask).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop((slow, server));
    }

    /// So many answers fit into no socket's buffers.
    #[test]
    fn clients_that_read_no_answer_are_left() {
        let ask = "GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
        sent_by_all(&ask.repeat(64));
    }

    #[test]
    fn clients_that_are_slow_do_not_keep_others_out() {
        sent_by_all("");
        sent_by_all("PUT /api/v1/vm.boot HTTP/1.1\r\nHo");
        sent_by_all("PUT /api/v1/vm.boot HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{");
    }
}
