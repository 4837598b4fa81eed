//! docs/vm-toml.md says what the description takes, all of it and nothing else.

use std::collections::BTreeSet;

use super::{Cpus, Description, Disk, Net, PluginDevice, Ram, RawDevice, from_keyvals};

const PAGE: &str = include_str!("../../../docs/vm-toml.md");

/// The keys of `T`, by the message about one that it does not have.
fn keys<T: serde::de::DeserializeOwned>() -> BTreeSet<String> {
    let why = from_keyvals::<T>("no-such-key=1", None).err().unwrap();
    let (_, expected) = why.split_once("expected").unwrap();
    quoted(expected)
}

/// What is between backticks.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(Into::into).collect()
}

/// The first column of the table under this header.
fn described(header: &str) -> BTreeSet<String> {
    let start = format!("\n## {header}\n");
    let (_, section) = PAGE.split_once(&start).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_key_is_described_and_no_other() {
    assert_eq!(described("The VM"), keys::<Description>());
    assert_eq!(described("`[cpus]`"), keys::<Cpus>());
    assert_eq!(described("`[memory]`"), keys::<Ram>());
    assert_eq!(described("`[[disk]]`"), keys::<Disk>());
    assert_eq!(described("`[[net]]`"), keys::<Net>());
    assert_eq!(described("`[[device]]`"), keys::<RawDevice>());
    assert_eq!(described("`[[plugin]]`"), keys::<PluginDevice>());
}

#[test]
fn the_example_is_a_vm() {
    let (_, example) = PAGE.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let mut vm: Description = toml::from_str(example).unwrap();
    let config = vm.resolve().unwrap();
    assert_eq!((config.cpus.count, config.devices.len()), (2, 2));
}
