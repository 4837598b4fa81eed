//! `key=value,key=value`: the spelling of a TOML table on a command line.

use serde::de::DeserializeOwned;

/// Reads `key=value,...` into the type that the TOML file's table fills.
///
/// A key with no `=` means `key=on`. A comma inside a value is written twice. `first` names the
/// key of a leading value that stands alone (`--memory 1G`).
///
/// # Errors
/// A sentence naming the key and what it may be; not all of `text`, which whoever has it names.
pub fn from_keyvals<T: DeserializeOwned>(text: &str, first: Option<&str>) -> Result<T, String> {
    let mut table = toml::Table::new();
    for (place, part) in split(text).into_iter().enumerate() {
        let (key, value) = match (part.split_once('='), first) {
            (Some((key, value)), _) => (key.to_owned(), value.to_owned()),
            (None, Some(name)) if place == 0 => (name.to_owned(), part),
            (None, _) => (part, "on".to_owned()),
        };
        if key.is_empty() {
            return Err("a key is missing before '='".into());
        }
        if table
            .insert(key.clone(), toml::Value::String(value))
            .is_some()
        {
            return Err(format!("the key '{key}' is given twice"));
        }
    }
    T::deserialize(table).map_err(|error| of_keys(&error).replace('\n', " "))
}

/// An error of the TOML reader, in the words of those who write keys: it has read fields.
pub(crate) fn of_keys(error: &toml::de::Error) -> String {
    let message = error.message();
    let told = message
        .replace("unknown field `", "unknown key `")
        .replace("missing field `", "missing key `")
        .replace("duplicate field `", "duplicate key `");
    error.to_string().trim_end().replace(message, &told)
}

fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, parts.last_mut()) {
            (',', _) if chars.next_if_eq(&',').is_none() => parts.push(String::new()),
            (c, Some(part)) => part.push(c),
            (_, None) => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::super::{Disk, OnOff, Ram, Size};
    use super::*;

    #[test]
    fn a_table_is_read_from_a_flag() {
        let disk: Disk = from_keyvals("path=a,,b.img,readonly,serial=x", None).unwrap();
        assert_eq!(disk.path.unwrap().to_str(), Some("a,b.img"));
        assert_eq!(disk.readonly, OnOff(true));
        let ram: Ram = from_keyvals("1G,hugepages=on", Some("size")).unwrap();
        assert_eq!(ram.size, Size(1 << 30));
    }

    #[test]
    fn an_unknown_key_is_named_with_those_that_exist() {
        let why = from_keyvals::<Disk>("path=a,colour=red", None).unwrap_err();
        assert!(why.contains("unknown key `colour`"), "{why}");
        assert!(why.contains("readonly"), "{why}");
        let why = from_keyvals::<Disk>("path=a,path=b", None).unwrap_err();
        assert!(why.contains("'path' is given twice"), "{why}");
        let why = from_keyvals::<Disk>("path=a,readonly=maybe", None).unwrap_err();
        assert!(why.contains("maybe") && why.contains("on or off"), "{why}");
    }
}
