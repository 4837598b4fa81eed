//! Scalar values that a flag spells as text and a TOML file may spell natively.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number of bytes: `512M`, `1G`, `1GiB`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    const UNITS: [(&'static str, u32); 5] = [("T", 40), ("G", 30), ("M", 20), ("K", 10), ("", 0)];
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            || format!("'{text}' is not a size; write a number with K, M, G or T, as in 512M");
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text
            .get(digits.len()..)
            .unwrap_or_default()
            .to_ascii_uppercase();
        let unit = unit
            .strip_suffix("IB")
            .or_else(|| unit.strip_suffix('B'))
            .unwrap_or(&unit);
        let count: u64 = digits.parse().map_err(|_| refuse())?;
        let shift = Self::UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(refuse)?
            .1;
        count
            .checked_mul(1 << shift)
            .map(Size)
            .ok_or_else(|| format!("'{text}' is more than 64 bits can count"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |shift: &u32| self.0 != 0 && self.0.trailing_zeros() >= *shift;
        match Self::UNITS.iter().find(|(_, shift)| exact(shift)) {
            Some((name, shift)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "0"),
        }
    }
}

/// A switch: `on`, `off`, or a TOML boolean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnOff(pub bool);

impl OnOff {
    /// For serde's `skip_serializing_if`.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub fn is_off(&self) -> bool {
        !self.0
    }
}

impl std::str::FromStr for OnOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" | "true" | "yes" => Ok(Self(true)),
            "off" | "false" | "no" => Ok(Self(false)),
            _ => Err(format!("'{text}' is not a switch; write on or off")),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for OnOff {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bool(self.0)
    }
}

struct ValueVisitor;

/// What the visitor saw, before it is given a meaning.
enum Value {
    Text(String),
    Number(u64),
    Bool(bool),
}

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word, a number or a boolean")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        u64::try_from(number)
            .map(Value::Number)
            .map_err(|_| E::custom(format!("{number} is negative")))
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }
    fn visit_bool<E: de::Error>(self, on: bool) -> Result<Value, E> {
        Ok(Value::Bool(on))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match from.deserialize_any(ValueVisitor)? {
            Value::Text(text) => text.parse().map_err(de::Error::custom),
            Value::Number(bytes) => Ok(Self(bytes)),
            Value::Bool(on) => Err(de::Error::custom(format!("{on} is not a size"))),
        }
    }
}

impl<'de> Deserialize<'de> for OnOff {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match from.deserialize_any(ValueVisitor)? {
            Value::Text(text) => text.parse().map_err(de::Error::custom),
            Value::Bool(on) => Ok(Self(on)),
            Value::Number(n) => Err(de::Error::custom(format!(
                "{n} is not a switch; write on or off"
            ))),
        }
    }
}

/// Small numbers, which a flag gives as text.
pub(super) mod number {
    use super::{Deserializer, Value, ValueVisitor, de};

    /// Reads an optional number that fits `T`.
    pub(in super::super) fn option<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<u64>,
    {
        let number = match from.deserialize_any(ValueVisitor)? {
            Value::Number(n) => n,
            Value::Text(text) => parse(&text)
                .ok_or_else(|| de::Error::custom(format!("'{text}' is not a number")))?,
            Value::Bool(on) => return Err(de::Error::custom(format!("{on} is not a number"))),
        };
        T::try_from(number)
            .map(Some)
            .map_err(|_| de::Error::custom(format!("{number} is out of range")))
    }

    fn parse(text: &str) -> Option<u64> {
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("1G", 1 << 30),
            ("1GiB", 1 << 30),
            ("4096", 4096),
            ("2kb", 2048),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        assert_eq!(Size(512 << 20).to_string(), "512M");
        assert_eq!(Size(3 << 30).to_string(), "3G");
        assert_eq!(Size(1000).to_string(), "1000");
    }

    #[test]
    fn nonsense_is_not_a_size() {
        for text in [
            "",
            "G",
            "1X",
            "-1",
            "99999999999999999999",
            "20000000T",
            "1.5G",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
