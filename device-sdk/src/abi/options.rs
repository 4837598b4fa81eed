//! Options: what a device takes, declared by the plugin; what a person gave, checked by the host.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::raw::*;

/// What the host reads itself of `--device plugin=...`, so that no option of a device can be it.
pub const HOST_KEYS: [&str; 8] = [
    "plugin", "device", "host", "name", "id", "addr", "queues", "on-exit",
];

/// What kind of value an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// Any text.
    Text,
    /// `on` or `off`.
    Bool,
    /// A whole number, decimal or with 0x.
    Number,
    /// Bytes, with K, M, G or T after the number or nothing.
    Size,
    /// A path, made absolute.
    Path,
}

impl OptionKind {
    /// The kind of this number in the ABI.
    pub fn from_raw(kind: u32) -> Option<Self> {
        Some(match kind {
            OUTBOARD_TEXT => Self::Text,
            OUTBOARD_BOOL => Self::Bool,
            OUTBOARD_NUMBER => Self::Number,
            OUTBOARD_SIZE => Self::Size,
            OUTBOARD_PATH => Self::Path,
            _ => return None,
        })
    }

    /// How a value of it is written.
    pub fn metavar(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Bool => "on|off",
            Self::Number => "N",
            Self::Size => "SIZE",
            Self::Path => "PATH",
        }
    }
}

/// One option as the host knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionSchema {
    /// The key.
    pub name: String,
    /// What it takes.
    pub kind: OptionKind,
    /// The device cannot be made without it.
    pub required: bool,
    /// A line for people.
    pub help: String,
    /// As a person would write it.
    pub default: Option<String>,
}

/// An option's value, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Value {
    /// As given, or the default; a path is absolute. `None`: neither.
    pub text: Option<String>,
    /// Of a number or size its value, of a bool 0 or 1, else 0.
    pub number: u64,
}

/// Checks what was given against what there is: one value for each option, in their order.
///
/// # Errors
/// A sentence that names the key, the value and the remedy.
pub fn check(
    schema: &[OptionSchema],
    given: &BTreeMap<String, String>,
) -> Result<Vec<Value>, String> {
    if let Some(unknown) = given
        .keys()
        .find(|key| schema.iter().all(|option| option.name != **key))
    {
        let mut why = format!("it has no option '{unknown}'");
        if schema.is_empty() {
            why.push_str("; it has none at all");
        } else {
            let names: Vec<_> = schema.iter().map(|option| option.name.as_str()).collect();
            let _ = write!(why, "; it has {}", names.join(", "));
        }
        return Err(why);
    }
    schema
        .iter()
        .map(|option| {
            let text = given.get(&option.name).or(option.default.as_ref());
            match text {
                Some(text) => value(option, text),
                None if option.required => Err(format!(
                    "it needs {}={}: {}",
                    option.name,
                    option.kind.metavar(),
                    option.help
                )),
                None => Ok(Value::default()),
            }
        })
        .collect()
}

fn value(option: &OptionSchema, text: &str) -> Result<Value, String> {
    let wrong = |want: &str| format!("{}={text} is not {want}", option.name);
    let mut value = Value {
        text: Some(text.to_owned()),
        number: 0,
    };
    match option.kind {
        OptionKind::Text => {}
        OptionKind::Bool => {
            value.number = match text {
                "on" | "true" | "yes" => 1,
                "off" | "false" | "no" => 0,
                _ => return Err(wrong("on or off")),
            }
        }
        OptionKind::Number => {
            value.number = number(text).ok_or_else(|| wrong("a whole number"))?;
        }
        OptionKind::Size => {
            value.number =
                size(text).ok_or_else(|| wrong("a size; write bytes, or 64K, 16M, 2G"))?;
        }
        OptionKind::Path => {
            let path = std::path::absolute(text).map_err(|_| wrong("a path"))?;
            value.text = Some(path.display().to_string());
        }
    }
    Ok(value)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)? {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    number(digits)?.checked_mul(1 << shift)
}

/// Reads `key=value,...`, where a comma inside a value is written twice and a key alone means `on`.
///
/// # Errors
/// A sentence that names what is wrong.
pub fn from_keyvals(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    // Two commas are one in a value: a byte that no argument can have stands for them meanwhile.
    let text = text.replace(",,", "\0");
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let part = part.replace('\0', ",");
        let (key, value) = part.split_once('=').unwrap_or((&part, "on"));
        if key.is_empty() {
            return Err(format!("in '{part}': a key is missing before '='"));
        }
        if all.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("the option '{key}' is given twice"));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Vec<OptionSchema> {
        let option = |name: &str, kind, required, default: Option<&str>| OptionSchema {
            name: name.into(),
            kind,
            required,
            help: "what it is".into(),
            default: default.map(Into::into),
        };
        vec![
            option("file", OptionKind::Path, true, None),
            option("size", OptionKind::Size, false, Some("4K")),
            option("fast", OptionKind::Bool, false, None),
            option("n", OptionKind::Number, false, None),
        ]
    }

    #[test]
    fn values_are_typed_and_in_the_order_of_the_schema() {
        let given = from_keyvals("n=0x10,file=/a,,b,fast").unwrap();
        let values = check(&schema(), &given).unwrap();
        let texts: Vec<_> = values.iter().map(|value| value.text.as_deref()).collect();
        assert_eq!(texts, [Some("/a,b"), Some("4K"), Some("on"), Some("0x10")]);
        let numbers: Vec<_> = values.iter().map(|value| value.number).collect();
        assert_eq!(numbers, [0, 4096, 1, 16]);
        let bare = check(&schema(), &from_keyvals("file=x").unwrap()).unwrap();
        assert!(bare[0].text.as_ref().unwrap().starts_with('/'));
        assert_eq!(bare[3], Value::default());
    }

    #[test]
    fn each_mistake_is_named() {
        for (given, names) in [
            ("size=1", "it needs file=PATH"),
            ("file=a,colour=red", "no option 'colour'; it has file, size"),
            ("file=a,size=3X", "size=3X is not a size"),
            ("file=a,size=99999999T", "size=99999999T"),
            ("file=a,fast=maybe", "fast=maybe is not on or off"),
            ("file=a,n=-1", "n=-1 is not a whole number"),
        ] {
            let why = check(&schema(), &from_keyvals(given).unwrap()).unwrap_err();
            assert!(why.contains(names), "{given}: {why}");
        }
        assert!(from_keyvals("a=1,a=2").is_err());
        assert!(from_keyvals("=1").is_err());
    }
}
