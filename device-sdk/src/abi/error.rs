//! Why a plugin cannot be used.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::layout::LayoutError;
use super::raw::{OUTBOARD_ABI_MAJOR, OUTBOARD_ABI_MINOR};

/// Why a plugin cannot be loaded, or a device of it not be made.
#[derive(Debug, thiserror::Error)]
#[error("the plugin {} {problem}", path.display())]
pub struct PluginError {
    /// The file, or what stands for one that is built in.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a plugin. Reads on from its name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read, or not be copied.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It is something else.
    #[error("is not an ELF shared library ({0})")]
    NotElf(&'static str),
    /// It is for another kind of machine.
    #[error(
        "is for another machine ({found}); this one is {}: build it for this one",
        std::env::consts::ARCH
    )]
    Machine {
        /// What the file says.
        found: String,
    },
    /// It does not export the entry symbol.
    #[error(
        "exports no outboard_plugin_entry_v1: it is no Outboard plugin, or one whose entry is not exported"
    )]
    NoEntry,
    /// The dynamic loader refuses it.
    #[error("cannot be loaded: {0}")]
    Load(String),
    /// This program cannot load anything.
    #[error(
        "cannot be loaded by a static program; use a build for glibc that is linked dynamically"
    )]
    StaticHost,
    /// The entry returned no table of a plugin.
    #[error("has a table with the magic {0:#010x} instead of a plugin's")]
    Magic(u32),
    /// The table is of another major version.
    #[error(
        "is for version {0} of the plugin ABI; this host has {OUTBOARD_ABI_MAJOR}.{OUTBOARD_ABI_MINOR}: build it against this host's SDK"
    )]
    Major(u32),
    /// The plugin needs what was appended later.
    #[error(
        "needs version 1.{0} of the plugin ABI; this host has {OUTBOARD_ABI_MAJOR}.{OUTBOARD_ABI_MINOR}: take a newer host"
    )]
    Minor(u32),
    /// A table is truncated, or not there.
    #[error("has a malformed table: {0}")]
    Layout(LayoutError),
    /// A table says what cannot be.
    #[error("has a wrong table: {0}")]
    Table(String),
    /// No device of this name.
    #[error("has no device '{name}'; it has {}", names.join(", "))]
    NoDevice {
        /// What was asked for.
        name: String,
        /// What there is.
        names: Vec<String>,
    },
    /// It has several devices.
    #[error("has several devices; say which, by device=NAME: {}", .0.join(", "))]
    Which(Vec<String>),
    /// An option is wrong.
    #[error("refuses its options: {0}")]
    Options(String),
    /// What is wrong with what has been loaded, and stays.
    #[error(transparent)]
    Loaded(Arc<Problem>),
    /// The plugin said no.
    #[error("cannot make the device: {0}")]
    Create(String),
}

impl From<LayoutError> for Problem {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}
