//! A log file that stays small: full, it becomes `NAME.log.1`, and the one before that goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file is as long as this at most; with the one before it, a log takes twice as much.
pub(super) const LEN_MAX: u64 = 1 << 20;

/// One log. Lines are appended, also to what an earlier run has left.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// `None` after an error: the next line tries again.
    open: Option<(File, u64)>,
}

impl LogFile {
    /// Opens it for its owner only.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let open = Some(append_to(&path)?);
        Ok(Self { path, open })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line, with its newline. A disk that is full costs lines, nothing else.
    pub(super) fn append(&mut self, line: &[u8]) {
        // Not told to anyone: this may be the file that it would be told to.
        if self.try_append(line).is_err() {
            self.open = None;
        }
    }

    fn try_append(&mut self, line: &[u8]) -> io::Result<()> {
        let (mut file, mut len) = match self.open.take() {
            Some(open) => open,
            None => append_to(&self.path)?,
        };
        let more = line.len() as u64;
        if len > 0 && len.saturating_add(more) > LEN_MAX {
            std::fs::rename(&self.path, older(&self.path))?;
            (file, len) = append_to(&self.path)?;
        }
        file.write_all(line)?;
        self.open = Some((file, len.saturating_add(more)));
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        // A FIFO's reader is not waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok((file, meta.len()))
}

/// What a full log is called.
pub(super) fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk0.log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut reader = OpenOptions::new();
        let reader = reader.read(true).custom_flags(libc::O_NONBLOCK);
        let _reader = reader.open(&path).unwrap();
        let why = LogFile::open(path).map(drop).unwrap_err().to_string();
        assert!(why.contains("no regular file"), "{why}");
    }

    #[test]
    fn a_log_never_takes_more_than_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk0.log");
        let mut log = LogFile::open(path.clone()).unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..5000 {
            log.append(&line);
        }
        log.append(b"the last\n");
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 2, "{files:?}");
        for file in [path.clone(), older(&path)] {
            assert!(file.metadata().unwrap().len() <= LEN_MAX, "{file:?}");
        }
        assert!(std::fs::read(&path).unwrap().ends_with(b"the last\n"));
    }

    #[test]
    fn another_run_goes_on_where_the_last_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk0.log");
        for run in ["one\n", "two\n"] {
            LogFile::open(path.clone()).unwrap().append(run.as_bytes());
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_log_that_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("vm");
        std::fs::create_dir(&inside).unwrap();
        let mut log = LogFile::open(inside.join("vmm.log")).unwrap();
        log.append(&vec![b'x'; LEN_MAX as usize]);
        std::fs::remove_dir_all(&inside).unwrap();
        log.append(b"lost\n");
        std::fs::create_dir(&inside).unwrap();
        log.append(b"kept\n");
        let kept = std::fs::read_to_string(inside.join("vmm.log")).unwrap();
        assert_eq!(kept, "kept\n");
    }
}
