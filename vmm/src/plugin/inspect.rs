//! What a plugin offers, asked in a process of its own: loading a plugin runs its code.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outboard_device::abi::host::{Kind, Plugin};
use outboard_device::abi::options::OptionSchema;
use serde::{Deserialize, Serialize};

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

/// Loads the plugin into this process and describes it; see [`inspect`] for one that may do harm.
///
/// # Errors
/// Why it does not load here, as a sentence.
pub fn inspect_here(path: &Path) -> Result<Inspected, String> {
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
    let own = std::env::current_exe().map_err(|e| what(format!("cannot be inspected: {e}")))?;
    let child = Command::new(own)
        .args(["plugin", VERB, "--"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|e| what(format!("cannot be inspected: {e}")))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    // Read beside the wait: a plugin may say more than a pipe holds.
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(pipe) = pipe {
                let _ = pipe.take(1 << 20).read_to_string(&mut text);
            }
            text
        })
    };
    let out = read(out.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let err = read(err.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let status = wait(&mut child, cancelled);
    let (out, err) = (
        out.join().unwrap_or_default(),
        err.join().unwrap_or_default(),
    );
    match status {
        Some(status) if status.success() => serde_json::from_str(&out).map_err(|e| {
            what(format!(
                "describes itself in a way that cannot be read: {e}"
            ))
        }),
        // It says what is wrong, itself.
        Some(status) if status.code() == Some(1) && !out.trim().is_empty() => {
            Err(out.trim().to_owned())
        }
        Some(status) => Err(what(format!(
            "ends the process it is loaded into ({status}){}",
            quoted(&err)
        ))),
        None => Err(what(format!(
            "has not finished loading after {} s{}",
            LIMIT.as_secs(),
            quoted(&err)
        ))),
    }
}

fn quoted(words: &str) -> String {
    match words.trim() {
        "" => String::new(),
        words => format!("; its last words:\n{words}"),
    }
}

/// Waits, and kills what takes too long.
fn wait(child: &mut Child, cancelled: &dyn Fn() -> bool) -> Option<std::process::ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT && !cancelled() {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
