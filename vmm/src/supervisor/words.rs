//! What a daemon says on its standard error: logged line by line, the last lines kept.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use tracing::Level;

use crate::stderr::Stderr;

/// Lines kept for the message about a daemon that failed.
const KEPT: usize = 20;
/// A longer line is cut here, in bytes.
const LINE_MAX: usize = 1024;
/// Lines logged within one `WINDOW`; the rest are counted.
const LOGGED: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);
/// What follows is for the person who started the VM, whatever the log level: where a console is.
const NOTICE: &str = "note: ";

/// The words of one daemon. It is distrusted: lines are cut, control characters replaced and the
/// log is rate-limited.
#[derive(Debug)]
pub(super) struct Words {
    id: String,
    lines: VecDeque<String>,
    partial: Vec<u8>,
    window: Instant,
    logged: u32,
}

impl Words {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            lines: VecDeque::new(),
            partial: Vec::new(),
            window: Instant::now(),
            logged: 0,
        }
    }

    /// Takes bytes as they were read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = LINE_MAX.saturating_sub(self.partial.len());
            self.partial.extend(text.iter().take(room));
            if ended {
                self.end_line();
            }
        }
    }

    /// The daemon has ended: what has no newline is a line too.
    pub(super) fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.end_line();
        }
    }

    /// The last lines, joined by newlines.
    pub(super) fn last(&self) -> String {
        self.lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn end_line(&mut self) {
        let line = clean(&std::mem::take(&mut self.partial));
        if line.is_empty() {
            return;
        }
        if self.log(&line) {
            // Said once is enough.
            return;
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Whether people have seen it.
    fn log(&mut self, line: &str) -> bool {
        if self.window.elapsed() >= WINDOW {
            let left_out = self.logged.saturating_sub(LOGGED);
            if left_out > 0 {
                tracing::warn!(
                    device = self.id,
                    "{left_out} more lines of the daemon were left out"
                );
            }
            self.window = Instant::now();
            self.logged = 0;
        }
        self.logged = self.logged.saturating_add(1);
        if self.logged > LOGGED {
            return false;
        }
        if let Some(notice) = line.strip_prefix(NOTICE) {
            // Nobody is left to hear of it when it cannot be written.
            let _ = writeln!(Stderr, "outboard: {notice}");
            return true;
        }
        let device = &self.id;
        match leveled(line) {
            (Level::ERROR, text) => {
                tracing::error!(device, "{text}");
                tracing::enabled!(Level::ERROR)
            }
            (Level::WARN, text) => {
                tracing::warn!(device, "{text}");
                tracing::enabled!(Level::WARN)
            }
            (level, text) => {
                match level {
                    Level::INFO => tracing::info!(device, "{text}"),
                    Level::DEBUG => tracing::debug!(device, "{text}"),
                    _ => tracing::trace!(device, "{text}"),
                }
                false
            }
        }
    }
}

/// The level with which a line of a daemon's log begins, and the rest. What does not come from the
/// log is for those who ask for more: whoever tells of the daemon's end quotes its last lines.
fn leveled(line: &str) -> (Level, &str) {
    let line = line.trim_start();
    let rest = line.split_once(' ').and_then(|(word, text)| {
        // By name only: `Level` also reads numbers.
        let known = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&word);
        Some((word.parse().ok().filter(|_| known)?, text))
    });
    rest.unwrap_or((Level::INFO, line))
}

/// Text that cannot move the cursor of the terminal it is shown on.
fn clean(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim_end()
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let mut words = Words::new("disk0");
        for n in 0..50 {
            words.push(format!("line {n}\n").as_bytes());
        }
        words.push(b"cut ");
        words.push(b"in two");
        words.finish();
        let last = words.last();
        assert_eq!(last.lines().count(), KEPT);
        assert!(
            last.starts_with("line 31\n") && last.ends_with("line 49\ncut in two"),
            "{last}"
        );
    }

    #[test]
    fn a_hostile_daemon_fills_neither_memory_nor_terminal() {
        let mut words = Words::new("disk0");
        words.push(&vec![b'x'; 1 << 20]);
        words.push(b"\n\x1b[2Jboo\xff\n");
        let last = words.last();
        let mut lines = last.lines();
        assert_eq!(lines.next().map(str::len), Some(LINE_MAX));
        assert_eq!(lines.next(), Some("\u{fffd}[2Jboo\u{fffd}"));
    }

    #[test]
    fn a_line_of_a_log_has_its_own_level() {
        assert_eq!(leveled("ERROR it broke"), (Level::ERROR, "it broke"));
        assert_eq!(leveled(" WARN slow host=a"), (Level::WARN, "slow host=a"));
        assert_eq!(leveled("DEBUG x"), (Level::DEBUG, "x"));
        for line in ["error: cannot open disk.img", "1 more", "WARN"] {
            assert_eq!(leveled(line), (Level::INFO, line));
        }
    }
}
