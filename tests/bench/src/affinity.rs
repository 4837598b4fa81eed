//! Which CPUs each side runs on: `driver=0,backend=1`.

use std::fmt;
use std::fs;
use std::str::FromStr;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// CPUs by number; empty means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(Vec<usize>);

impl Cpus {
    /// Keeps the calling thread on them.
    pub fn hold_this_thread(&self) -> Result<()> {
        self.hold(Pid::from_raw(0))
    }

    /// Keeps all threads of a process on them, and those they start. Any: where they are.
    pub fn hold_process(&self, pid: u32) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .map_err(Error::system("list the threads of the backend"))?;
        for task in tasks.flatten() {
            if let Some(id) = task.file_name().to_str().and_then(|id| id.parse().ok()) {
                match self.hold(Pid::from_raw(id)) {
                    // It has ended meanwhile.
                    Err(Error::System { source, .. })
                        if source.raw_os_error() == Some(libc::ESRCH) => {}
                    held => held?,
                }
            }
        }
        Ok(())
    }

    fn hold(&self, thread: Pid) -> Result<()> {
        let mut set = CpuSet::new();
        let any: Vec<usize>;
        let cpus = if self.0.is_empty() {
            any = (0..CpuSet::count()).collect();
            &any
        } else {
            &self.0
        };
        for &cpu in cpus {
            set.set(cpu).map_err(Error::errno("name that many CPUs"))?;
        }
        sched_setaffinity(thread, &set).map_err(Error::errno(
            "set the affinity of a thread; are there such CPUs?",
        ))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any");
        }
        for (n, cpu) in self.0.iter().enumerate() {
            write!(f, "{}{cpu}", if n == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "any" {
            return Ok(Self::default());
        }
        let bad = |_| format!("{text:?} names no CPUs; write 0, 0-3, 0+2 or any");
        let mut cpus = Vec::new();
        for part in text.split('+') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            cpus.extend(first.parse::<usize>().map_err(bad)?..=last.parse().map_err(bad)?);
        }
        Ok(Self(cpus))
    }
}

/// The placement of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Affinity {
    /// The thread that drives the rings.
    pub driver: Cpus,
    /// The backend's process.
    pub backend: Cpus,
}

impl Default for Affinity {
    /// The driver on the first CPU this process may use, the backend on the others; of one CPU, both on it.
    fn default() -> Self {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
        let mut cpus = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false));
        let driver = Cpus(cpus.next().into_iter().collect());
        Self {
            driver,
            backend: Cpus(cpus.collect()),
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver={},backend={}", self.driver, self.backend)
    }
}

impl From<Affinity> for String {
    fn from(affinity: Affinity) -> Self {
        affinity.to_string()
    }
}

impl TryFrom<String> for Affinity {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Affinity {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut affinity = Self {
            driver: Cpus::default(),
            backend: Cpus::default(),
        };
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("driver", cpus)) => affinity.driver = cpus.parse()?,
                Some(("backend", cpus)) => affinity.backend = cpus.parse()?,
                _ => return Err(format!("{part:?} is not driver=CPUS or backend=CPUS")),
            }
        }
        Ok(affinity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_are_read_as_they_are_written() {
        for text in ["driver=0,backend=1", "driver=any,backend=1+3"] {
            assert_eq!(text.parse::<Affinity>().unwrap().to_string(), text);
        }
        let ranges: Affinity = "backend=0-2".parse().unwrap();
        assert_eq!(ranges.to_string(), "driver=any,backend=0+1+2");
        for bad in ["", "vcpu", "driver=x", "driver=1-", "nobody=1"] {
            assert!(bad.parse::<Affinity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_thread_stays_where_it_is_held() {
        std::thread::spawn(|| {
            let last = Affinity::default();
            let cpus = if last.backend.0.is_empty() {
                last.driver
            } else {
                last.backend
            };
            cpus.hold_this_thread().unwrap();
            let now = sched_getaffinity(Pid::from_raw(0)).unwrap();
            for cpu in 0..CpuSet::count() {
                assert_eq!(now.is_set(cpu).unwrap(), cpus.0.contains(&cpu));
            }
        })
        .join()
        .unwrap();
    }
}
