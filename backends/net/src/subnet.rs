//! An address and the network it is in: `192.168.10.10/24`.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The address.
    pub address: Ipv4Addr,
    bits: u8,
}

impl Subnet {
    /// The prefix as a netmask.
    pub fn mask(self) -> Ipv4Addr {
        let host = u32::MAX.checked_shr(u32::from(self.bits)).unwrap_or(0);
        Ipv4Addr::from_bits(!host)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(address, bits)| {
            let bits = bits.parse().ok().filter(|bits| (1..=32).contains(bits))?;
            let address = address.parse().ok()?;
            Some(Self { address, bits })
        });
        parsed
            .ok_or_else(|| format!("'{text}' is no subnet; write ADDRESS/BITS, as in 10.0.0.1/24"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_netmask() {
        for (text, mask) in [
            ("192.168.10.10/24", [255, 255, 255, 0]),
            ("10.0.0.1/8", [255, 0, 0, 0]),
            ("10.0.0.1/32", [255; 4]),
            ("10.0.0.1/1", [128, 0, 0, 0]),
        ] {
            assert_eq!(text.parse().map(Subnet::mask), Ok(Ipv4Addr::from(mask)));
        }
        for text in [
            "10.0.0.1",
            "10.0.0/8",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "::1/64",
            "",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
