//! How VMs ended: one record a name, kept when the VM is gone.
//!
//! `$XDG_STATE_HOME/outboard/NAME.json`, else `~/.local/state/outboard/NAME.json`; for root
//! `/var/lib/outboard/NAME.json`. A VM writes it when it begins and when it ends, so that one whose
//! record says that it runs, and which does not, was killed. It goes with the definition.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::definitions::Definitions;
use crate::places::Place;

/// What is known of a VM's last run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// When it ended.
    pub ended: Option<u64>,
    /// How: `powered off`, `destroyed`, `crashed: ...`.
    pub how: Option<String>,
    /// The folder of its logs; `None` when none are kept.
    #[serde(default)]
    pub logs: Option<PathBuf>,
}

impl Record {
    /// How the last run of a VM that does not run now ended.
    pub fn reason(&self) -> &str {
        self.how.as_deref().unwrap_or("crashed: it was killed")
    }
}

/// The record of a VM that runs. Nothing that fails here keeps a VM from running.
pub struct Recorder {
    name: String,
    began: u64,
    logs: Option<PathBuf>,
    /// The VM had a definition of ours, and not a file of its own.
    defined: bool,
}

impl Recorder {
    /// Notes that the VM of this name has begun, whose logs are in the folder `logs`.
    pub fn begin(name: &str, logs: Option<&Path>) -> Self {
        let recorder = Self {
            name: name.to_owned(),
            began: now(),
            logs: logs.map(Path::to_owned),
            defined: defined().is_some_and(|names| names.iter().any(|other| other == name)),
        };
        recorder.write(None);
        recorder
    }

    /// Notes how it has ended; of a VM whose definition was taken away meanwhile, nothing is kept.
    pub fn end(self, how: &str) {
        self.write(Some(how));
        // In this order: who takes the definition away forgets the record after that.
        let is_gone = defined().is_some_and(|names| !names.contains(&self.name));
        if self.defined && is_gone {
            forget(&self.name);
        }
    }

    fn write(&self, how: Option<&str>) {
        let record = Record {
            began: self.began,
            ended: how.map(|_| now()),
            how: how.map(str::to_owned),
            logs: self.logs.clone(),
        };
        let path = path(&folder(), &self.name);
        let write = || -> std::io::Result<()> {
            make_folder()?;
            write_whole(&path, &serde_json::to_vec(&record)?)
        };
        if let Err(error) = write() {
            tracing::info!(path = %path.display(), %error, "how the VM ends will not be known");
        }
    }
}

/// The last run of the VM of this name, if there was one.
pub fn last(name: &str) -> Option<Record> {
    let text = std::fs::read(path(&folder(), name)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Where the words of a VM go that was started in the background.
pub fn log(name: &str) -> PathBuf {
    folder().join(format!("{name}.log"))
}

/// Makes the folder of records and logs, for its owner only.
///
/// # Errors
/// It cannot be made.
pub fn make_folder() -> std::io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder())
}

/// Forgets it, and what it said.
pub fn forget(name: &str) {
    let _ = std::fs::remove_file(path(&folder(), name));
    let _ = std::fs::remove_file(log(name));
}

/// The names of all definitions, where they can be read.
fn defined() -> Option<Vec<String>> {
    Definitions::ours().and_then(|all| all.names()).ok()
}

/// Who reads meanwhile finds the old or the new, and never half of one.
fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, text)?;
    file.persist(path)?;
    Ok(())
}

/// Of a user who has no home, records go with the machine's next start.
fn folder() -> PathBuf {
    let own = Place::History.folder();
    own.unwrap_or_else(crate::config::runtime_base)
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_the_place_of_the_last_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "web");
        write_whole(&path, b"old").unwrap();
        let mut reader = std::fs::File::open(&path).unwrap();
        write_whole(&path, b"new").unwrap();
        // In place, the one that reads would find the new.
        let mut read = String::new();
        std::io::Read::read_to_string(&mut reader, &mut read).unwrap();
        assert_eq!(read, "old");
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
