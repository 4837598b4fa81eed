//! What a device offers, and what is taken of it.

use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};

use super::connection::{Connection, MAX_QUEUES};
use super::error::{DriverError, Result};
use super::notices::Notices;

/// Bit 30: vhost-user's own, never shown to a guest (QEMU's vhost-user document).
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// Bit 32: the device follows virtio 1.0 and later (virtio 1.2, section 6).
pub const F_VERSION_1: u64 = 1 << 32;
/// Bit 28: indirect descriptors.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Bit 29: `used_event` and `avail_event`.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Bit 34: packed rings.
pub const F_RING_PACKED: u64 = 1 << 34;

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Every virtio feature the device offers.
    pub offered: u64,
    /// The virtio features accepted.
    pub features: u64,
    /// Every protocol feature the device offers.
    pub offered_protocol: VhostUserProtocolFeatures,
    /// The protocol features accepted.
    pub protocol: VhostUserProtocolFeatures,
    /// How many queues the device has; 0 when it cannot say (no MQ).
    pub queues: u16,
}

impl Connection {
    /// Owns the device and accepts what is offered, wanted, and known to this driver.
    ///
    /// `features` and `protocol` say what is wanted; `PROTOCOL_FEATURES` and `VERSION_1` must be
    /// offered. With no `protocol` wanted at all this is a frontend that knows no protocol
    /// features: then rings are enabled from their start.
    pub fn negotiate(
        &mut self,
        features: u64,
        protocol: VhostUserProtocolFeatures,
    ) -> Result<Negotiated> {
        let known_protocol = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::STATUS
            | VhostUserProtocolFeatures::DEVICE_STATE;
        let offered = self.features()?;
        for (bit, name) in [
            (F_PROTOCOL_FEATURES, "PROTOCOL_FEATURES"),
            (F_VERSION_1, "VERSION_1"),
        ] {
            if offered & bit == 0 {
                return Err(DriverError::Missing(name));
            }
        }
        let offered_protocol = self.call(
            "GET_PROTOCOL_FEATURES",
            VhostUserFrontend::get_protocol_features,
        )?;
        let simple = protocol.is_empty();
        let protocol = offered_protocol & protocol & known_protocol;
        if !simple {
            self.call("SET_PROTOCOL_FEATURES", |f| {
                f.set_protocol_features(protocol)
            })?;
        }
        self.call("SET_OWNER", |f| f.set_owner())?;
        self.reply_ack = protocol.contains(VhostUserProtocolFeatures::REPLY_ACK);
        if self.reply_ack {
            self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        let queues = if protocol.contains(VhostUserProtocolFeatures::MQ) {
            self.call("GET_QUEUE_NUM", VhostUserFrontend::get_queue_num)?
                .min(MAX_QUEUES) as u16
        } else {
            0
        };
        if protocol.contains(VhostUserProtocolFeatures::BACKEND_REQ) {
            let (notices, theirs) = Notices::open()?;
            self.call("SET_BACKEND_REQ_FD", |f| f.set_backend_request_fd(&theirs))?;
            self.notices = Some(notices);
        }
        let needed = if simple {
            F_VERSION_1
        } else {
            F_VERSION_1 | F_PROTOCOL_FEATURES
        };
        let unwanted = if simple { F_PROTOCOL_FEATURES } else { 0 };
        let features = offered & (features & !unwanted | needed);
        self.set_features(features)?;
        Ok(Negotiated {
            offered,
            features,
            offered_protocol,
            protocol,
            queues,
        })
    }
}
