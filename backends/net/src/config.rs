//! The device's configuration space (virtio 1.2, section 5.1.4).

use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

use crate::mac::Mac;

/// Length of the configuration space: address, status, queue pairs, MTU.
pub const CONFIG_LEN: usize = 12;

/// What a driver can read about the card.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The card's address; without one the driver makes its own up.
    pub mac: Option<Mac>,
    /// Pairs of queues.
    pub pairs: u16,
    /// Longest packet of the network, without the Ethernet header.
    pub mtu: Option<u16>,
}

impl Config {
    /// Copies what lies at `offset` into `data`; beyond the end are zeroes.
    pub fn read(&self, link_up: bool, offset: u32, data: &mut [u8]) {
        let status = if link_up {
            VIRTIO_NET_S_LINK_UP as u16
        } else {
            0
        };
        let fields = [
            &self.mac.map_or([0; 6], Mac::octets)[..],
            &status.to_le_bytes(),
            &self.pairs.to_le_bytes(),
            &self.mtu.unwrap_or(0).to_le_bytes(),
        ]
        .concat();
        let rest = fields.get(offset as usize..).unwrap_or_default();
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = rest.get(i).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_lie_where_the_standard_has_them() {
        let mac = "52:54:00:01:02:03".parse().ok();
        let config = Config {
            mac,
            pairs: 1,
            mtu: Some(9000),
        };
        let mut bytes = [0xff; CONFIG_LEN + 2];
        config.read(true, 0, &mut bytes);
        assert_eq!(
            bytes,
            [0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0x28, 0x23, 0, 0]
        );
        config.read(false, 6, &mut bytes);
        assert_eq!(bytes[..2], [0, 0]);
        config.read(true, u32::MAX, &mut bytes);
        assert_eq!(bytes, [0; CONFIG_LEN + 2]);
    }
}
