//! A port: the card that a guest sees, whose queues the switch has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outboard_device::{Device, DeviceError, Place, Worker};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};

use super::counters::Counters;
use crate::config::{CONFIG_LEN, Config};
use crate::mac::Mac;
use crate::offload::bit;

/// What the port's session and the switch's thread share.
#[derive(Debug, Default)]
pub struct Line {
    /// Its frames reach only ports that are not isolated.
    pub isolated: bool,
    /// The address that is this port's for ever.
    pub mac: Option<Mac>,
    /// What has passed.
    pub counters: Arc<Counters>,
    mergeable: AtomicBool,
}

impl Line {
    /// Of a port with this address, or with one that its driver makes up.
    pub fn new(mac: Option<Mac>, isolated: bool) -> Self {
        Self {
            isolated,
            mac,
            ..Self::default()
        }
    }

    /// The driver takes frames that fill several buffers.
    pub fn is_mergeable(&self) -> bool {
        // Agreed on before the queues come to the switch's thread.
        self.mergeable.load(Ordering::Relaxed)
    }
}

/// The card at one port.
#[derive(Debug)]
pub struct Port {
    line: Arc<Line>,
    place: Place,
    config: Config,
}

impl Port {
    /// A card whose queues go to this place, which advises `mtu`.
    pub fn new(line: Arc<Line>, place: Place, mtu: Option<u16>) -> Self {
        let config = Config {
            mac: line.mac,
            pairs: 1,
            mtu,
        };
        Self {
            line,
            place,
            config,
        }
    }
}

impl Device for Port {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    /// No offloads: what one guest leaves undone another may not be able to do.
    fn features(&self) -> u64 {
        let mut features = bit(VIRTIO_NET_F_MRG_RXBUF) | bit(VIRTIO_NET_F_STATUS);
        if self.config.mac.is_some() {
            features |= bit(VIRTIO_NET_F_MAC);
        }
        if self.config.mtu.is_some() {
            features |= bit(VIRTIO_NET_F_MTU);
        }
        features
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![2]
    }

    fn config_len(&self) -> u32 {
        CONFIG_LEN as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        self.config.read(true, offset, data);
    }

    fn set_features(&mut self, acked: u64) -> Result<(), DeviceError> {
        let mergeable = acked & bit(VIRTIO_NET_F_MRG_RXBUF) != 0;
        self.line.mergeable.store(mergeable, Ordering::Relaxed);
        Ok(())
    }

    fn start(&mut self, _: usize) -> Result<Worker, DeviceError> {
        Ok(Worker::Shared(self.place.clone()))
    }
}
