//! CPU time: of a process with all its threads, of this thread, of the whole machine.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The CPU time of one process, whose threads may come and go.
#[derive(Clone, Copy, Debug)]
pub struct ProcessClock(ClockId);

impl ProcessClock {
    /// The clock of `pid`; `None` when there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok().filter(|&pid| pid > 0)?);
        Some(Self(clock_getcpuclockid(pid).ok()?))
    }

    /// The time until now; `None` once the process has ended.
    pub fn now(self) -> Option<Duration> {
        Some(clock_gettime(self.0).ok()?.into())
    }
}

/// The CPU time of the calling thread.
pub fn this_thread() -> Duration {
    // It fails for no thread that asks about itself.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What all CPUs together have done since boot, in ticks (proc(5), `/proc/stat`).
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineTime {
    /// Worked for somebody.
    pub busy: u64,
    /// Were taken away by the hypervisor.
    pub stolen: u64,
    /// All there was.
    pub total: u64,
}

impl MachineTime {
    /// Until now; zeroes where the kernel does not say.
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guest time is in user's.
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .map(|word| word.parse().unwrap_or(0))
            .collect();
        let at = |n: usize| ticks.get(n).copied().unwrap_or(0);
        let total = ticks.iter().sum();
        Self {
            busy: at(0) + at(1) + at(2) + at(5) + at(6),
            stolen: at(7),
            total,
        }
    }

    /// What was done since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            stolen: self.stolen.saturating_sub(earlier.stolen),
            total: self.total.saturating_sub(earlier.total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_spends_what_its_threads_spend() {
        let clock = ProcessClock::of(std::process::id()).unwrap();
        let spent = Duration::from_millis(20);
        let (process, thread) = (clock.now().unwrap(), this_thread());
        let mut sum = 0u64;
        while this_thread() < thread + spent {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(clock.now().unwrap() >= process + spent);
        assert!(ProcessClock::of(0).is_none());
    }

    #[test]
    fn the_machine_has_been_busy_since_boot() {
        let now = MachineTime::now();
        assert!(now.busy > 0 && now.total > now.busy);
    }
}
