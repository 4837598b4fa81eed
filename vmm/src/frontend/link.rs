//! One connection to a backend: the handshake, and the config space.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;

use vhost::VhostBackend;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Error as VhostUserError, Frontend, VhostUserFrontend};

use vmm_sys_util::eventfd::EventFd;

use super::class;
use super::error::CallError;
use super::raw::Raw;
use super::requests::Requests;
use super::rings::Ring;
use super::watch::Watch;

/// What the frontend implements, and no more.
const PROTOCOL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::STATUS);

/// What a backend says of itself in the handshake.
#[derive(Debug)]
pub(super) struct Offer {
    /// Its virtio features, as they came.
    pub(super) features: u64,
    /// Its answer to `GET_QUEUE_NUM`, if it can be asked.
    pub(super) queues: Option<u64>,
    /// Its config space; empty when it does not serve one.
    pub(super) config: Vec<u8>,
}

/// A connection that is through the handshake. Every call may block until the watcher's deadline.
pub(super) struct Link {
    pub(super) frontend: Frontend,
    pub(super) raw: Raw,
    /// The connection's number at the watcher.
    pub(super) epoch: u64,
    /// `PROTOCOL_FEATURES` is offered: rings are enabled by message.
    pub(super) has_protocol: bool,
    /// The protocol features in use.
    pub(super) protocol: VhostUserProtocolFeatures,
    /// Rings that the driver has started: those that the backend may be touching, and those that a
    /// pause has stopped.
    pub(super) rings: BTreeMap<u16, Ring>,
    /// What the backend signals when the device is broken.
    pub(super) broken: EventFd,
    config_len: u32,
}

/// Tells the backend's refusal from the connection's end.
pub(super) fn call<T>(request: &'static str, result: vhost::Result<T>) -> Result<T, CallError> {
    result.map_err(|source| match source {
        vhost::Error::VhostUserProtocol(VhostUserError::BackendInternalError) => {
            CallError::Refused { request }
        }
        source => CallError::Broken { request, source },
    })
}

impl Link {
    /// Goes through the handshake on a fresh stream.
    pub(super) fn open(
        stream: UnixStream,
        device_id: u32,
        watch: &Watch,
    ) -> Result<(Self, Offer), CallError> {
        let system = |source: io::Error| CallError::Stream {
            request: "The handshake",
            source,
        };
        let epoch = watch.connect(stream.try_clone().map_err(system)?);
        let mut raw = Raw::new(stream.try_clone().map_err(system)?);
        let mut frontend = Frontend::from_stream(stream, class::QUEUES_MAX.into());

        call("SET_OWNER", frontend.set_owner())?;
        let features = call("GET_FEATURES", frontend.get_features())?;
        let has_protocol = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0;
        let mut protocol = VhostUserProtocolFeatures::empty();
        if has_protocol {
            protocol = PROTOCOL & call("GET_PROTOCOL_FEATURES", frontend.get_protocol_features())?;
            call(
                "SET_PROTOCOL_FEATURES",
                frontend.set_protocol_features(protocol),
            )?;
        }
        if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            raw.set_reply_ack();
        }
        let mq = protocol.contains(VhostUserProtocolFeatures::MQ);
        let queues = mq.then(|| raw.queue_num()).transpose()?;
        let has_config = protocol.contains(VhostUserProtocolFeatures::CONFIG);
        let config_len = if has_config {
            class::config_len(device_id)
        } else {
            0
        };
        let mut link = Self {
            frontend,
            raw,
            epoch,
            has_protocol,
            protocol,
            rings: BTreeMap::new(),
            broken: watch.broken().map_err(system)?,
            config_len,
        };
        let config = match link.read_config() {
            Err(CallError::Refused { .. }) => {
                tracing::warn!(
                    device_id,
                    config_len,
                    "The backend refuses to show its config space"
                );
                link.config_len = 0;
                Vec::new()
            }
            read => read?,
        };
        if protocol.contains(VhostUserProtocolFeatures::BACKEND_REQ) {
            let (ours, theirs) = UnixStream::pair().map_err(system)?;
            let requests = Requests::new(ours).map_err(system)?;
            call(
                "SET_BACKEND_REQ_FD",
                link.frontend.set_backend_request_fd(&theirs),
            )?;
            watch.serve(requests);
        }
        Ok((
            link,
            Offer {
                features,
                queues,
                config,
            },
        ))
    }

    /// The config space as it is now; empty when the backend serves none.
    pub(super) fn read_config(&mut self) -> Result<Vec<u8>, CallError> {
        if self.config_len == 0 {
            return Ok(Vec::new());
        }
        self.raw.config(self.config_len)
    }

    /// Writes to the config space; nothing happens when the backend serves none.
    pub(super) fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<(), CallError> {
        if self.config_len == 0 || data.is_empty() {
            return Ok(());
        }
        // No flag is the specification's "writable fields"; the crate's names are off by one bit.
        call(
            "SET_CONFIG",
            self.frontend
                .set_config(offset, VhostUserConfigFlags::empty(), data),
        )
    }
}
