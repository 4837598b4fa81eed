//! The C header of the plugin ABI: made from its Rust source, committed, and what C compilers make of
//! it. `make header` writes it anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests fail by panicking.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use outboard_device::abi::layout;

fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../device-sdk")
}

/// The header as it has to be.
fn made() -> String {
    let sdk = sdk();
    let mut config = cbindgen::Config::from_file(sdk.join("cbindgen.toml")).unwrap();
    config.header = Some(fs::read_to_string(sdk.join("src/abi/header.txt")).unwrap());
    let mut header = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(sdk.join("src/abi/raw.rs"))
        .generate()
        .expect("the ABI's source is plain C")
        .write(&mut header);
    let header = String::from_utf8(header).unwrap();
    let end = fs::read_to_string(sdk.join("src/abi/header_end.txt")).unwrap();
    let asserts = layout::static_asserts();
    let body = header.rsplit_once("#endif").unwrap().0.trim_end();
    format!("{body}\n\n{end}{asserts}#endif\n\n#endif  /* OUTBOARD_PLUGIN_H */\n")
}

#[test]
fn the_committed_header_is_what_the_source_says() {
    let path = sdk().join("include/outboard_plugin.h");
    let made = made();
    if std::env::var_os("OUTBOARD_WRITE_HEADER").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(
        committed == made,
        "include/outboard_plugin.h is stale; run: make header"
    );
}

/// Whether the compiler takes a file that includes this header.
fn compiles(compiler: &[&str], header: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("outboard_plugin.h"), header).unwrap();
    let file = dir.path().join("plugin.c");
    fs::write(&file, "#include \"outboard_plugin.h\"\n").unwrap();
    let output = Command::new(compiler[0])
        .args(&compiler[1..])
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"])
        .arg(&file)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn c_and_cpp_take_the_header_and_notice_when_a_field_moves() {
    let header = fs::read_to_string(sdk().join("include/outboard_plugin.h")).unwrap();
    let compilers: [&[&str]; 3] = [
        &["gcc", "-std=c11"],
        &["clang", "-std=c11"],
        &["g++", "-x", "c++", "-std=c++17"],
    ];
    for compiler in compilers {
        compiles(compiler, &header).unwrap_or_else(|why| panic!("{compiler:?}: {why}"));
    }
    // Two fields exchanged.
    let moved = header.replacen("uint32_t abi_minor;", "uint64_t abi_minor;", 1);
    assert_ne!(moved, header);
    for compiler in &compilers[..2] {
        let why = compiles(compiler, &moved).unwrap_err();
        assert!(why.contains("OutboardHost."), "{why}");
    }
}
