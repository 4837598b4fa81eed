//! What people write into a file in place of a table: the words of the flag. And the file itself.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};

use super::description::{Cpus, Disk, Net, Ram, RawDevice};
use super::{PluginDevice, from_keyvals};

/// The most bytes a description may have; thousands of disks fit.
const FILE_MAX: u64 = 1 << 20;

/// Reads a description. A pipe will do: `outboard run <(generate)`.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    let failed = |error| format!("cannot be read: {error}");
    let kind = path.metadata().map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err("is a directory; give a TOML file".into());
    }
    if !kind.is_file() && !kind.is_fifo() {
        return Err("is no file; give a TOML file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err("is longer than 1 MiB; give a TOML file".into());
    }
    String::from_utf8(bytes).map_err(|_| "is not text; give a TOML file".into())
}

/// `cpus = 2`
pub(super) fn cpus<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cpus>, D::Error> {
    let visitor = Words::new("count", "a table, or a number of CPUs: cpus = 2");
    from.deserialize_any(visitor).map(Some)
}

/// `memory = "1G,hugepages=on"`
pub(super) fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Ram>, D::Error> {
    let visitor = Words::new("size", "a table, or a size: memory = \"64M\"");
    from.deserialize_any(visitor).map(Some)
}

pub(super) fn disks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Disk>, D::Error> {
    from.deserialize_any(Tables("disk", PhantomData))
}

pub(super) fn nets<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Net>, D::Error> {
    from.deserialize_any(Tables("net", PhantomData))
}

pub(super) fn devices<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RawDevice>, D::Error> {
    from.deserialize_any(Tables("device", PhantomData))
}

pub(super) fn plugins<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PluginDevice>, D::Error> {
    from.deserialize_any(Tables("plugin", PhantomData))
}

/// A table, or the words that its flag takes.
struct Words<T> {
    /// The key of the first word.
    first: &'static str,
    expecting: &'static str,
    made: PhantomData<T>,
}

impl<T> Words<T> {
    fn new(first: &'static str, expecting: &'static str) -> Self {
        Self {
            first,
            expecting,
            made: PhantomData,
        }
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Words<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        from_keyvals(text, Some(self.first)).map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(table))
    }
}

/// Tables of one kind, each under a header of its own.
struct Tables<T>(&'static str, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Tables<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tables, each under [[{}]]", self.0)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, tables: A) -> Result<Vec<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(tables))
    }
    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Vec<T>, A::Error> {
        let key = self.0;
        Err(de::Error::custom(format!(
            "there may be several of these; write [[{key}]] in place of [{key}]"
        )))
    }
}
