//! docs/plugins.md: its device is built as it stands there, is as short as it says, and loads. What Linux makes
//! of it is in tests/rigs/plugins, which takes the library from here.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::Path;
use std::process::Command;

use outboard_tests::daemons::daemon;
use outboard_tests::plugins::{self, root};

/// The files of the document: each is the code block behind `<!-- file: NAME -->`.
fn files() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("docs/plugins.md")).unwrap();
    text.split("<!-- file: ")
        .skip(1)
        .map(|rest| {
            let (name, rest) = rest.split_once(" -->").unwrap();
            let (_, rest) = rest.split_once("```").unwrap();
            let (_, rest) = rest.split_once('\n').unwrap();
            let (block, _) = rest.split_once("\n```").unwrap();
            (name.to_owned(), format!("{block}\n"))
        })
        .collect()
}

#[test]
fn the_tutorials_device_is_short_builds_and_loads() {
    let files = files();
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Cargo.toml", "src/lib.rs"]);
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
    let count: usize = files.iter().map(|(_, text)| lines(text)).sum();
    assert!(count < 50, "{count} lines");

    let dir = tempfile::tempdir().unwrap();
    let sdk = root().join("device-sdk").canonicalize().unwrap();
    for (name, text) in &files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = text.replace("/usr/src/outboard/device-sdk", sdk.to_str().unwrap());
        fs::write(path, text).unwrap();
    }
    let library = plugins::crate_in(dir.path(), "chorus");
    let target = library.ancestors().nth(2).unwrap();
    let kept = target.join("tutorial/libchorus.so");
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::copy(&library, &kept).unwrap();
    loads(&kept);
}

fn loads(library: &Path) {
    let output = Command::new(daemon("outboard"))
        .args(["plugin", "inspect"])
        .arg(library)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("chorus: Says the same again and again (virtio device 4"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
