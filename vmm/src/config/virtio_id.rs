//! Virtio device ids and their names.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A virtio device id: 1 to 63, the ones that a PCI device id of a modern device can carry
/// (virtio 1.2, sections 4.1.2 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioId(u8);

/// Virtio 1.2, section 5: the ids that have a specification and a driver somewhere.
const NAMES: [(&str, u8); 20] = [
    ("net", 1),
    ("block", 2),
    ("console", 3),
    ("rng", 4),
    ("balloon", 5),
    ("scsi", 8),
    ("9p", 9),
    ("gpu", 16),
    ("input", 18),
    ("vsock", 19),
    ("crypto", 20),
    ("iommu", 23),
    ("mem", 24),
    ("sound", 25),
    ("fs", 26),
    ("pmem", 27),
    ("rpmb", 28),
    ("video", 31),
    ("i2c", 34),
    ("gpio", 41),
];

impl VirtioId {
    /// A network card.
    pub const NET: Self = Self(1);
    /// A disk.
    pub const BLOCK: Self = Self(2);
    /// A console.
    pub const CONSOLE: Self = Self(3);
    /// A shared file system.
    pub const FS: Self = Self(26);

    /// The number.
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }

    /// The name, or `virtioN` for an id that has none here.
    pub fn name(self) -> String {
        match NAMES.iter().find(|(_, id)| *id == self.0) {
            Some((name, _)) => (*name).to_owned(),
            None => format!("virtio{}", self.0),
        }
    }
}

impl std::str::FromStr for VirtioId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, id)| *id);
        if let Some(id @ 1..=63) = known.or_else(|| text.parse().ok()) {
            return Ok(Self(id));
        }
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        Err(format!(
            "'{text}' is no virtio device; write a number from 1 to 63 or one of {}",
            names.join(", ")
        ))
    }
}

impl fmt::Display for VirtioId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Serialize for VirtioId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match NAMES.iter().find(|(_, id)| *id == self.0) {
            Some((name, _)) => to.serialize_str(name),
            None => to.serialize_u8(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for VirtioId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Number(u8),
            Text(String),
        }
        let text = match Spelling::deserialize(from)? {
            Spelling::Number(id) => id.to_string(),
            Spelling::Text(text) => text,
        };
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_numbers_and_names() {
        assert_eq!("fs".parse::<VirtioId>().map(VirtioId::get), Ok(26));
        assert_eq!(
            "26".parse::<VirtioId>().map(VirtioId::name),
            Ok("fs".into())
        );
        assert_eq!(
            "60".parse::<VirtioId>().map(VirtioId::name),
            Ok("virtio60".into())
        );
        for text in ["0", "64", "disk", ""] {
            assert!(text.parse::<VirtioId>().is_err(), "{text}");
        }
    }
}
