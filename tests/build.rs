//! Builds the bare-metal guest: a static image without a system, by rustc alone, because it wants
//! `panic=abort` and a linker script where everything else in the workspace does not.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("payload");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    // Of tests/ itself, and of tests/bench/.
    let below = manifest.join("payload");
    let payload = if below.is_dir() {
        below
    } else {
        manifest.join("../payload")
    };
    println!("cargo::rerun-if-changed={}", payload.display());
    let script = payload.join("link.ld");
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "bin",
            "--crate-name",
            "payload",
        ])
        .args([
            "-C",
            "opt-level=2",
            "-C",
            "panic=abort",
            "-C",
            "relocation-model=static",
            "-C",
            "strip=debuginfo",
        ])
        .args([
            "-C",
            "link-arg=-nostdlib",
            "-C",
            "link-arg=-nostartfiles",
            "-C",
            "link-arg=-static",
            "-C",
            "link-arg=-no-pie",
        ])
        .args(["-C", "link-arg=-Wl,--build-id=none"])
        .arg(format!("-Clink-arg=-Wl,-T,{}", script.display()))
        .arg("-o")
        .arg(&out)
        .arg(payload.join("main.rs"));
    match rustc.status() {
        Ok(status) if status.success() => println!("cargo::rustc-env=PAYLOAD={}", out.display()),
        _ => {
            println!(
                "cargo::error=the bare-metal guest in tests/payload does not build: see above"
            );
        }
    }
}
