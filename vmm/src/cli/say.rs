//! What the command says, to whoever may not listen: a reader that has left, a full disk.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use outboard::stderr::Stderr;

/// Says a line on standard error. Where that takes nothing, nobody is left to be told.
pub(super) fn complain(line: &str) {
    let _ = writeln!(Stderr, "{line}");
}

/// Writes what was asked for to standard output, and ends with `code`. A reader that has left has read
/// all it wanted; what cannot be written for another reason is a failure.
pub(super) fn answer(text: &str, code: ExitCode) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => code,
        Err(error) => {
            complain(&format!("outboard: Standard output takes nothing: {error}"));
            ExitCode::FAILURE
        }
    }
}
