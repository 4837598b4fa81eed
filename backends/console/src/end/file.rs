//! A file that output is appended to.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use tracing::error;

use super::EndError;
use crate::hub::{End, Event};

/// An end that only listens.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    failed: bool,
}

impl File {
    /// Opens or creates the file, for appending.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn open(path: &Path) -> Result<Self, EndError> {
        // Looked at before it is opened: opening a FIFO would wait for a reader.
        let found = path.metadata();
        if found.is_ok_and(|found| found.file_type().is_fifo()) {
            return Err(EndError::Fifo(path.into()));
        }
        let opened = fs::OpenOptions::new().append(true).create(true).open(path);
        let file = opened.map_err(|source| EndError::Path {
            what: "the file",
            path: path.into(),
            source,
        })?;
        Ok(Self {
            file,
            failed: false,
        })
    }
}

impl End for File {
    fn output(&mut self, bytes: &[u8]) -> bool {
        match self.file.write_all(bytes) {
            Ok(()) => self.failed = false,
            Err(e) if !self.failed => {
                self.failed = true;
                error!("output is lost: {e}");
            }
            Err(_) => {}
        }
        true
    }

    async fn event(&mut self, _typing: bool) -> Event {
        std::future::pending().await
    }

    async fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (told, refusal) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(File::open(&path).map(drop).unwrap_err().to_string()));
        let refusal = refusal.recv_timeout(std::time::Duration::from_secs(20));
        assert!(refusal.unwrap().contains("socket=PATH"));
        File::open(Path::new("/dev/null")).unwrap();
    }
}
