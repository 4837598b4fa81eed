//! Bad input, judged: one message that names the thing and the remedy, the documented exit code, and
//! nothing left behind.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc
)] // a test fails by panicking

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::daemons::daemon;
use crate::guest::{disk, payload};
use crate::traces::Home;

/// The exit code of what is bad at start; see `outboard --help`.
pub const FAILED: i32 = 1;
/// Of what is bad on the command line.
pub const USAGE: i32 = 2;

/// A folder with a good kernel and a good disk.
pub fn home() -> Home {
    for program in ["outboard-block", "outboard-net", "outboard-console"] {
        daemon(program);
    }
    let home = Home::new();
    fs::copy(payload(), home.path().join("kernel")).unwrap();
    disk(home.path(), "disk.img", 16);
    home
}

/// Runs it without a terminal, to its end.
pub fn output(home: &Home, mut command: Command) -> Output {
    home.adopt(&mut command);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Asserts that a command is refused as it should be, see [`judge`].
#[track_caller]
pub fn refused(home: &Home, command: Command, code: i32, parts: &[&str]) {
    let verdict = judge(home, command, code, parts, Duration::from_secs(20));
    assert_eq!(verdict, Ok(()));
}

/// The exit code, each part of the message, that the first part stands there once, that nothing else is
/// said twice, and that nothing is left after a while.
pub fn judge(
    home: &Home,
    command: Command,
    code: i32,
    parts: &[&str],
    clean_within: Duration,
) -> Result<(), String> {
    let asked = format!("{command:?}");
    let output = output(home, command);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(code) {
        return Err(format!("{asked}: {}: {said}", output.status));
    }
    if let Some(part) = parts.iter().find(|part| !said.contains(**part)) {
        return Err(format!("{asked}: no '{part}' in: {said}"));
    }
    if said.matches(parts[0]).count() != 1 || said.contains("panicked") {
        return Err(format!("{asked}: not told once: {said}"));
    }
    if let Some(twice) = said_twice(&said) {
        return Err(format!("{asked}: '{twice}' is told twice: {said}"));
    }
    match home.left_after(clean_within) {
        Some(left) => Err(format!("{asked}: left behind: {left}")),
        None => Ok(()),
    }
}

/// Five words in a row that come again: a message whose cause repeats it.
fn said_twice(said: &str) -> Option<String> {
    let words = said.split_whitespace();
    let words: Vec<&str> = words
        .map(|word| word.trim_end_matches([',', ':', ';']))
        .collect();
    let mut rows = words.windows(5).enumerate();
    let twice = rows.find(|(at, row)| words[at + 1..].windows(5).any(|later| later == *row));
    twice.map(|(_, row)| row.join(" "))
}

/// `outboard run` with a good kernel.
pub fn run(args: &[&str]) -> Command {
    let mut run = Command::new(daemon("outboard"));
    run.args(["run", "--kernel", "kernel", "--serial", "off"]);
    run.args(["--memory", "64M"]).args(args);
    run
}
