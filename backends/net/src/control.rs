//! The control queue (virtio 1.2, section 5.1.6.5): how many queue pairs the driver uses, and which
//! frames it wants.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use outboard_device::ratelimit::RateLimit;
use outboard_device::request::Reader;
use outboard_device::{DeviceError, Progress, Queue, QueueWorker, Ready, Request};
use tracing::{debug, warn};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_CTRL_MAC_TABLE_SET,
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX,
    VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_CTRL_VLAN,
    VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_CTRL_VLAN_DEL, VIRTIO_NET_ERR, VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_MQ,
    VIRTIO_NET_OK,
};

use crate::filter::{Addresses, Filter, MAX_ADDRESSES};
use crate::link::Link;
use crate::mac::Mac;
use crate::offload::bit;
use crate::pairs::Pairs;

/// Commands answered in one call.
const BUDGET: usize = 64;

/// Bytes of an Ethernet address.
const ADDRESS_LEN: usize = 6;

/// Serves the control queue.
#[derive(Debug)]
pub struct ControlWorker {
    pairs: Arc<Pairs>,
    filter: Arc<Filter>,
    link: Arc<Link>,
    /// The features the driver took: what is not among them is not obeyed.
    acked: u64,
}

impl ControlWorker {
    /// For a driver that took the features `acked`.
    pub fn new(pairs: Arc<Pairs>, filter: Arc<Filter>, link: Arc<Link>, acked: u64) -> Self {
        Self {
            pairs,
            filter,
            link,
            acked,
        }
    }

    /// Obeys a command; returns how many bytes have been written. One without room for an answer is
    /// not obeyed.
    fn answer(&self, request: &Request) -> u32 {
        let mut writer = request.writer();
        if writer.is_empty() {
            return 0;
        }
        let mut reader = request.reader();
        let mut head = [0; 2];
        let obeyed =
            reader.read_exact(&mut head).is_ok() && self.obey(head, reader).unwrap_or(false);
        if !obeyed {
            static LIMIT: RateLimit = RateLimit::new();
            if let Some(unseen) = LIMIT.pass() {
                debug!("Control command {head:?} is refused{unseen}");
            }
        }
        let answer = if obeyed {
            VIRTIO_NET_OK
        } else {
            VIRTIO_NET_ERR
        };
        writer.write(&[answer as u8]) as u32
    }

    /// `None` or false: the command is not known, or makes no sense, and nothing has changed.
    fn obey(&self, [class, command]: [u8; 2], data: Reader<'_>) -> Option<bool> {
        let (class, command) = (u32::from(class), u32::from(command));
        let took = |feature| self.acked & bit(feature) != 0;
        match (class, command) {
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) if took(VIRTIO_NET_F_MQ) => {
                Some(self.use_pairs(u16::from_le_bytes(exactly(data)?)))
            }
            (VIRTIO_NET_CTRL_RX, ..=VIRTIO_NET_CTRL_RX_NOBCAST) => {
                let [on @ (0 | 1)] = exactly(data)? else {
                    return None;
                };
                let feature = if command <= VIRTIO_NET_CTRL_RX_ALLMULTI {
                    VIRTIO_NET_F_CTRL_RX
                } else {
                    VIRTIO_NET_F_CTRL_RX_EXTRA
                };
                took(feature)
                    .then(|| self.filter.change(|rules| rules.set_mode(command, on == 1)))?;
                Some(true)
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET) if took(VIRTIO_NET_F_CTRL_RX) => {
                let (unicast, multicast) = tables(data)?;
                self.filter
                    .change(|rules| rules.set_addresses(unicast, multicast));
                Some(true)
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET)
                if took(VIRTIO_NET_F_CTRL_MAC_ADDR) =>
            {
                let mac = Mac::new(exactly(data)?)?;
                self.filter.change(|rules| rules.assign(mac));
                // It is in configuration space, which others may have copied.
                self.link.announce();
                Some(true)
            }
            (VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD | VIRTIO_NET_CTRL_VLAN_DEL)
                if took(VIRTIO_NET_F_CTRL_VLAN) =>
            {
                let vlan = u16::from_le_bytes(exactly(data)?);
                let pass = command == VIRTIO_NET_CTRL_VLAN_ADD;
                Some(self.filter.change(|rules| rules.set_vlan(vlan, pass)))
            }
            _ => None,
        }
    }

    fn use_pairs(&self, wanted: u16) -> bool {
        static LIMIT: RateLimit = RateLimit::new();
        let Err(error) = self.pairs.set_active(wanted) else {
            return true;
        };
        if let Some(unseen) = LIMIT.pass() {
            warn!("The card cannot use {wanted} queue pairs: {error}{unseen}");
        }
        false
    }
}

/// The command's data, if it is so long and no longer.
fn exactly<const N: usize>(mut data: Reader<'_>) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    data.read_exact(&mut bytes).ok()?;
    data.is_empty().then_some(bytes)
}

/// Two tables, unicast and multicast, and nothing behind them.
fn tables(mut data: Reader<'_>) -> Option<(Addresses, Addresses)> {
    let tables = (table(&mut data)?, table(&mut data)?);
    data.is_empty().then_some(tables)
}

/// A count, 32 bits, and so many addresses. The driver chooses the count: memory is taken only for
/// what there is, and not for too many.
fn table(data: &mut Reader<'_>) -> Option<Addresses> {
    let mut count = [0; 4];
    data.read_exact(&mut count).ok()?;
    let count = u32::from_le_bytes(count) as usize;
    if count > MAX_ADDRESSES {
        data.skip(count.checked_mul(ADDRESS_LEN)?).ok()?;
        return Some(Addresses::All);
    }
    let address = |_| {
        let mut address = [0; ADDRESS_LEN];
        data.read_exact(&mut address).ok().map(|()| address)
    };
    let addresses = (0..count).map(address).collect::<Option<_>>()?;
    Some(Addresses::new(addresses))
}

impl QueueWorker for ControlWorker {
    fn run(&mut self, queues: &mut [Queue], _: Ready) -> Result<Progress, DeviceError> {
        let Some(queue) = queues.first_mut() else {
            return Ok(Progress::Idle);
        };
        let mut progress = Progress::Idle;
        for _ in 0..BUDGET {
            let Some(request) = queue.pop()? else { break };
            let written = self.answer(&request);
            queue.complete([(request, written)])?;
            progress = Progress::Worked;
        }
        Ok(progress)
    }
}
