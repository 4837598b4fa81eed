//! The socket, and the thread that serves it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::routes;
use crate::vm::Control;

/// How long the answers under way may take once the VM is over.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The API of one VM, served on a thread called `api`. Dropped, it answers what it has been asked,
/// within a second, and removes its socket.
pub struct Server {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `path`, for the owner of this process only. What was there before is removed:
    /// the caller owns the folder.
    ///
    /// # Errors
    /// The socket or the thread cannot be made.
    pub fn listen(path: &Path, control: Control) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("api".into())
            .spawn(move || {
                if let Err(error) = serve(listener, control, stopped) {
                    tracing::error!(%error, "the VM cannot be asked anything more");
                }
            })?;
        Ok(Self {
            path: path.into(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

fn serve(
    listener: std::os::unix::net::UnixListener,
    control: Control,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = UnixListener::from_std(listener)?;
        let (told, over) = oneshot::channel();
        let serve = axum::serve(listener, routes::router(control)).with_graceful_shutdown(async {
            // The sender's end says the same.
            let _ = stopped.await;
            let _ = told.send(());
        });
        let late = async {
            let _ = over.await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            served = serve.into_future() => served,
            () = late => Ok(()),
        }
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}
