//! Two backends by turns, and what is made of their figures.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use outboard_bench::record::{self, Record};

fn bench(folder: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outboard-bench"))
        .args(arguments.split_whitespace())
        .env("TMPDIR", folder)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn what_is_compared_is_kept_and_shown_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["one", "two"] {
        let description = format!(
            "name = '{name}'\npath = 'null'\nspawn = 'outboard-bench serve-null --socket {{socket}}'\n\
             [sweep]\ndepth = [1, 8]\n"
        );
        fs::write(folder.join(format!("{name}.toml")), description).unwrap();
    }
    let times = "--seconds 0.05 --warmup 0.02 --rounds 3";
    let output = bench(
        folder,
        &format!("compare one.toml two.toml {times} --wait sleep --depth 1,4 --json all.jsonl"),
    );
    assert!(output.status.success(), "{}", words(&output));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("one is") && shown.contains("75.0% confidence"),
        "{shown}"
    );
    assert!(shown.contains("eventfd round trip"), "{shown}");
    let records = record::read::<Record>(&folder.join("all.jsonl")).unwrap();
    let of = |subject: &str| {
        records
            .iter()
            .filter(|record| record.subject == subject)
            .count()
    };
    // Three rounds of two cases; the floors of a sleeper say something of depth 1 only.
    assert_eq!((of("one"), of("two")), (6, 6));
    assert_eq!((of("eventfd round trip"), of("polling echo")), (3, 3));

    let table = bench(folder, "table all.jsonl");
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.lines().count() == 7 && table.lines().all(|line| shown.contains(line)),
        "{table}\n{shown}"
    );
    assert!(
        bench(folder, "report all.jsonl -o page.html")
            .status
            .success()
    );
    let page = fs::read_to_string(folder.join("page.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("eventfd round trip"));

    let stale = "# Speed\n<!-- outboard-bench: all.jsonl -->\n<!-- outboard-bench end -->\n";
    fs::write(folder.join("doc.md"), stale).unwrap();
    let check = bench(folder, "docs --check doc.md");
    assert!(
        !check.status.success() && words(&check).contains("stale"),
        "{}",
        words(&check)
    );
    assert!(bench(folder, "docs doc.md").status.success());
    assert!(bench(folder, "docs --check doc.md").status.success());
    assert!(
        fs::read_to_string(folder.join("doc.md"))
            .unwrap()
            .contains("| two ")
    );
}

#[test]
fn what_cannot_be_compared_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(
        folder.join("a.toml"),
        "name = 'a'\npath = 'null'\nsocket = 's'\n",
    )
    .unwrap();
    fs::write(
        folder.join("b.toml"),
        "name = 'b'\npath = 'block'\nsocket = 's'\n",
    )
    .unwrap();
    fs::write(folder.join("c.toml"), "name = 'c'\nkind = 'null'\n").unwrap();
    for (files, wanted) in [
        ("a.toml b.toml", "different kinds"),
        ("a.toml c.toml", "c.toml: "),
        ("d.toml", "cannot read d.toml"),
        ("a.toml", "cannot connect to s"),
    ] {
        let output = bench(folder, &format!("compare {files} --json x.jsonl"));
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        assert!(
            words(&output).contains(wanted),
            "{files}: {}",
            words(&output)
        );
    }
}
