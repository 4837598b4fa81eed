//! What a VM and its daemons say, kept in files that outlive the VM.
//!
//! A VM has a folder of its own: `vmm.log` is the VMM's, `DEVICE.log` that of the device's daemon,
//! `serial.log` what the guest prints on ttyS0. Files hold what is said at `info` and above, or more
//! when `--log-level` asks for more, and their size is bounded. Nothing else of a VM is left when it
//! has ended.

mod file;
mod read;
mod setup;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::places::Place;
use file::LogFile;
pub use read::{Line, Reader};
pub(crate) use setup::{DAEMON, daemon_filter};
pub use setup::{note, start};

/// Where the logs of the VM of this name are kept by default; `None` for a user who has no home.
pub fn folder(name: &str) -> Option<PathBuf> {
    Place::Logs.folder().map(|base| base.join(name))
}

/// The VMM's own log.
const VMM: &str = "vmm";

/// What the guest prints on ttyS0.
pub(crate) const SERIAL: &str = "serial";

/// The logs of one VM; clones are the same. The default keeps none.
#[derive(Debug, Clone, Default)]
pub struct Logs(Option<Arc<Folder>>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Those that somebody writes to, by name: two who ask for one share it.
    files: Mutex<BTreeMap<String, Weak<Mutex<LogFile>>>>,
    /// Locked for as long as the VM runs, so that no other of its name writes here.
    _lock: File,
}

impl Logs {
    /// Makes the folder, for its owner only, and begins the VMM's log. One that another VM of this
    /// name uses is left to it: then nothing is kept.
    ///
    /// # Errors
    /// The folder or the file cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        let folder = File::open(path)?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!(
                    path = %path.display(),
                    "Another VM of this name keeps its logs; those of this one are not kept"
                );
                return Ok(Self(None));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let logs = Self(Some(Arc::new(Folder {
            path: path.to_owned(),
            files: Mutex::default(),
            _lock: folder,
        })));
        let own = logs.try_log(VMM)?;
        setup::keep_in(own);
        Ok(logs)
    }

    /// The log called `name`; letters, digits, `-`, `_` and `.` of it make the file's name. `None`
    /// where nothing is kept, or this log cannot be.
    pub(crate) fn log(&self, name: &str) -> Option<Log> {
        match self.try_log(name) {
            Ok(log) => log,
            Err(error) => {
                tracing::warn!(log = name, %error, "This log is not kept");
                None
            }
        }
    }

    fn try_log(&self, name: &str) -> io::Result<Option<Log>> {
        let Some(folder) = &self.0 else {
            return Ok(None);
        };
        let name = file_name(name);
        let mut files = folder.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = files.get(&name).and_then(Weak::upgrade) {
            return Ok(Some(Log(log)));
        }
        files.retain(|_, log| log.strong_count() > 0);
        let file = LogFile::open(folder.path.join(format!("{name}.log")))?;
        let log = Log(Arc::new(Mutex::new(file)));
        files.insert(name, Arc::downgrade(&log.0));
        Ok(Some(log))
    }
}

/// `net0: passt` is `net0-passt`.
fn file_name(name: &str) -> String {
    let words = name.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-")
}

/// Lines for a log, each behind its time, that are written in one piece.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Adds a line. `text` has no newline.
    pub(crate) fn line(&mut self, text: &str) {
        // Into a string nothing fails; without a clock the line has no time.
        let _ = SystemTime.format_time(&mut Writer::new(&mut self.0));
        self.0.push(' ');
        self.0.push_str(text);
        self.0.push('\n');
    }
}

/// One log; clones write to the same file.
#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<LogFile>>);

impl Log {
    /// Appends a line, behind the time. `text` has no newline.
    pub(crate) fn line(&self, text: &str) {
        let mut page = Page::default();
        page.line(text);
        self.page(&mut page);
    }

    /// Appends lines, which the page has no longer.
    pub(crate) fn page(&self, page: &mut Page) {
        if !page.0.is_empty() {
            self.raw(page.0.as_bytes());
            page.0.clear();
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.file().path().to_owned()
    }

    fn raw(&self, line: &[u8]) {
        self.file().append(line);
    }

    fn file(&self) -> std::sync::MutexGuard<'_, LogFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(&folder.path().join("a/vm")).unwrap();
        for name in ["disk0", "net0: passt", "disk0"] {
            logs.log(name).unwrap().line("hello");
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join("a/vm").join(name));
        let disk = read("disk0.log").unwrap();
        assert_eq!(disk.matches(" hello\n").count(), 2, "{disk}");
        assert!(disk.starts_with("20"), "the time comes first: {disk}");
        assert!(read("net0-passt.log").unwrap().ends_with(" hello\n"));
    }

    #[test]
    fn a_log_that_nobody_writes_to_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(folder.path()).unwrap();
        let disk = logs.log("disk0").unwrap();
        assert!(Arc::ptr_eq(&disk.0, &logs.log("disk0").unwrap().0));
        let gone = Arc::downgrade(&logs.log("disk1").unwrap().0);
        assert!(gone.upgrade().is_none());
        logs.log("disk2").unwrap();
        let files = logs.0.as_ref().unwrap().files.lock().unwrap();
        assert!(files.contains_key("disk0") && !files.contains_key("disk1"));
    }

    #[test]
    fn two_vms_of_one_name_do_not_write_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let first = Logs::open(folder.path()).unwrap();
        let second = Logs::open(folder.path()).unwrap();
        assert!(first.log("disk0").is_some() && second.log("disk0").is_none());
        drop(first);
        assert!(Logs::open(folder.path()).unwrap().log("disk0").is_some());
    }
}
