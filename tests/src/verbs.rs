//! Verbs of `outboard`, as a person types them at another terminal.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // a test fails by panicking

use std::process::{Command, Output};

use serde_json::Value;

use crate::daemons::daemon;
use crate::traces::Home;

/// `outboard WORDS`, not started yet.
pub fn verb(home: &Home, words: &[&str]) -> Command {
    let mut verb = Command::new(daemon("outboard"));
    verb.args(words);
    home.adopt(&mut verb);
    verb
}

/// Runs it to its end.
pub fn outboard(home: &Home, words: &[&str]) -> Output {
    verb(home, words).output().unwrap()
}

/// What it answers.
pub fn succeed(home: &Home, words: &[&str]) -> String {
    let output = outboard(home, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it fails with.
pub fn refused(home: &Home, words: &[&str]) -> String {
    let output = outboard(home, words);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("outboard: "), "{said}");
    said
}

/// What `outboard info` tells programs.
pub fn info(home: &Home, name: &str) -> Value {
    serde_json::from_str(&succeed(home, &["info", name, "--output", "json"])).unwrap()
}
