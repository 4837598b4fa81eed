//! What a VM may have left behind.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // a test fails by panicking

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Reached only by a failing test.
const LONG: Duration = Duration::from_secs(20);

/// A folder for one VM, which keeps its sockets in it, and by which its processes are known.
#[derive(Debug)]
pub struct Home(tempfile::TempDir);

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        Self(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes `command` run in it: relative paths lead here, and so do sockets that nobody named, and
    /// logs.
    pub fn adopt(&self, command: &mut Command) {
        command
            .current_dir(self.path())
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env("XDG_STATE_HOME", self.path().join("state"));
    }

    /// Processes that were started here, whoever their parent is by now: ids and names.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let mark = format!("XDG_RUNTIME_DIR={}", self.path().join("run").display());
        let ours = |pid: i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_bytes())
                .then_some(())?;
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some((pid, name.trim().to_owned()))
        };
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| ours(entry.file_name().to_str()?.parse().ok()?))
            .collect()
    }

    /// Neither a process nor a socket nor a folder of the VM's own is left, or is soon.
    pub fn assert_left_clean(&self) {
        let end = Instant::now() + LONG;
        loop {
            let (processes, files) = (self.processes(), self.run_files());
            if processes.is_empty() && files.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind: {processes:?} {files:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What is in the folders of VMs.
    fn run_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join("run/outboard"));
        entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect()
    }
}
