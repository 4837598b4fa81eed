//! An address in its network.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::{Serialize, Serializer};

/// An IPv4 address and how many of its bits, 1 to 32, are the network's: `192.168.10.10/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: Ipv4Addr,
    bits: u8,
}

impl Subnet {
    /// Of an address and a netmask; `None` where that is none, or is of no bits.
    pub fn masked(address: Ipv4Addr, mask: Ipv4Addr) -> Option<Self> {
        let bits = mask.to_bits().leading_ones();
        let is_mask = bits > 0 && mask.to_bits().count_ones() == bits;
        let bits = u8::try_from(bits).ok().filter(|_| is_mask)?;
        Some(Self { address, bits })
    }

    /// The address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The netmask.
    pub fn mask(self) -> Ipv4Addr {
        let others = u32::BITS.saturating_sub(self.bits.into());
        Ipv4Addr::from_bits(u32::MAX.checked_shl(others).unwrap_or(0))
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (address, bits) = text.split_once('/')?;
            let bits = bits.parse().ok().filter(|bits| (1..=32).contains(bits))?;
            let address = address.parse().ok()?;
            Some(Self { address, bits })
        };
        read().ok_or_else(|| {
            format!(
                "'{text}' is no address of a network; write it with its bits, as in \
                 192.168.10.10/24"
            )
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_netmask_say_the_same() {
        for (text, mask) in [
            ("192.168.10.10/24", "255.255.255.0"),
            ("10.0.0.1/1", "128.0.0.0"),
            ("10.0.0.1/32", "255.255.255.255"),
        ] {
            let subnet: Subnet = text.parse().unwrap();
            assert_eq!(subnet.to_string(), text);
            assert_eq!(subnet.mask().to_string(), mask);
            let address = subnet.address();
            assert_eq!(Subnet::masked(address, subnet.mask()), Some(subnet));
        }
    }

    #[test]
    fn nonsense_is_no_subnet() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.1/",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "a/8",
            "::1/64",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        for mask in ["0.0.0.0", "255.0.255.0", "0.0.0.1"] {
            let mask = mask.parse().unwrap();
            assert_eq!(Subnet::masked(Ipv4Addr::LOCALHOST, mask), None, "{mask}");
        }
    }
}
