//! What a plugin offers, asked in a process of its own: loading a plugin runs its code.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use outboard_device::abi::host::{Kind, Plugin};
use outboard_device::abi::options::OptionSchema;
use serde::{Deserialize, Serialize};

use crate::apart;

/// How long a plugin may take to be loaded.
const LIMIT: Duration = Duration::from_secs(5);

/// The hidden verb by which this program asks itself.
pub const VERB: &str = "inspect-here";

/// A plugin, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The minor version of the ABI it was built for.
    pub abi_minor: u32,
    /// It asks for the network.
    pub needs_net: bool,
    /// Its devices.
    pub devices: Vec<InspectedDevice>,
}

/// A device of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedDevice {
    /// Its name.
    pub name: String,
    /// A line for people.
    pub summary: String,
    /// What it is.
    pub kind: InspectedKind,
    /// The options it takes.
    pub options: Vec<InspectedOption>,
}

/// What a plugin's device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InspectedKind {
    /// A virtio device of this id.
    Virtio(u32),
    /// Registers and an interrupt line.
    Registers,
}

/// An option of a plugin's device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedOption {
    /// The key.
    pub name: String,
    /// How a value is written: `SIZE`.
    pub value: String,
    /// It must be given.
    pub required: bool,
    /// A line for people.
    pub help: String,
    /// What it is when nobody gives it.
    pub default: Option<String>,
}

impl From<&OptionSchema> for InspectedOption {
    fn from(option: &OptionSchema) -> Self {
        Self {
            name: option.name.clone(),
            value: option.kind.metavar().to_owned(),
            required: option.required,
            help: option.help.clone(),
            default: option.default.clone(),
        }
    }
}

impl From<&Plugin> for Inspected {
    fn from(plugin: &Plugin) -> Self {
        let devices = plugin.devices.iter().map(|device| InspectedDevice {
            name: device.name.clone(),
            summary: device.summary.clone(),
            kind: match device.kind {
                Kind::Virtio(id) => InspectedKind::Virtio(id),
                Kind::Registers => InspectedKind::Registers,
            },
            options: device.options.iter().map(InspectedOption::from).collect(),
        });
        Self {
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            abi_minor: plugin.abi_minor,
            needs_net: plugin.needs & outboard_device::abi::raw::OUTBOARD_NEEDS_NET != 0,
            devices: devices.collect(),
        }
    }
}

/// Loads the plugin into this process and describes it; see [`inspect`] for one that may do harm. The process
/// ends with the thread that started it.
///
/// # Errors
/// Why it does not load here, as a sentence.
pub fn inspect_here(path: &Path) -> Result<Inspected, String> {
    apart::asked();
    let plugin = Plugin::load(path).map_err(|error| error.to_string())?;
    Ok(Inspected::from(&plugin))
}

/// Asks a process of this program what the plugin offers.
///
/// # Errors
/// Why it does not load here, as a sentence.
pub fn inspect(path: &Path) -> Result<Inspected, String> {
    inspect_unless(path, &|| false)
}

/// The same; gives up when `cancelled` says so.
///
/// # Errors
/// As for [`inspect`].
pub fn inspect_unless(path: &Path, cancelled: &dyn Fn() -> bool) -> Result<Inspected, String> {
    let what = |why: String| format!("the plugin {} {why}", path.display());
    let args = ["plugin", VERB, "--"].map(OsStr::new);
    let args = [&args[..], &[path.as_os_str()]].concat();
    let asked = apart::ask(&args, LIMIT, cancelled);
    let answer = asked.map_err(|e| what(format!("cannot be inspected: {e}")))?;
    if let Some(why) = answer.refusal() {
        return Err(why.to_owned());
    }
    match answer.status {
        Some(status) if status.success() => serde_json::from_str(&answer.said).map_err(|e| {
            what(format!(
                "describes itself in a way that cannot be read: {e}"
            ))
        }),
        Some(status) => Err(what(format!(
            "ends the process it is loaded into ({status}){}",
            answer.last_words()
        ))),
        None => Err(what(format!(
            "has not finished loading after {} s{}",
            LIMIT.as_secs(),
            answer.last_words()
        ))),
    }
}
