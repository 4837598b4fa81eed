//! The documents say what the programs say.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::Path;
use std::process::Command;

use outboard_tests::daemons::daemon;

#[test]
fn the_cli_reference_is_what_the_programs_print() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = [
        "outboard",
        "outboard-block",
        "outboard-net",
        "outboard-console",
        "outboard-plugin-host",
    ]
    .map(daemon);
    let output = Command::new(tests.join("cli-reference"))
        .arg(programs[0].parent().unwrap())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(output.stdout).unwrap();
    let written = std::fs::read_to_string(tests.join("../docs/cli.md")).unwrap();
    assert!(said == written, "docs/cli.md is stale; run: make docs");
}
