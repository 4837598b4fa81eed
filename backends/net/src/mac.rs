//! Ethernet addresses as people write them.

use std::fmt;
use std::str::FromStr;

/// The address of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac([u8; 6]);

/// Why a text is not the address of a card.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six bytes.
    #[error("MAC address '{0}' is not six hexadecimal bytes, as in 52:54:00:12:34:56")]
    Form(String),
    /// The address of a group of stations, or of none.
    #[error(
        "MAC address '{0}' is not that of one card: make the first byte even, and not all zero"
    )]
    Group(String),
}

impl Mac {
    /// The address of one card; `None` when it is that of a group, or of nobody.
    pub fn new(octets: [u8; 6]) -> Option<Self> {
        (octets[0] & 1 == 0 && octets != [0; 6]).then_some(Self(octets))
    }

    /// The address as it lies in configuration space.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.to_owned());
        let mut parts = text.split([':', '-']);
        let mut octets = [0; 6];
        for octet in &mut octets {
            let part = parts.next().ok_or_else(form)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(form());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        if parts.next().is_some() {
            return Err(form());
        }
        Self::new(octets).ok_or_else(|| MacError::Group(text.to_owned()))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, octet) in self.0.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usual_spellings_are_read() {
        let mac: Mac = "52:54:00:aB:cd:eF".parse().unwrap();
        assert_eq!(mac.octets(), [0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        assert_eq!("52-54-00-ab-cd-ef".parse(), Ok(mac));
    }

    #[test]
    fn what_is_no_card_is_refused() {
        for text in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:01",
            "5:54:00:ab:cd:ef",
            "525400abcdef",
            "+2:54:00:ab:cd:ef",
            "52:54:00:ab:cd:gg",
        ] {
            assert!(
                matches!(text.parse::<Mac>(), Err(MacError::Form(_))),
                "{text}"
            );
        }
        for text in [
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(
                matches!(text.parse::<Mac>(), Err(MacError::Group(_))),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_address_reads_back(mut octets: [u8; 6]) {
            octets[0] = (octets[0] & 0xfe) | 2;
            let mac = Mac(octets);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }

        #[test]
        fn any_text_is_harmless(text: String) {
            let _ = text.parse::<Mac>();
        }
    }
}
