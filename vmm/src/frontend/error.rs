//! What goes wrong between us and a backend.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use vhost::vhost_user::Error as VhostUserError;

use crate::supervisor;

/// One request to a backend failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The backend said no. The connection is as good as before.
    #[error("The backend refuses {request}")]
    Refused {
        /// The vhost-user message.
        request: &'static str,
    },
    /// The connection broke, or the backend's answer made no sense.
    #[error("{request} failed")]
    Broken {
        /// The vhost-user message.
        request: &'static str,
        /// What the `vhost` crate says.
        #[source]
        source: vhost::Error,
    },
    /// The connection broke.
    #[error("{request} failed")]
    Stream {
        /// The vhost-user message.
        request: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The backend's answer makes no sense.
    #[error("The backend's answer to {request} is malformed: {what}")]
    Malformed {
        /// The vhost-user message.
        request: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The driver's queue cannot be handed to a backend.
    #[error("Queue {index} of the driver is not in guest memory")]
    Queue {
        /// Its number.
        index: u16,
    },
}

impl CallError {
    /// Whether the connection can be used no more: the next answer might belong to this request.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Queue { .. })
    }

    /// Whether somebody is there and answers what no backend of ours may: trying again is of no use.
    pub fn is_nonsense(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Malformed { .. } => true,
            Self::Broken { .. } => !self.is_disconnect(),
            Self::Stream { .. } | Self::Queue { .. } => false,
        }
    }

    /// Whether it is no more than that the other side has gone.
    pub fn is_disconnect(&self) -> bool {
        match self {
            Self::Broken {
                source: vhost::Error::VhostUserProtocol(error),
                ..
            } => matches!(
                error,
                VhostUserError::Disconnected
                    | VhostUserError::PartialMessage
                    | VhostUserError::SocketBroken(_)
                    | VhostUserError::SocketError(_)
            ),
            Self::Stream { source, .. } => matches!(
                source.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ),
            _ => false,
        }
    }
}

/// A device could not be connected to its backend.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Its daemon could not be spawned.
    #[error("Device '{id}' has no daemon")]
    Spawn {
        /// The device.
        id: String,
        /// Why.
        #[source]
        source: supervisor::Error,
    },
    /// Its plugin does not serve it.
    #[error("Device '{id}' cannot be made")]
    Plugin {
        /// The device.
        id: String,
        /// Why.
        #[source]
        source: crate::plugin::serve::ServeError,
    },
    /// Its plugin does not answer.
    #[error("Device '{id}': its plugin does not get through the handshake")]
    PluginHandshake {
        /// The device.
        id: String,
        /// Why.
        #[source]
        source: CallError,
    },
    /// Its daemon ended before the handshake did.
    #[error("Device '{id}': {program} ended before it was ready ({how}){words}")]
    Ended {
        /// The device.
        id: String,
        /// The daemon.
        program: PathBuf,
        /// How it ended: `exit status: 1`.
        how: String,
        /// The last lines that it wrote and its log, as [`LastWords`](supervisor::LastWords) shows them.
        words: String,
    },
    /// Nobody answers at its socket.
    #[error(
        "Device '{id}': no backend answers at {} within {seconds} s; \
         start its daemon first, or correct the path",
        path.display()
    )]
    Socket {
        /// The device.
        id: String,
        /// The socket.
        path: PathBuf,
        /// How long was tried.
        seconds: u64,
        /// The last attempt's end.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody can ever listen there.
    #[error(
        "Device '{id}': {} {why}; give the path of the socket at which its daemon listens",
        path.display()
    )]
    NoSocket {
        /// The device.
        id: String,
        /// The path that was given.
        path: PathBuf,
        /// What is there instead, or what is wrong with the path.
        why: String,
    },
    /// Who listens at its socket does not speak the protocol, or not the part that is needed.
    #[error(
        "Device '{id}': what listens at {} does not answer as a vhost-user backend must; give the \
         socket of one that does",
        path.display()
    )]
    Nonsense {
        /// The device.
        id: String,
        /// The socket.
        path: PathBuf,
        /// What was asked, and what is wrong with the answer.
        #[source]
        source: CallError,
    },
    /// Somebody listens at its socket, and says nothing.
    #[error(
        "Device '{id}': a backend listens at {} but does not answer within {seconds} s: it serves \
         another frontend, or hangs; end that one, or start a daemon for this VM",
        path.display()
    )]
    Busy {
        /// The device.
        id: String,
        /// The socket.
        path: PathBuf,
        /// How long was tried.
        seconds: u64,
    },
    /// The daemon that was started does not answer at the socket it was told of.
    #[error(
        "Device '{id}': {program} was started, but does not answer at {} within {seconds} s: {}{words}",
        path.display(), chain(&**cause)
    )]
    NotListening {
        /// The device.
        id: String,
        /// The daemon.
        program: String,
        /// The socket.
        path: PathBuf,
        /// How long was tried.
        seconds: u64,
        /// The last lines that it wrote and its log, as [`LastWords`](supervisor::LastWords) shows them.
        words: String,
        /// The last attempt's end; in the message, before the daemon's words.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The backend did not get through the handshake.
    #[error(
        "Device '{id}': the handshake with its backend failed: {}{then}{words}",
        chain(cause)
    )]
    Handshake {
        /// The device.
        id: String,
        /// Why; in the message, before the daemon's words.
        cause: CallError,
        /// How its daemon ended thereupon, if it did.
        then: String,
        /// The same of its daemon, if we spawned it.
        words: String,
    },
    /// The backend did not get through the handshake in time.
    #[error("Device '{id}': its backend does not answer within {seconds} s{words}")]
    Silent {
        /// The device.
        id: String,
        /// How long was waited.
        seconds: u64,
        /// The same of its daemon, if we spawned it.
        words: String,
    },
    /// The backend is for drivers of before virtio 1.0.
    #[error("Device '{id}': its backend does not offer VERSION_1, which every modern driver needs")]
    Legacy {
        /// The device.
        id: String,
    },
    /// The backend has no queues at all.
    #[error("Device '{id}': its backend offers no queues; look at how it was started")]
    NoQueues {
        /// The device.
        id: String,
    },
    /// The backend has too few queues.
    #[error("Device '{id}': queues={asked} is more than the {offered} its backend offers")]
    Queues {
        /// The device.
        id: String,
        /// How many were asked for.
        asked: u16,
        /// How many there are.
        offered: u16,
    },
    /// The machine cannot give what a device needs.
    #[error("Device '{id}' cannot have its threads and descriptors")]
    System {
        /// The device.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The VM ends before the device was connected.
    #[error("Device '{id}' is no longer wanted")]
    Cancelled {
        /// The device.
        id: String,
    },
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
