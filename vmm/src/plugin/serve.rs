//! A plugin's virtio device in this process: its table, served from a thread of its own over a stream.
//!
//! The frontend sees the stream, as it does of any backend. It may cut it; a thread that is stuck in the
//! plugin then is left behind, and ends with the process.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use outboard_device::abi::host::Plugin;
use outboard_device::counters::{Counters, Page};
use outboard_device::session;

/// Which device.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The VM's name for it.
    pub id: String,
    /// The shared library.
    pub path: PathBuf,
    /// Its name in the plugin.
    pub device: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The plugin does not load, or refuses to make it.
    #[error("{0}")]
    Refused(String),
    /// It takes too long.
    #[error("The plugin has not made the device after {0} s")]
    Late(u64),
    /// The system refused.
    #[error("Its thread or its page cannot be made")]
    System(#[source] io::Error),
}

/// Loads the plugin, makes the device, and serves it until the stream's other end, which is returned, is
/// closed; so is the page on which its queues are counted. Waits for `limit` at most.
pub fn serve(spec: Spec, limit: Duration) -> Result<(UnixStream, Page), ServeError> {
    let (ours, theirs) = UnixStream::pair().map_err(ServeError::System)?;
    let page = Page::new().map_err(ServeError::System)?;
    let counters = page.share().and_then(Counters::map);
    let counters = counters.map_err(ServeError::System)?;
    let (made, making) = sync_channel(1);
    let run = move || {
        let device = Plugin::load(&spec.path).and_then(|plugin| {
            let device = plugin.device(Some(&spec.device))?;
            plugin.create(device, &spec.options)
        });
        let mut device = match device {
            Ok(device) => {
                let _ = made.send(Ok(()));
                device
            }
            Err(error) => {
                let _ = made.send(Err(ServeError::Refused(error.to_string())));
                return;
            }
        };
        if let Err(error) = session::serve_counted(&mut device, &theirs, Some(counters)) {
            tracing::warn!(device = spec.id, %error, "The plugin's device is no longer served");
        }
    };
    // Not joined: what is stuck in a plugin cannot be ended.
    let thread = Builder::new().name("plugin".into()).spawn(run);
    thread.map_err(ServeError::System)?;
    match making.recv_timeout(limit) {
        Ok(made) => made.map(|()| (ours, page)),
        Err(RecvTimeoutError::Timeout) => Err(ServeError::Late(limit.as_secs())),
        Err(RecvTimeoutError::Disconnected) => Err(ServeError::Refused(
            "The thread of the plugin's device ended".into(),
        )),
    }
}
