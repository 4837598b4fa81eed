//! The machine a figure comes from, and how much others disturbed it.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::MachineTime;

/// What the machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// CPUs online.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
}

/// CPUs online: not only those that this thread is held on.
fn online() -> usize {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let cpus = stat
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    cpus.count().max(1)
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name.trim());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: cpu.to_owned(),
            cpus: online(),
            kernel: kernel.trim().to_owned(),
        }
    }
}

/// Shares of the machine's whole CPU time during a run, 0 to 1, that went elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// To processes other than the driver and the backend.
    pub others: f64,
    /// To the hypervisor's other guests.
    pub stolen: f64,
}

/// The clock ticks of /proc/stat in a second (`USER_HZ`, the same on every Linux there is).
const TICKS: f64 = 100.0;

impl Noise {
    /// Of a time in which driver and backend took `ours`.
    pub fn of(time: MachineTime, ours: Duration) -> Self {
        let total = (time.total as f64).max(1.0);
        let others = time.busy as f64 - ours.as_secs_f64() * TICKS;
        Self {
            others: (others / total).max(0.0),
            stolen: time.stolen as f64 / total,
        }
    }

    /// Both together.
    pub fn sum(&self) -> f64 {
        self.others + self.stolen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_what_is_not_ours() {
        let time = MachineTime {
            busy: 150,
            stolen: 20,
            total: 200,
        };
        let noise = Noise::of(time, Duration::from_secs(1));
        assert!((noise.others - 0.25).abs() < 1e-9 && (noise.stolen - 0.1).abs() < 1e-9);
        assert!(Noise::of(time, Duration::from_secs(9)).others.abs() < 1e-9);
    }

    #[test]
    fn this_machine_has_a_name() {
        let machine = Machine::here();
        assert!(machine.cpus > 0 && !machine.kernel.is_empty() && !machine.cpu.is_empty());
    }
}
