//! The built daemons.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The packages this test program has built.
static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The program of a package that has one of the same name: `outboard-block`, say.
///
/// Where `OUTBOARD_BIN_DIR` is set it is taken from there as it is. Else it is built, once for each
/// test program, in the profile and the target directory of the tests themselves.
///
/// # Panics
/// When it cannot be built: the test that needs it cannot go on.
#[allow(clippy::expect_used)] // As said: a test fails by panicking.
pub fn daemon(package: &str) -> PathBuf {
    if let Some(dir) = env::var_os("OUTBOARD_BIN_DIR") {
        return Path::new(&dir).join(package);
    }
    // TARGET/PROFILE/deps/THIS-TEST
    let test = env::current_exe().expect("this program has a path");
    let profile_dir = test
        .ancestors()
        .nth(2)
        .expect("tests lie in TARGET/PROFILE/deps");
    let target_dir = profile_dir
        .parent()
        .expect("the profile has a directory above it");
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !built.contains(package) {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--quiet", "--package", package, "--target-dir"])
            .arg(target_dir);
        if profile_dir.ends_with("release") {
            command.arg("--release");
        }
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        let status = command.status().expect("cargo can be run");
        assert!(status.success(), "{package} cannot be built: see above");
        built.insert(package.to_owned());
    }
    profile_dir.join(package)
}
