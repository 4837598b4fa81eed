//! A file that output is appended to.

use std::fs;
use std::io::Write;
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
