//! What the guest prints, line by line, for a log.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::logs::{Log, Page};

/// How much is read at a time.
const PIECE: usize = 16 << 10;
/// A longer line is cut into several.
const LINE_MAX: usize = 1024;
/// Lines written down within one `WINDOW`; the rest are counted.
const WRITTEN: u32 = 2000;
const WINDOW: Duration = Duration::from_secs(1);
const ESCAPE: u8 = 0x1b;

/// The thread that writes down what comes over a stream. Dropped, it writes down what has come, and ends.
pub(in crate::vm) struct Transcript {
    ours: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Transcript {
    /// Begins one, and returns the end of the stream that is written to.
    pub(super) fn begin(log: Log) -> io::Result<(UnixStream, Self)> {
        let (ours, theirs) = UnixStream::pair()?;
        let stream = ours.try_clone()?;
        let run = move || take_down(stream, Writer::new(log));
        let thread = Builder::new().name("ttyS0-log".into()).spawn(run)?;
        let thread = Some(thread);
        Ok((theirs, Self { ours, thread }))
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        // Whoever writes may still be there: a device that a vCPU is stuck in.
        let _ = self.ours.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been reported by its hook.
            let _ = thread.join();
        }
    }
}

fn take_down(mut stream: UnixStream, mut writer: Writer) {
    let mut bytes = vec![0; PIECE];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => writer.write(bytes.get(..count).unwrap_or_default(), Instant::now()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Writes it down, not faster than a person could want it. Dropped, it writes what is left of a line.
struct Writer {
    log: Log,
    line: Vec<u8>,
    /// Lines that go to the log in one piece.
    page: Page,
    window: Instant,
    /// Lines that have come in this window, written down or not.
    came: u32,
}

impl Writer {
    fn new(log: Log) -> Self {
        Self {
            log,
            line: Vec::new(),
            page: Page::default(),
            window: Instant::now(),
            came: 0,
        }
    }

    /// What comes in one piece is of one moment, and is one write.
    fn write(&mut self, bytes: &[u8], now: Instant) {
        if now.saturating_duration_since(self.window) >= WINDOW {
            self.end_window();
            self.window = now;
        }
        for &byte in bytes {
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

impl Drop for Writer {
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
    use std::io::Write;

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
        let read = || std::fs::read_to_string(folder.path().join("serial.log")).unwrap();
        let (mut stream, transcript) = Transcript::begin(log).unwrap();
        stream.write_all(b"on").unwrap();
        stream.write_all(b"e\r\ntwo\nlog").unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while read().lines().count() < 2 {
            assert!(Instant::now() < end, "{}", read());
            std::thread::yield_now();
        }
        stream.write_all(b"in: ").unwrap();
        // Not ended: what writes may be stuck.
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
        let mut writer = Writer::new(log);
        let begin = Instant::now();
        for _ in 0..50 {
            writer.write(&b"gibberish\n".repeat(1000), begin);
        }
        writer.write(b"calm\n", begin + WINDOW);
        drop(writer);
        let log = std::fs::read_to_string(folder.path().join("serial.log")).unwrap();
        let lines: Vec<_> = log
            .lines()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect();
        assert_eq!(lines.len(), 2002);
        assert_eq!(lines[2000..], ["-- 48000 more lines were left out", "calm"]);
    }
}
