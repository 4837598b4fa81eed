//! Which frames the guest wants: modes, addresses and VLANs (virtio 1.2, sections 5.1.6.5.1 to 3).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_ALLUNI, VIRTIO_NET_CTRL_RX_NOBCAST,
    VIRTIO_NET_CTRL_RX_NOMULTI, VIRTIO_NET_CTRL_RX_NOUNI, VIRTIO_NET_CTRL_RX_PROMISC,
    VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC,
};

use crate::mac::Mac;
use crate::offload::bit;

/// How much of a frame is looked at: two addresses, a VLAN's tag.
pub const HEAD_LEN: usize = 16;

/// Addresses kept of each kind; a driver that wants more gets all of that kind.
pub const MAX_ADDRESSES: usize = 256;

/// The kind of a frame that has a VLAN's tag (IEEE 802.1Q).
const VLAN_TAG: [u8; 2] = [0x81, 0x00];

/// VLANs there can be: 12 bits in a tag.
const VLANS: usize = 4096;

const BROADCAST: [u8; 6] = [0xff; 6];

/// Addresses of one kind that the guest listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// These, in order.
    These(Vec<[u8; 6]>),
    /// Too many to tell apart.
    All,
}

impl Addresses {
    /// These addresses, at most [`MAX_ADDRESSES`].
    pub fn new(mut addresses: Vec<[u8; 6]>) -> Self {
        addresses.sort_unstable();
        Self::These(addresses)
    }

    fn contain(&self, address: [u8; 6]) -> bool {
        match self {
            Self::These(addresses) => addresses.binary_search(&address).is_ok(),
            Self::All => true,
        }
    }
}

/// What the driver has asked for. A new value lets everything through.
#[derive(Clone, Debug)]
pub struct Rules {
    /// A bit for each command of class `RX` that is on.
    modes: u8,
    /// The card's address as the driver read it; `None` when it did not.
    own: Option<Mac>,
    /// The address that the driver has set.
    assigned: Option<Mac>,
    unicast: Addresses,
    multicast: Addresses,
    /// A bit for each VLAN that is let through; `None`: all are.
    vlans: Option<Box<[u64; VLANS / 64]>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            modes: mode(VIRTIO_NET_CTRL_RX_PROMISC),
            own: None,
            assigned: None,
            unicast: Addresses::These(Vec::new()),
            multicast: Addresses::These(Vec::new()),
            vlans: None,
        }
    }
}

const fn mode(command: u32) -> u8 {
    1 << command
}

impl Rules {
    /// What a driver gets that took the features `acked` and has said nothing yet, from a card with
    /// the address `mac`: a driver that can ask gets what is sent to it and to all, of no VLAN; one
    /// that cannot gets everything.
    pub fn agreed(acked: u64, mac: Option<Mac>) -> Self {
        let has = |feature| acked & bit(VIRTIO_NET_F_CTRL_VQ) != 0 && acked & bit(feature) != 0;
        let mut rules = Self {
            own: mac.filter(|_| acked & bit(VIRTIO_NET_F_MAC) != 0),
            ..Self::default()
        };
        if has(VIRTIO_NET_F_CTRL_VLAN) {
            rules.vlans = Some(Box::new([0; VLANS / 64]));
            rules.modes = mode(VIRTIO_NET_CTRL_RX_ALLUNI) | mode(VIRTIO_NET_CTRL_RX_ALLMULTI);
        }
        if has(VIRTIO_NET_F_CTRL_RX) {
            rules.modes = 0;
        }
        rules
    }

    /// The address that the driver has set.
    pub fn assigned(&self) -> Option<Mac> {
        self.assigned
    }

    /// The driver sets the card's address.
    pub fn assign(&mut self, mac: Mac) {
        self.assigned = Some(mac);
    }

    /// Turns a mode on or off: `command` is one of class `RX`, which the caller has checked.
    pub fn set_mode(&mut self, command: u32, on: bool) {
        let bit = 1u8.checked_shl(command).unwrap_or(0);
        if on {
            self.modes |= bit;
        } else {
            self.modes &= !bit;
        }
    }

    /// Which addresses the guest listens to beside the card's own.
    pub fn set_addresses(&mut self, unicast: Addresses, multicast: Addresses) {
        (self.unicast, self.multicast) = (unicast, multicast);
    }

    /// Lets a VLAN through, or not any more; false when there can be none of this number.
    pub fn set_vlan(&mut self, vlan: u16, pass: bool) -> bool {
        let vlans = self.vlans.as_deref_mut();
        let Some(word) = vlans.and_then(|vlans| vlans.get_mut(usize::from(vlan >> 6))) else {
            return false;
        };
        let bit = 1 << (vlan & 63);
        if pass {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        true
    }

    fn on(&self, command: u32) -> bool {
        self.modes & mode(command) != 0
    }

    /// Whether every frame passes, whatever it is.
    pub fn pass_all(&self) -> bool {
        self.on(VIRTIO_NET_CTRL_RX_PROMISC)
    }

    /// Whether a frame passes that begins with `head`: [`HEAD_LEN`] bytes, or all there are.
    pub fn pass(&self, head: &[u8]) -> bool {
        let Some((&to, rest)) = head.split_first_chunk::<6>() else {
            return true;
        };
        if self.pass_all() {
            return true;
        }
        self.pass_vlan(rest) && self.pass_address(to)
    }

    fn pass_address(&self, to: [u8; 6]) -> bool {
        if to == BROADCAST {
            return !self.on(VIRTIO_NET_CTRL_RX_NOBCAST);
        }
        let [first, ..] = to;
        if first & 1 != 0 {
            return !self.on(VIRTIO_NET_CTRL_RX_NOMULTI)
                && (self.on(VIRTIO_NET_CTRL_RX_ALLMULTI) || self.multicast.contain(to));
        }
        !self.on(VIRTIO_NET_CTRL_RX_NOUNI)
            && (self.on(VIRTIO_NET_CTRL_RX_ALLUNI) || self.is_own(to) || self.unicast.contain(to))
    }

    /// Whether this is the card's address. One that the driver made up is not known.
    fn is_own(&self, address: [u8; 6]) -> bool {
        self.assigned
            .or(self.own)
            .is_none_or(|own| own.octets() == address)
    }

    /// `rest` is what follows the frame's first address. A tag of number 0 is for priority, and of
    /// no VLAN.
    fn pass_vlan(&self, rest: &[u8]) -> bool {
        let (Some(vlans), Some(&[_, _, _, _, _, _, kind, kind2, high, low])) =
            (&self.vlans, rest.first_chunk::<10>())
        else {
            return true;
        };
        let vlan = u16::from_be_bytes([high, low]) & 0xfff;
        if [kind, kind2] != VLAN_TAG || vlan == 0 {
            return true;
        }
        let word = vlans.get(usize::from(vlan >> 6)).copied().unwrap_or(0);
        word & 1 << (vlan & 63) != 0
    }
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
