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

/// Lines that are to be copied may not break, where whoever reads them has 80 columns. The verbs of
/// `outboard` see to it themselves.
#[test]
fn the_examples_of_daemons_fit_a_terminal() {
    let mut count = 0;
    for (program, verb) in [
        ("outboard-block", None),
        ("outboard-net", None),
        ("outboard-net", Some("switch")),
        ("outboard-console", None),
        ("outboard-plugin-host", None),
        ("outboard-bench", None),
    ] {
        let help = |columns: &str| {
            let output = Command::new(daemon(program))
                .args(verb)
                .arg("--help")
                .env("COLUMNS", columns)
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let start = text.find("\nExample").unwrap();
            text.split_at(start).1.to_owned()
        };
        let examples = help("100");
        assert_eq!(help("78"), examples, "{program}");
        count += examples
            .lines()
            .filter(|line| line.contains(program))
            .count();
    }
    assert!(count > 10, "{count}");
}
