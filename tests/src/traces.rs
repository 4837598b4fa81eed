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
            .env("XDG_CONFIG_HOME", self.path().join("config"))
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
        let left = self.left_after(LONG);
        assert!(left.is_none(), "left behind: {left:?}");
    }

    /// What is left when this time is over; `None` as soon as it is nothing.
    pub fn left_after(&self, time: Duration) -> Option<String> {
        let end = Instant::now() + time;
        loop {
            let (processes, files) = (self.processes(), self.run_files());
            if processes.is_empty() && files.is_empty() {
                return None;
            }
            if Instant::now() >= end {
                return Some(format!("{processes:?} {files:?}"));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever looks for traces must find them where there are some.
    #[test]
    fn a_process_and_a_file_are_found() {
        let home = Home::new();
        assert_eq!(home.left_after(Duration::ZERO), None);
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        home.adopt(&mut sleep);
        let mut sleep = sleep.spawn().unwrap();
        // It has its environment a moment after it has its name.
        let end = Instant::now() + LONG;
        while home.processes().is_empty() {
            assert!(Instant::now() < end, "nothing is found");
            std::thread::sleep(Duration::from_millis(1));
        }
        let left = home.left_after(Duration::ZERO).unwrap();
        assert!(left.contains("sleep"), "{left}");
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert_eq!(home.left_after(LONG), None);
        std::fs::create_dir_all(home.path().join("run/outboard/vm")).unwrap();
        let left = home.left_after(Duration::ZERO).unwrap();
        assert!(left.contains("outboard/vm"), "{left}");
    }
}
