//! The network card: identity, features, configuration, and a worker for its queue pair.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::sync::Arc;

use outboard_device::ratelimit::RateLimit;
use outboard_device::{Device, DeviceError, DeviceEvents, Worker};
use tracing::warn;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};

use crate::config::{CONFIG_LEN, Config};
use crate::control::ControlWorker;
use crate::filter::{Filter, Rules, View};
use crate::link::Link;
use crate::mac::Mac;
use crate::offload::bit;
use crate::pairs::Pairs;
use crate::worker::NetWorker;

/// A network card and its cable, which has a queue for each pair of the card's.
#[derive(Debug)]
pub struct Card {
    pairs: Arc<Pairs>,
    link: Arc<Link>,
    filter: Arc<Filter>,
    config: Config,
    features: u64,
    acked: u64,
}

impl Card {
    /// A card on `pairs`, which report to `link`, with the address `mac` (or one the driver makes
    /// up), which advises `mtu`.
    pub fn new(pairs: Pairs, link: Arc<Link>, mac: Option<Mac>, mtu: Option<u16>) -> Self {
        let count = pairs.count();
        let cable = pairs.cable(0).map_or(0, |cable| cable.offered());
        let mut features = cable
            | bit(VIRTIO_NET_F_MRG_RXBUF)
            | bit(VIRTIO_NET_F_STATUS)
            | bit(VIRTIO_NET_F_CTRL_VQ)
            | bit(VIRTIO_NET_F_CTRL_RX)
            | bit(VIRTIO_NET_F_CTRL_RX_EXTRA)
            | bit(VIRTIO_NET_F_CTRL_VLAN)
            | bit(VIRTIO_NET_F_CTRL_MAC_ADDR);
        if count > 1 {
            features |= bit(VIRTIO_NET_F_MQ);
        }
        if mac.is_some() {
            features |= bit(VIRTIO_NET_F_MAC);
        }
        if mtu.is_some() {
            features |= bit(VIRTIO_NET_F_MTU);
        }
        Self {
            pairs: Arc::new(pairs),
            link,
            filter: Arc::default(),
            config: Config {
                mac,
                pairs: count,
                mtu,
            },
            features,
            acked: 0,
        }
    }

    /// Tells the cable what the driver can do without.
    fn set_offload(&self) -> Result<(), DeviceError> {
        // They are those of the interface: one queue of it, which is attached, is enough.
        if let Some(cable) = self.pairs.cable(0) {
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
        let mut groups = vec![2; usize::from(self.pairs.count())];
        groups.push(1);
        groups
    }

    fn config_len(&self) -> u32 {
        CONFIG_LEN as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        let mut config = self.config;
        config.mac = config.mac.map(|mac| self.filter.assigned().unwrap_or(mac));
        config.read(self.link.is_up(), offset, data);
    }

    fn set_features(&mut self, acked: u64) -> Result<(), DeviceError> {
        self.acked = acked;
        self.filter
            .change(|rules| *rules = Rules::agreed(acked, self.config.mac));
        self.set_offload()
    }

    fn attach(&mut self, events: DeviceEvents) {
        self.link.attach(events);
    }

    fn start(&mut self, group: usize) -> Result<Worker, DeviceError> {
        let multiqueue = self.acked & bit(VIRTIO_NET_F_MQ) != 0;
        // For a driver that knows one pair the control queue comes right after it.
        let pairs = if multiqueue { self.pairs.count() } else { 1 };
        if self.acked & bit(VIRTIO_NET_F_CTRL_VQ) != 0 && group == usize::from(pairs) {
            return Ok(Worker::queues(ControlWorker::new(
                Arc::clone(&self.pairs),
                Arc::clone(&self.filter),
                Arc::clone(&self.link),
                self.acked,
            )));
        }
        let cable = self
            .pairs
            .cable(group)
            .ok_or_else(|| DeviceError::other("no such queue pair"))?;
        let mergeable = self.acked & bit(VIRTIO_NET_F_MRG_RXBUF) != 0;
        Ok(Worker::queues(NetWorker::new(
            Arc::clone(cable),
            Arc::clone(&self.link),
            View::new(Arc::clone(&self.filter)),
            mergeable,
        )))
    }

    fn reset(&mut self) {
        self.acked = 0;
        let assigned = self.filter.assigned();
        self.filter.change(|rules| *rules = Rules::default());
        if assigned.is_some() {
            self.link.announce();
        }
        if let Err(error) = self.pairs.set_active(1) {
            static LIMIT: RateLimit = RateLimit::new();
            if let Some(unseen) = LIMIT.pass() {
                warn!("The tap's further queues cannot be detached: {error}{unseen}");
            }
        }
        if let Err(error) = self.set_offload() {
            static LIMIT: RateLimit = RateLimit::new();
            if let Some(unseen) = LIMIT.pass() {
                warn!("{error}{unseen}");
            }
        }
    }
}
