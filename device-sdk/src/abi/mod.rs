//! The plugin ABI: how a device in a shared library, written in Rust or C, is used by a host.
//!
//! | file | idea |
//! |---|---|
//! | `raw.rs` | the structs of version 1, as C sees them; the header is made from it |
//! | `layout.rs` | where each field lies, for ever; taking in a struct of another minor version |
//! | `options.rs` | options declared, and options given |
//! | `elf.rs`, `load.rs` | from a file to a library in this process |
//! | `host/` | a plugin's devices as devices of this SDK |
//! | `export/` | a device of this SDK as a plugin: [`export_plugin!`](crate::export_plugin) |

#![allow(clippy::wildcard_imports)] // The ABI's names say whose they are.

mod elf;
mod error;
#[allow(missing_docs)]
pub mod export;
pub mod host;
pub mod layout;
mod load;
pub mod options;
pub mod raw;
#[cfg(test)]
mod tests;

pub use error::{PluginError, Problem};
