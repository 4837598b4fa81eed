//! Plugins for tests: ours in Rust as cargo builds them, and those in C.
#![allow(clippy::expect_used)] // A test that has no plugin fails by panicking.

use std::fs;
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

/// Builds the crate in `dir`, which is none of the workspace, as its author would, and returns the library
/// of this name. Nothing is downloaded, and nothing built again: versions and settings are the tests'.
///
/// # Panics
/// When it cannot be built.
pub fn crate_in(dir: &Path, library: &str) -> PathBuf {
    fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).expect("the lock file is copied");
    build(dir, "--offline").join(format!("lib{library}.so"))
}

/// Builds the crate in `dir`, below the root but none of the workspace, with the versions of its own lock file,
/// and returns the folder its library and its program are in.
///
/// # Panics
/// When it cannot be built.
pub fn locked_in(dir: &str) -> PathBuf {
    build(&root().join(dir), "--locked")
}

fn build(dir: &Path, lock: &str) -> PathBuf {
    // TARGET/PROFILE/deps/THIS-TEST
    let test = std::env::current_exe().expect("this program has a path");
    let target = test
        .ancestors()
        .nth(3)
        .expect("tests lie in TARGET/PROFILE/deps");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(dir)
        .args(["build", "--quiet", lock, "--target-dir"])
        .arg(target)
        .args(["--config", "profile.dev.debug=\"line-tables-only\""])
        .args(["--config", "profile.dev.package.\"*\".opt-level=1"])
        .status()
        .expect("cargo can be run");
    assert!(
        status.success(),
        "the crate in {} does not build",
        dir.display()
    );
    target.join("debug")
}

/// A twin of the plugin in Rust below `plugins/` with something in its source changed, built into `dir`.
///
/// # Panics
/// When there is no such place in the source, or it does not build.
pub fn twin(plugin: &str, from: &str, to: &str, dir: &Path) -> PathBuf {
    let source = root().join("plugins").join(plugin).join("src/lib.rs");
    let source = fs::read_to_string(source).expect("the plugin's source is there");
    assert_eq!(source.matches(from).count(), 1, "{from}");
    let sdk = root().join("device-sdk").canonicalize();
    let manifest = format!(
        "[package]\nname = \"twin\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\noutboard-device = {{ path = \"{}\" }}\n[workspace]\n",
        sdk.expect("the SDK is there").display()
    );
    fs::create_dir_all(dir.join("src")).expect("a folder is made");
    fs::write(dir.join("Cargo.toml"), manifest).expect("the manifest is written");
    fs::write(dir.join("src/lib.rs"), source.replace(from, to)).expect("the source is written");
    let kept = dir.join("libtwin.so");
    fs::copy(crate_in(dir, "twin"), &kept).expect("the library is copied");
    kept
}
