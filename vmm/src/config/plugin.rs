//! Devices of plugins, as described: `--device plugin=PATH,option=value,...,host=vmm|process`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::OnExit;
use super::keyvals::of_keys;
use super::values::number;

/// Where a plugin's code runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginHost {
    /// In a process of its own, as any daemon.
    #[default]
    Process,
    /// In the VMM: no process between them, and none between its faults and the VM.
    Vmm,
}

/// `--device plugin=PATH,...`, or `[[plugin]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PluginDevice {
    /// The shared library.
    pub plugin: PathBuf,
    /// Which of its devices; the only one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Where it runs. A virtio device's is `process` when absent, that of registers `vmm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<PluginHost>,
    /// What messages call the device; the library's name and a number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The most queues to use; as many as it has when absent.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub queues: Option<u16>,
    /// PCI slot.
    #[serde(
        default,
        deserialize_with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub addr: Option<u8>,
    /// What its end means for the VM.
    #[serde(default)]
    pub on_exit: OnExit,
    /// The device's own options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// A device of a plugin, checked as far as the plugin need not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// Unique in the VM.
    pub id: String,
    /// The shared library.
    pub path: PathBuf,
    /// Which of its devices; the only one when absent.
    pub device: Option<String>,
    /// Where it runs, if that was said.
    pub host: Option<PluginHost>,
    /// PCI slot; of no use for registers.
    pub slot: u8,
    /// The most queues to use.
    pub queues: Option<u16>,
    /// What its end means for the VM.
    pub on_exit: OnExit,
    /// The device's own options, not checked.
    pub options: BTreeMap<String, String>,
    /// The plugin's name and version, once it has been asked.
    pub version: Option<String>,
}

/// Keys that are the host's; every other is an option of the device.
const KEYS: [&str; 7] = [
    "plugin", "device", "host", "name", "queues", "addr", "on-exit",
];

impl PluginDevice {
    /// Reads the keys of `--device`: those of the host, and the device's options.
    ///
    /// # Errors
    /// A sentence naming the key and what it may be.
    pub fn from_keyvals(text: &str) -> Result<Self, String> {
        let all = outboard_device::abi::options::from_keyvals(text)?;
        let (own, options): (BTreeMap<_, _>, BTreeMap<_, _>) = all
            .into_iter()
            .partition(|(key, _)| KEYS.contains(&key.as_str()));
        let table: toml::Table = own
            .into_iter()
            .map(|(key, value)| (key, toml::Value::String(value)))
            .collect();
        let mut device =
            Self::deserialize(table).map_err(|error| of_keys(&error).replace('\n', " "))?;
        device.options = options;
        Ok(device)
    }

    /// What the device is called when nobody says: `ramdisk` for `libramdisk.so`.
    pub(super) fn stem(&self) -> String {
        let stem = self
            .plugin
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        let stem = stem.strip_prefix("lib").unwrap_or(&stem);
        let stem = stem.strip_prefix("outboard_").unwrap_or(stem);
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let name: String = stem.chars().filter(|c| allowed(*c)).take(32).collect();
        if name.is_empty() {
            "plugin".into()
        } else {
            name
        }
    }

    pub(super) fn config(&self, id: &str, slot: u8) -> PluginConfig {
        // The loader takes a bare name for something to look for.
        let path = std::path::absolute(&self.plugin);
        PluginConfig {
            id: id.to_owned(),
            path: path.unwrap_or_else(|_| Path::to_owned(&self.plugin)),
            device: self.device.clone(),
            host: self.host,
            slot,
            queues: self.queues,
            on_exit: self.on_exit,
            options: self.options.clone(),
            version: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_not_the_hosts_are_options() {
        let device =
            PluginDevice::from_keyvals("plugin=./libramdisk.so,host=vmm,size=4M,fast,addr=9")
                .unwrap();
        assert_eq!(device.stem(), "ramdisk");
        assert_eq!((device.host, device.addr), (Some(PluginHost::Vmm), Some(9)));
        let options: Vec<_> = device.options.iter().collect();
        assert_eq!(
            options,
            [
                (&"fast".into(), &"on".into()),
                (&"size".into(), &"4M".into())
            ]
        );
        for (text, words) in [
            ("plugin=a.so,host=cloud", "cloud"),
            ("plugin=a.so,addr=x", "x"),
            ("host=vmm", "plugin"),
        ] {
            let why = PluginDevice::from_keyvals(text).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
