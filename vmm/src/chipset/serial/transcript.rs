//! What the guest prints, line by line, for a log.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::logs::{Log, Page};

/// How much output waits for the port's thread to write it down, in bytes; what is older is dropped.
const WAITS_MAX: usize = 64 << 10;
/// A longer line is cut into several.
const LINE_MAX: usize = 1024;
/// Lines written down within one `WINDOW`; the rest are counted.
const WRITTEN: u32 = 2000;
const WINDOW: Duration = Duration::from_secs(1);
const ESCAPE: u8 = 0x1b;

/// What waits to be written down. Filled by vCPUs, which never wait for a disk.
#[derive(Debug, Default)]
pub(super) struct Printed(VecDeque<u8>);

impl Printed {
    /// Keeps output. Whether it is time to write some down.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let before = self.0.len();
        for byte in bytes {
            if self.0.len() >= WAITS_MAX {
                self.0.pop_front();
            }
            self.0.push_back(*byte);
        }
        bytes.contains(&b'\n') || before / LINE_MAX != self.0.len() / LINE_MAX
    }

    pub(super) fn take(&mut self) -> VecDeque<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Writes it down, not faster than a person could want it. Dropped, it writes what is left of a line.
pub(super) struct Transcript {
    log: Log,
    line: Vec<u8>,
    /// Lines that go to the log in one piece.
    page: Page,
    window: Instant,
    /// Lines that have come in this window, written down or not.
    came: u32,
}

impl Transcript {
    pub(super) fn new(log: Log) -> Self {
        Self {
            log,
            line: Vec::new(),
            page: Page::default(),
            window: Instant::now(),
            came: 0,
        }
    }

    pub(super) fn write(&mut self, bytes: VecDeque<u8>) {
        self.write_at(bytes, Instant::now());
    }

    /// What comes in one piece is of one moment, and is one write.
    fn write_at(&mut self, bytes: VecDeque<u8>, now: Instant) {
        if now.saturating_duration_since(self.window) >= WINDOW {
            self.end_window();
            self.window = now;
        }
        for byte in bytes {
            if byte == b'\n' || self.line.len() >= LINE_MAX {
                self.end_line();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        self.log.page(&mut self.page);
    }

    fn end_line(&mut self) {
        self.came = self.came.saturating_add(1);
        if self.came <= WRITTEN {
            self.page.line(&plain(&self.line));
        }
        self.line.clear();
    }

    fn end_window(&mut self) {
        let left_out = self.came.saturating_sub(WRITTEN);
        if left_out > 0 {
            self.page
                .line(&format!("-- {left_out} more lines were left out"));
        }
        self.came = 0;
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.end_window();
        self.log.page(&mut self.page);
    }
}

/// A line as a log may show it on any terminal: without control characters, and without the escape
/// sequences that set colours and move the cursor (ECMA-48, 5.4).
fn plain(line: &[u8]) -> String {
    let mut plain = Vec::new();
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            // Two bytes, or as many as there are to its final one.
            ESCAPE => {
                let _ = bytes
                    .next()
                    .filter(|byte| *byte == b'[')
                    .and_then(|_| bytes.find(|byte| (0x40..=0x7e).contains(byte)));
            }
            b'\t' | b' '.. if byte != 0x7f => plain.push(byte),
            _ => {}
        }
    }
    // C1 controls are two bytes in UTF-8.
    let text = String::from_utf8_lossy(&plain);
    text.chars()
        .filter(|c| *c == '\t' || !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Logs;

    #[test]
    fn a_line_is_plain_text() {
        let line = "\u{1b}[1;31mred\u{1b}[0m\ttab \u{7}\u{9b}31m\u{1b}7é\r";
        assert_eq!(plain(line.as_bytes()), "red\ttab 31mé");
        assert_eq!(plain(b"\x1b["), "");
    }

    #[test]
    fn lines_are_written_down_as_they_end_and_the_last_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let log = Logs::open(folder.path()).unwrap().log("serial").unwrap();
        let mut transcript = Transcript::new(log);
        let mut printed = Printed::default();
        assert!(!printed.push(b"on"));
        assert!(printed.push(b"e\r\ntwo\nlog"));
        transcript.write(printed.take());
        let read = || std::fs::read_to_string(folder.path().join("serial.log")).unwrap();
        assert_eq!(read().lines().count(), 2);
        printed.push(b"in: ");
        transcript.write(printed.take());
        drop(transcript);
        let texts: Vec<_> = read()
            .lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect();
        assert_eq!(texts, ["one", "two", "login: "]);
    }

    #[test]
    fn a_guest_that_writes_without_end_fills_no_disk() {
        let folder = tempfile::tempdir().unwrap();
        let log = Logs::open(folder.path()).unwrap().log("serial").unwrap();
        let mut transcript = Transcript::new(log);
        let begin = Instant::now();
        let flood = || VecDeque::from(b"gibberish\n".repeat(1000));
        for _ in 0..50 {
            transcript.write_at(flood(), begin);
        }
        transcript.write_at(VecDeque::from(*b"calm\n"), begin + WINDOW);
        drop(transcript);
        let log = std::fs::read_to_string(folder.path().join("serial.log")).unwrap();
        let lines: Vec<_> = log
            .lines()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect();
        assert_eq!(lines.len(), 2002);
        assert_eq!(lines[2000..], ["-- 48000 more lines were left out", "calm"]);
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut printed = Printed::default();
        for _ in 0..100 {
            printed.push(&[b'x'; 1000]);
        }
        assert_eq!(printed.take().len(), WAITS_MAX);
    }
}
