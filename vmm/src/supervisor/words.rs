//! What a daemon says on its standard error: logged line by line, the last lines remembered.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::Level;

use crate::logs::{DAEMON, Log};
use crate::stderr::Stderr;

/// Lines remembered for the message about a daemon that failed.
const KEPT: usize = 20;
/// A longer line is cut here, in bytes.
const LINE_MAX: usize = 1024;
/// Lines logged within one `WINDOW`; the rest are counted.
const LOGGED: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);
/// What follows is for the person who started the VM, whatever the log level: where a console is.
const NOTICE: &str = "note: ";

/// The words of one daemon. It is distrusted: lines are cut, control characters replaced and the
/// logs are rate-limited.
#[derive(Debug)]
pub(super) struct Words {
    id: String,
    log: Option<Log>,
    lines: VecDeque<String>,
    partial: Vec<u8>,
    window: Instant,
    logged: u32,
    /// Where its console is.
    place: Option<PathBuf>,
}

impl Words {
    pub(super) fn new(id: &str, log: Option<Log>) -> Self {
        Self {
            id: id.into(),
            log,
            lines: VecDeque::new(),
            partial: Vec::new(),
            window: Instant::now(),
            logged: 0,
            place: None,
        }
    }

    /// Where its console is, as it has last had a person told.
    pub(super) fn place(&self) -> Option<&Path> {
        self.place.as_deref()
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
        self.end_window();
    }

    /// The last lines that nobody has been shown yet, and where all of them are.
    pub(super) fn last(&self) -> LastWords {
        LastWords {
            lines: self.lines.iter().cloned().collect(),
            log: self.log.as_ref().map(Log::path),
        }
    }

    /// Keeps a line of ours among the daemon's.
    pub(super) fn note(&self, line: &str) {
        if let Some(log) = &self.log {
            log.line(line);
        }
    }

    fn end_line(&mut self) {
        let line = clean(&std::mem::take(&mut self.partial));
        if line.is_empty() {
            return;
        }
        if self.show(&line) || is_noise(&line) {
            // Said once is enough.
            return;
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Says how many lines were too many, if any were.
    fn end_window(&mut self) {
        let left_out = self.logged.saturating_sub(LOGGED);
        if left_out > 0 {
            self.note(&format!("-- {left_out} more lines were left out"));
            tracing::warn!(
                target: DAEMON,
                device = self.id,
                "{left_out} more lines of the daemon were left out"
            );
        }
        self.window = Instant::now();
        self.logged = 0;
    }

    /// Logs it; whether people have seen it.
    fn show(&mut self, line: &str) -> bool {
        if self.window.elapsed() >= WINDOW {
            self.end_window();
        }
        self.logged = self.logged.saturating_add(1);
        if self.logged > LOGGED {
            return false;
        }
        self.note(line);
        if is_noise(line) {
            return true;
        }
        if let Some(notice) = line.strip_prefix(NOTICE) {
            let (told, place) = told(&self.id, notice);
            // Nobody is left to hear of it when it cannot be written.
            let _ = writeln!(Stderr, "{told}");
            self.place = place.or(self.place.take());
            return true;
        }
        let device = &self.id;
        match leveled(line) {
            (Level::ERROR, text) => {
                tracing::error!(target: DAEMON, device, "{text}");
                tracing::enabled!(target: DAEMON, Level::ERROR)
            }
            (Level::WARN, text) => {
                tracing::warn!(target: DAEMON, device, "{text}");
                tracing::enabled!(target: DAEMON, Level::WARN)
            }
            (level, text) => {
                match level {
                    Level::INFO => tracing::info!(target: DAEMON, device, "{text}"),
                    Level::DEBUG => tracing::debug!(target: DAEMON, device, "{text}"),
                    _ => tracing::trace!(target: DAEMON, device, "{text}"),
                }
                false
            }
        }
    }
}

/// The end of what a daemon has said, for the message about its own end.
///
/// Shown after such a message it begins with a semicolon, and is nothing where there is nothing to
/// tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastWords {
    /// The last lines, without those that people have seen already; 20 at most.
    pub lines: Vec<String>,
    /// The file that has all of them.
    pub log: Option<PathBuf>,
}

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(log) = &self.log {
            write!(f, "; its log is {}", log.display())?;
        }
        match (self.lines.is_empty(), &self.log) {
            (true, _) => return Ok(()),
            (false, Some(_)) => f.write_str(", its last words:")?,
            (false, None) => f.write_str("; its last words:")?,
        }
        self.lines
            .iter()
            .try_for_each(|line| write!(f, "\n    {line}"))
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

/// A notice of the daemon of device `id`, as a person is told of it, and the place of its console if that is
/// what it tells. Whatever else it says is its own word, and not ours.
fn told(id: &str, notice: &str) -> (String, Option<PathBuf>) {
    let place = notice.strip_prefix(id);
    match place.and_then(|rest| rest.strip_prefix(" is at ")) {
        Some(place) => (format!("outboard: {notice}"), Some(place.into())),
        None => (format!("outboard: device '{id}' says: {notice}"), None),
    }
}

/// What passt says whenever it is started, which explains no end of its.
fn is_noise(line: &str) -> bool {
    line.starts_with("Don't run as root. Changing to ")
        || line.starts_with("Failed to send ") && line.ends_with(" bytes to syslog")
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
        let mut words = Words::new("disk0", None);
        for n in 0..50 {
            words.push(format!("line {n}\n").as_bytes());
        }
        words.push(b"cut ");
        words.push(b"in two");
        words.finish();
        let last = words.last().lines;
        assert_eq!(last.len(), KEPT);
        assert_eq!(last.first().map(String::as_str), Some("line 31"));
        assert!(last.ends_with(&["line 49".into(), "cut in two".into()]));
    }

