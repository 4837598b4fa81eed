//! Values of which only Cloud Hypervisor's default is possible here.
//!
//! A field's type says so: it reads that value, `null`, or nothing, and refuses every other by name
//! (the path to the field comes from whoever reads the whole). It writes the default.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{RefOr, schema::SchemaType};
use utoipa::{PartialSchema, ToSchema};

macro_rules! values {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) struct $name;

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                json($text).serialize(to)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                only($text, &Value::deserialize(from)?).map_err(de::Error::custom)?;
                Ok(Self)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                schema_of(json($text))
            }
        }

        impl ToSchema for $name {}
    )* };
}

values! {
    /// A switch that is off.
    Off = "false",
    /// A switch that is on.
    On = "true",
    /// Nothing, or an empty list.
    Absent = "null",
    /// PCI segments begin with 0.
    Zero = "0",
    /// There is one PCI segment.
    One = "1",
    /// Of `iommu_address_width_bits`.
    Bits64 = "64",
    /// Of `max_phys_bits`.
    Bits46 = "46",
    /// Of `hotplug_method`.
    Acpi = "\"Acpi\"",
    /// Of `core_scheduling`.
    CoresOfVm = "\"Vm\"",
    /// Of `profile`.
    HostCpu = "\"Host\"",
    /// Of `vhost_mode`: the daemon listens.
    Client = "\"Client\"",
    /// Of `lock_granularity`: as QEMU locks, which our disks do.
    ByteRange = "\"ByteRange\"",
    /// Of the source of `rng`.
    Urandom = "\"/dev/urandom\"",
    /// Of the debug console's mode.
    NoConsole = "\"Off\"",
}

/// A value, from how it is written above.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Accepts the value, and what is nothing.
fn only(text: &str, given: &Value) -> Result<(), String> {
    let is_empty = given.is_null() || *given == Value::Array(Vec::new());
    if is_empty || *given == json(text) {
        return Ok(());
    }
    let remedy = match text {
        "null" => "leave it out".to_owned(),
        text => format!("leave it out, or write {text}"),
    };
    Err(format!("{given} is not possible here; {remedy}"))
}

fn schema_of(value: Value) -> RefOr<Schema> {
    let kind = match value {
        Value::Bool(_) => Type::Boolean,
        Value::Number(_) => Type::Integer,
        Value::String(_) => Type::String,
        _ => Type::Null,
    };
    ObjectBuilder::new()
        .schema_type(SchemaType::new(kind))
        .enum_values(Some([value]))
        .into()
}

/// Reads a list, or `null` for an empty one.
pub(super) fn list<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: de::DeserializeOwned>(text: &str) -> Result<T, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_is_read_and_every_other_value_is_refused_by_itself() {
        assert!(read::<Off>("false").is_ok() && read::<Off>("null").is_ok());
        let why = read::<Off>("true").unwrap_err();
        assert!(
            why.contains("true is not possible") && why.contains("write false"),
            "{why}"
        );
        assert!(read::<Absent>("[]").is_ok() && read::<Absent>("{}").is_err());
        assert!(read::<Client>("\"Client\"").is_ok());
        assert!(read::<Client>("\"Server\"").unwrap_err().contains("Server"));
        assert_eq!(serde_json::to_string(&Bits46).unwrap(), "46");
    }
}
