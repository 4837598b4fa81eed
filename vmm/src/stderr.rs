//! Standard error, which may be a terminal that a console has set to raw mode: there a line feed
//! alone does not lead back to the first column.

use std::io::{self, IsTerminal, Write};

use nix::sys::termios::{OutputFlags, tcgetattr};

/// Writes to standard error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl Write for Stderr {
    /// Takes all of `bytes`, or fails.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        if is_raw(&stderr) {
            stderr.write_all(&carriage_returns(bytes))?;
        } else {
            stderr.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn is_raw(stderr: &io::StderrLock<'_>) -> bool {
    let processed =
        || Ok::<_, nix::Error>(tcgetattr(stderr)?.output_flags.contains(OutputFlags::OPOST));
    stderr.is_terminal() && processed() == Ok(false)
}

fn carriage_returns(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines
        .flat_map(|line| match line.strip_suffix(b"\n") {
            Some(text) => [text, b"\r\n"],
            None => [line, b""],
        })
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_begins_in_the_first_column() {
        assert_eq!(carriage_returns(b"a\nb\n\nc"), b"a\r\nb\r\n\r\nc");
    }
}
