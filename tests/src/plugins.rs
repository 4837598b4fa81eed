//! Plugins for tests: ours in Rust as cargo builds them, and those in C.
#![allow(clippy::expect_used)] // A test that has no plugin fails by panicking.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemons::daemon;

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The plugin in Rust of this package and library: `rust("outboard-plugin-entropy", "outboard_entropy")`.
///
/// # Panics
/// When it cannot be built.
pub fn rust(package: &str, library: &str) -> PathBuf {
    daemon(package).with_file_name(format!("lib{library}.so"))
}

/// Builds a plugin in C into `dir`, with these definitions, and returns the library.
///
/// # Panics
/// When it cannot be built.
pub fn c(compiler: &str, source: &str, dir: &Path, flags: &[&str]) -> PathBuf {
    let source = root().join(source);
    let stem = source.file_stem().unwrap_or_default().display().to_string();
    // A library each, by what it is built with.
    let name: String = flags
        .concat()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let library = dir.join(format!("lib{stem}{compiler}{name}.so"));
    let status = Command::new(compiler)
        .args(["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"])
        .args(["-fPIC", "-shared", "-fvisibility=hidden"])
        .args(flags)
        .arg("-I")
        .arg(root().join("device-sdk/include"))
        .arg("-o")
        .arg(&library)
        .arg(&source)
        .status()
        .expect("a C compiler is installed");
    assert!(status.success(), "{} does not build", source.display());
    library
}
