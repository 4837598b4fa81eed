//! What the command says, to whoever may not listen: a reader that has left, a full disk.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use outboard::stderr::Stderr;
use serde::Serialize;

/// How answers are printed.
// Its values have no documentation of their own: clap would spread out every verb's help for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Text,
    Json,
}

impl Output {
    /// The answer: `value` as JSON, or what `text` makes of it.
    pub(super) fn of<T: Serialize + ?Sized>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> serde_json::Result<String> {
        match self {
            Self::Text => Ok(text(value)),
            Self::Json => Ok(serde_json::to_string_pretty(value)? + "\n"),
        }
    }
}

/// Says a line on standard error. Where that takes nothing, nobody is left to be told.
pub(super) fn complain(line: &str) {
    let _ = writeln!(Stderr, "{line}");
}

/// Writes what was asked for to standard output, and ends with `code`. A reader that has left has read
/// all it wanted; what cannot be written for another reason is a failure.
pub(super) fn answer(text: &str, code: ExitCode) -> ExitCode {
    match print(text) {
        Ok(_) => code,
        Err(error) => {
            complain(&format!("outboard: Standard output takes nothing: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a part of an answer. Whether somebody still reads.
pub(super) fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