    #[test]
    fn what_passt_says_whatever_happens_is_no_last_word() {
        let mut words = Words::new("net0: passt", None);
        words
            .push(b"Failed to send 47 bytes to syslog\nDon't run as root. Changing to nobody...\n");
        words.push(b"Failed to bind any port for '-t 1:22', exiting\n");
        assert_eq!(
            words.last().lines,
            ["Failed to bind any port for '-t 1:22', exiting"]
        );
    }

    #[test]
    fn a_hostile_daemon_fills_neither_memory_nor_terminal() {
        let mut words = Words::new("disk0", None);
        words.push(&vec![b'x'; 1 << 20]);
        words.push(b"\n\x1b[2Jboo\xff\n");
        let lines = words.last().lines;
        assert_eq!(lines[0].len(), LINE_MAX);
        assert_eq!(lines[1], "\u{fffd}[2Jboo\u{fffd}");
    }

    #[test]
    fn a_hostile_daemon_fills_no_disk() {
        let folder = tempfile::tempdir().unwrap();
        let logs = crate::logs::Logs::open(folder.path()).unwrap();
        for (id, line) in [
            ("disk0", "gibberish\n"),
            ("net0", "Failed to send 1 bytes to syslog\n"),
            ("net1", "Don't run as root. Changing to nobody\n"),
        ] {
            let mut words = Words::new(id, logs.log(id));
            for _ in 0..100_000 {
                words.push(line.as_bytes());
            }
            let log = std::fs::read_to_string(folder.path().join(format!("{id}.log"))).unwrap();
            let lines = log.lines().count();
            words.finish();
            let log = std::fs::read_to_string(folder.path().join(format!("{id}.log"))).unwrap();
            let more = log
                .lines()
                .last()
                .is_some_and(|line| line.ends_with("more lines were left out"));
            assert!(more, "what is missing at the end is told, too");
            // As many as are let through in the seconds that this takes.
            assert!((100..10_000).contains(&lines), "{id}: {lines}");
        }
    }

    #[test]
    fn a_daemon_tells_where_its_own_console_is_and_nothing_in_our_name() {
        let mut words = Words::new("console0", None);
        words.push(b"note: console0 is at /dev/pts/7\n");
        words.push(b"note: ttyS0 is at /tmp/trap\nnote: give me your password\n");
        assert_eq!(words.place(), Some(Path::new("/dev/pts/7")));
        let says = |notice| told("console0", notice).0;
        assert_eq!(
            says("console0 is at /dev/pts/7"),
            "outboard: console0 is at /dev/pts/7"
        );
        assert_eq!(
            says("ttyS0 is at /tmp/trap"),
            "outboard: device 'console0' says: ttyS0 is at /tmp/trap"
        );
    }

    #[test]
    fn last_words_name_the_log() {
        let words = |lines: &[&str], log: Option<&str>| {
            let lines = lines.iter().map(ToString::to_string).collect();
            let log = log.map(Into::into);
            LastWords { lines, log }.to_string()
        };
        assert_eq!(words(&[], None), "");
        assert_eq!(words(&["a"], None), "; its last words:\n    a");
        assert_eq!(words(&[], Some("/l")), "; its log is /l");
        assert_eq!(
            words(&["a", "b"], Some("/l")),
            "; its log is /l, its last words:\n    a\n    b"
        );
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
