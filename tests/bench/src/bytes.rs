//! Sizes as people write them: `4k`, `1G`, `512`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// A number of bytes. Written with k, M or G for powers of 1024; a number in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

const UNITS: [(char, u32); 3] = [('k', 10), ('M', 20), ('G', 30)];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find(|(letter, _)| {
            text.ends_with([
                *letter,
                letter.to_ascii_uppercase(),
                letter.to_ascii_lowercase(),
            ])
        });
        let (digits, shift) = match unit {
            Some((_, shift)) => (&text[..text.len() - 1], *shift),
            None => (text, 0),
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| format!("{text:?} is not a size; write 512, 4k, 1M or 1G"))?;
        let bytes = number.checked_mul(1 << shift);
        bytes
            .map(Self)
            .ok_or_else(|| format!("{text:?} is too large"))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, shift) in UNITS.iter().rev() {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{letter}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in [
            ("512", 512),
            ("4k", 4096),
            ("3M", 3 << 20),
            ("1G", 1 << 30),
            ("0", 0),
        ] {
            let size: Bytes = text.parse().unwrap();
            assert_eq!((size.0, size.to_string()), (bytes, text.to_string()));
        }
        for bad in ["", "k", "4x", "-1", "99999999999G"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }
}
