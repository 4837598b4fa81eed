//! docs/plugins.md and `outboard device new`, which writes what stands there: it builds, is as short as README says,
//! and loads. What Linux makes of it is in tests/rigs/plugins, which takes the library from here.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::Path;
use std::process::Command;

use outboard_tests::daemons::daemon;
use outboard_tests::plugins::{self, root};

/// `outboard device new` in this folder; what it says.
fn new(dir: &Path, words: &[&str]) -> (bool, String) {
    let output = Command::new(daemon("outboard"))
        .current_dir(dir)
        .args(["device", "new"])
        .args(words)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn the_tutorials_device_is_short_builds_and_loads() {
    let document = fs::read_to_string(root().join("docs/plugins.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (fine, said) = new(dir.path(), &["chorus"]);
    assert!(
        fine && said.contains("inspect target/release/libchorus.so"),
        "{said}"
    );
    let folder = dir.path().join("chorus");
    let sdk = root().join("device-sdk").canonicalize().unwrap();
    let mut count = 0;
    for file in ["Cargo.toml", "src/lib.rs"] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let text = text.replace(sdk.to_str().unwrap(), "/usr/src/outboard/device-sdk");
        // As it stands there.
        assert!(document.contains(&format!("\n{text}```\n")), "{text}");
        count += text.lines().filter(|line| !line.trim().is_empty()).count();
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let words: Vec<_> = readme.split_whitespace().collect();
    let told = format!("takes {count} lines;");
    assert!(words.join(" ").contains(&told), "README: it {told}");

    let library = plugins::crate_in(&folder, "chorus");
    let target = library.ancestors().nth(2).unwrap();
    let kept = target.join("tutorial/libchorus.so");
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::copy(&library, &kept).unwrap();
    loads(
        &kept,
        "chorus: Says the same again and again (virtio device 4",
    );
}

#[test]
fn a_new_device_has_its_own_name_in_either_language() {
    let dir = tempfile::tempdir().unwrap();
    let sdk = root().join("device-sdk");
    // An empty folder is as good as none.
    fs::create_dir(dir.path().join("two-words")).unwrap();
    let (fine, said) = new(dir.path(), &["two-words", "--sdk", sdk.to_str().unwrap()]);
    assert!(fine, "{said}");
    let library = plugins::crate_in(&dir.path().join("two-words"), "two_words");
    loads(&library, "two-words: Says the same again and again");

    let (fine, said) = new(dir.path(), &["in-c", "--lang", "c"]);
    assert!(fine && said.contains("make"), "{said}");
    let folder = dir.path().join("in-c");
    let made = Command::new("make").current_dir(&folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    loads(
        &folder.join("libin-c.so"),
        "in-c: A console that says what it is told",
    );
}

#[test]
fn a_new_device_takes_the_place_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/mine"), "mine").unwrap();
    fs::write(dir.path().join("file"), "mine").unwrap();
    for (words, why) in [
        (&["full"][..], "full is not empty"),
        (&["file"], "cannot be written"),
        (&["../up"], "'../up' is no name"),
        (&["Big"], "'Big' is no name"),
        (&["other", "--sdk", "/nowhere"], "no SDK in /nowhere"),
    ] {
        let (fine, said) = new(dir.path(), words);
        assert!(!fine && said.contains(why), "{said}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    assert_eq!(fs::read_dir(dir.path().join("full")).unwrap().count(), 1);
}

fn loads(library: &Path, what: &str) {
    let output = Command::new(daemon("outboard"))
        .args(["plugin", "inspect"])
        .arg(library)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains(what),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
