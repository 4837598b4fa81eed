//! Ethernet addresses, and the default one of a network card.

use std::fmt;

/// An Ethernet address, written `02:00:5e:10:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The default address of card number `index` of the VM called `name`: the same at every
    /// start, and different for differently named VMs.
    ///
    /// The first octet is 02: locally administered, unicast (IEEE 802-2014, 8.2).
    pub fn derived(name: &str, index: usize) -> Self {
        // FNV-1a, 64 bits: stable for ever, unlike the standard library's hasher.
        let bytes = name
            .bytes()
            .chain(std::iter::once(0))
            .chain(index.to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut octets = [0x02; 6];
        octets
            .iter_mut()
            .skip(1)
            .zip(hash.to_be_bytes())
            .for_each(|(octet, byte)| *octet = byte);
        Self(octets)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&octets.join(":"))
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "'{text}' is not an Ethernet address; write six hex octets, as in 02:00:5e:10:00:01"
            )
        };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(refuse)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            return Err(refuse());
        }
        if octets[0] & 1 == 1 {
            return Err(format!(
                "'{text}' is a multicast address; a card's first octet is even"
            ));
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_address_is_local_unicast_and_stable() {
        let mac = Mac::derived("web", 0);
        assert_eq!(mac, Mac::derived("web", 0));
        assert_ne!(mac, Mac::derived("web", 1));
        assert_ne!(mac, Mac::derived("db", 0));
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!(mac.0[0], 0x02);
    }

    #[test]
    fn bad_addresses_are_refused() {
        for text in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "01:00:5e:10:00:01",
            "2:0:5e:10:0:1",
            "0g:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
