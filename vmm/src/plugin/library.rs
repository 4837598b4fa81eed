//! Where a plugin's table comes from.
#![allow(unsafe_code)] // Vouches for the tables of this program.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use outboard_device::abi::host::Plugin;

/// A shared library, or one of those that are part of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Library {
    /// The file.
    File(PathBuf),
    /// The serial port that is ttyS0: `plugins/serial`, and the table that its `.so` exports.
    Serial,
}

impl Library {
    /// The plugin, its table checked.
    ///
    /// # Errors
    /// Why it is none, as a sentence.
    pub fn load(&self) -> Result<Plugin, String> {
        match self {
            Self::File(path) => Plugin::load(path).map_err(|error| error.to_string()),
            Self::Serial => serial(),
        }
    }
}

/// Adopted once, however many VMs this process has: a plugin is set up once.
fn serial() -> Result<Plugin, String> {
    static SERIAL: LazyLock<Result<Plugin, String>> = LazyLock::new(|| {
        let table = &raw const outboard_serial::OUTBOARD_PLUGIN;
        // SAFETY: what `export_plugin!` has made for the plugin's entry to return, valid for ever.
        let plugin = unsafe { Plugin::adopt(table, Path::new("serial")) };
        plugin.map_err(|error| error.to_string())
    });
    SERIAL.clone()
}
