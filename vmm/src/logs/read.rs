//! What was kept, read again: lines of several logs in the order of their times, and those that come.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file::older;

/// Read at once, in bytes: more than a log and the one before it hold.
const READ_MAX: u64 = 4 << 20;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When, as RFC 3339 has it, in UTC; that of the line before where the line tells none.
    pub time: String,
    /// Whose log: `vmm`, `serial` for what the guest prints on ttyS0, or a device's name.
    pub source: String,
    /// What was said.
    pub text: String,
}

/// The logs of one VM, read while it may be writing to them.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    tails: Vec<Tail>,
}

impl Reader {
    /// Of the logs in a folder; nothing is read yet.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut reader = Self {
            folder: folder.into(),
            tails: Vec::new(),
        };
        reader.look()?;
        Ok(reader)
    }

    /// The names of the logs that are there, sorted.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.tails.iter().map(|tail| tail.name.as_str())
    }

    /// What has come since the last call, at first all there is: of the logs that `wanted` chooses by
    /// name, in the order of their times. A line that is not ended yet is left for the next call.
    ///
    /// # Errors
    /// A log cannot be read.
    pub fn read(&mut self, wanted: &dyn Fn(&str) -> bool) -> io::Result<Vec<Line>> {
        self.look()?;
        let mut lines = Vec::new();
        for tail in &mut self.tails {
            if wanted(&tail.name) {
                tail.read(&mut lines)?;
            }
        }
        // Stable: lines of one log stay as they are.
        lines.sort_by(|a, b| a.time.cmp(&b.time));
        Ok(lines)
    }

    /// Takes up logs that have come meanwhile.
    fn look(&mut self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            if let Some(name) = name.filter(|_| is_log)
                && !self.tails.iter().any(|tail| tail.name == name)
            {
                self.tails.push(Tail {
                    name: name.to_owned(),
                    path: path.clone(),
                    open: None,
                    partial: Vec::new(),
                    time: String::new(),
                });
            }
        }
        self.tails.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }
}

/// One log, read to some place.
#[derive(Debug)]
struct Tail {
    name: String,
    path: PathBuf,
    /// `None` before the first reading.
    open: Option<File>,
    /// A line that is not ended.
    partial: Vec<u8>,
    /// Of the last line that told one.
    time: String,
}

impl Tail {
    fn read(&mut self, lines: &mut Vec<Line>) -> io::Result<()> {
        let before = match self.open.take() {
            Some(file) if is_at(&file, &self.path) => {
                self.take(&file, lines)?;
                self.open = Some(file);
                return Ok(());
            }
            before => before,
        };
        // First the newer one: set aside in between, it is the older one and is read as that.
        let now = open(&self.path)?;
        let before = match before {
            Some(file) => Some(file),
            None => open(&older(&self.path))?,
        };
        if let Some(file) = before {
            self.take(&file, lines)?;
        }
        if let Some(file) = now {
            self.take(&file, lines)?;
            self.open = Some(file);
        }
        Ok(())
    }

    fn take(&mut self, file: &File, lines: &mut Vec<Line>) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.partial);
        file.take(READ_MAX).read_to_end(&mut bytes)?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                self.partial = line.to_vec();
                break;
            };
            let line = String::from_utf8_lossy(line);
            let text = match timed(&line) {
                Some((time, text)) => {
                    time.clone_into(&mut self.time);
                    text
                }
                None => &line,
            };
            lines.push(Line {
                time: self.time.clone(),
                source: self.name.clone(),
                text: text.to_owned(),
            });
        }
        Ok(())
    }
}

/// The time with which a line begins, and the rest. One that goes on from the line before has none.
fn timed(line: &str) -> Option<(&str, &str)> {
    let (time, text) = line.split_once(' ')?;
    let mut bytes = time.bytes();
    let is_time = bytes.next()?.is_ascii_digit()
        && time.ends_with('Z')
        && time.contains('T')
        && bytes.all(|byte| byte.is_ascii_digit() || b"-:.TZ".contains(&byte));
    is_time.then_some((time, text.trim_start()))
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `path` still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Logs;
    use super::*;

    fn texts(reader: &mut Reader) -> Vec<String> {
        let lines = reader.read(&|_| true).unwrap();
        let texts = lines.into_iter();
        texts
            .map(|line| format!("{} {}", line.source, line.text))
            .collect()
    }

    #[test]
    fn lines_of_several_logs_come_by_their_times_and_those_that_come_later_follow() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write(
            "disk0.log",
            "2026-01-01T00:00:02.0Z two\n  goes on\n2026-01-01T00:00:04Z   four\nunended",
        );
        write("vmm.log", "2026-01-01T00:00:03.5Z three\n");
        write("vmm.log.1", "2026-01-01T00:00:01Z one\n");
        let mut reader = Reader::open(folder.path()).unwrap();
        assert_eq!(reader.sources().collect::<Vec<_>>(), ["disk0", "vmm"]);
        let expected = [
            "vmm one",
            "disk0 two",
            "disk0   goes on",
            "vmm three",
            "disk0 four",
        ];
        assert_eq!(texts(&mut reader), expected);
        assert!(texts(&mut reader).is_empty());
        let mut disk = File::options()
            .append(true)
            .open(folder.path().join("disk0.log"))
            .unwrap();
        io::Write::write_all(&mut disk, b" now it is\n").unwrap();
        write("net0.log", "2026-01-01T00:00:01Z new\n");
        assert_eq!(texts(&mut reader), ["net0 new", "disk0 unended now it is"]);
    }

    #[test]
    fn a_log_that_is_set_aside_meanwhile_loses_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(folder.path()).unwrap();
        let log = logs.log("disk0").unwrap();
        let mut reader = Reader::open(folder.path()).unwrap();
        let mut read = Vec::new();
        // A little more than three files' worth, read in each file at least once.
        for n in 0..50_000 {
            log.line(&format!("{n} {}", "x".repeat(40)));
            if n % 5000 == 0 {
                read.extend(reader.read(&|name| name == "disk0").unwrap());
            }
        }
        read.extend(reader.read(&|_| true).unwrap());
        let numbers = read.iter().filter(|line| line.source == "disk0");
        let numbers: Vec<usize> = numbers
            .map(|line| line.text.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(numbers, (0..50_000).collect::<Vec<_>>());
    }
}
