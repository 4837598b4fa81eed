//! What the guest prints, line by line, for a log.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

use crate::logs::Log;

/// How much output waits for the port's thread to write it down, in bytes; what is older is dropped.
const WAITS_MAX: usize = 64 << 10;
/// A longer line is cut into several.
const LINE_MAX: usize = 1024;
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

/// Writes it down. Dropped, it writes what is left of a line.
pub(super) struct Transcript {
    log: Log,
    line: Vec<u8>,
}

impl Transcript {
    pub(super) fn new(log: Log) -> Self {
        Self {
            log,
            line: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, bytes: VecDeque<u8>) {
        for byte in bytes {
            if byte == b'\n' || self.line.len() >= LINE_MAX {
                self.end_line();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.log.line(&plain(&line));
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
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
    fn nothing_grows_without_end() {
        let mut printed = Printed::default();
        for _ in 0..100 {
            printed.push(&[b'x'; 1000]);
        }
        assert_eq!(printed.take().len(), WAITS_MAX);
    }
}
