//! One run, as a line of JSON: kept for ever, so that every figure can be traced to its rounds.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::affinity::Affinity;
use crate::case::Case;
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::machine::{Machine, Noise};
use crate::run::Conditions;

/// What was measured, where, under what conditions, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Whose figure it is.
    pub subject: String,
    /// The command that started it, or the socket it was found at.
    pub command: String,
    /// Which repetition, from 1.
    pub round: u32,
    /// Seconds since 1970.
    pub at: u64,
    /// What was done.
    pub case: Case,
    /// Where it ran.
    pub affinity: Affinity,
    /// What came of it.
    pub figures: Figures,
    /// What others took of the machine meanwhile.
    pub noise: Noise,
    /// The machine.
    pub machine: Machine,
}

impl Record {
    /// What was measured just now, on this machine.
    pub fn new(
        subject: &str,
        command: &str,
        round: u32,
        case: &Case,
        how: &Conditions,
        figures: Figures,
        noise: Noise,
    ) -> Self {
        Self {
            subject: subject.to_owned(),
            command: command.to_owned(),
            round,
            at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
            case: case.clone(),
            affinity: how.affinity.clone(),
            figures,
            noise,
            machine: Machine::here(),
        }
    }
}

/// A file of records, of one kind, appended to line by line.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: std::path::PathBuf,
}

impl Log {
    /// Opens the file, to add to what is there.
    pub fn append(path: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(Error::file("write", path))?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// Adds a line.
    pub fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(record).map_err(|e| Error::Content {
            path: self.path.clone(),
            reason: e.to_string(),
        })?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .map_err(Error::file("write", &self.path))
    }
}

/// All lines of a file, each of this kind.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| {
            serde_json::from_str(line).map_err(|e| Error::Content {
                path: path.to_owned(),
                reason: format!("line {} is no record: {e}", n + 1),
            })
        })
        .collect()
}
