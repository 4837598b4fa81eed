//! The network card: identity, features, configuration, and a worker for its queue pair.

use std::sync::Arc;

use outboard_device::ratelimit::RateLimit;
use outboard_device::{Device, DeviceError, DeviceEvents, Worker};
use tracing::warn;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};

use crate::cable::Cable;
use crate::config::{CONFIG_LEN, Config};
use crate::link::Link;
use crate::mac::Mac;
use crate::offload::bit;
use crate::worker::NetWorker;

/// A network card and its cable.
#[derive(Debug)]
pub struct Card {
    /// One a queue pair.
    cables: Vec<Arc<Cable>>,
    link: Arc<Link>,
    config: Config,
    features: u64,
    acked: u64,
}

impl Card {
    /// A card on `cable`, which reports to `link`, with the address `mac` (or one the driver makes
    /// up), which advises `mtu`.
    pub fn new(cable: Cable, link: Arc<Link>, mac: Option<Mac>, mtu: Option<u16>) -> Self {
        let mut features = cable.offered() | bit(VIRTIO_NET_F_MRG_RXBUF) | bit(VIRTIO_NET_F_STATUS);
        if mac.is_some() {
            features |= bit(VIRTIO_NET_F_MAC);
        }
        if mtu.is_some() {
            features |= bit(VIRTIO_NET_F_MTU);
        }
        Self {
            cables: vec![Arc::new(cable)],
            link,
            config: Config { mac, pairs: 1, mtu },
            features,
            acked: 0,
        }
    }

    /// Tells the cable what the driver can do without.
    fn set_offload(&self) -> Result<(), DeviceError> {
        for cable in &self.cables {
            cable.set_offload(self.acked).map_err(|error| {
                DeviceError::io(format!("set the offloads of tap '{}'", cable.name()), error)
            })?;
        }
        Ok(())
    }
}

impl Device for Card {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![2; self.cables.len()]
    }

    fn config_len(&self) -> u32 {
        CONFIG_LEN as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        self.config.read(self.link.is_up(), offset, data);
    }

    fn set_features(&mut self, acked: u64) -> Result<(), DeviceError> {
        self.acked = acked;
        self.set_offload()
    }

    fn attach(&mut self, events: DeviceEvents) {
        self.link.attach(events);
    }

    fn start(&mut self, group: usize) -> Result<Worker, DeviceError> {
        let cable = self
            .cables
            .get(group)
            .ok_or_else(|| DeviceError::other("no such queue pair"))?;
        let mergeable = self.acked & bit(VIRTIO_NET_F_MRG_RXBUF) != 0;
        Ok(Worker::queues(NetWorker::new(
            Arc::clone(cable),
            Arc::clone(&self.link),
            mergeable,
        )))
    }

    fn reset(&mut self) {
        self.acked = 0;
        if let Err(error) = self.set_offload() {
            static LIMIT: RateLimit = RateLimit::new();
            if let Some(unseen) = LIMIT.pass() {
                warn!("{error}{unseen}");
            }
        }
    }
}
