//! What a process has used.

use std::fs;
use std::time::Duration;

/// `USER_HZ`, in which Linux tells CPU time on every machine that KVM runs on, is 100.
const TICK: Duration = Duration::from_millis(10);

/// Bytes of a page, in which it tells memory.
const PAGE: u64 = 4096;

/// A process's use of the machine, up to now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads, to 10 ms.
    pub cpu: Duration,
    /// Bytes of memory that it has now, guest memory included as far as it has touched it.
    pub resident: u64,
}

impl Usage {
    /// By `proc_pid_stat(5)`; `None` of a process that is gone.
    pub fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // A program's name may have blanks and brackets in it.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // Counted from 1 in the manual, where the state is the third: utime, stime and rss.
        let field = |number: usize| {
            let field = fields.get(number.checked_sub(3)?)?;
            field.parse::<u64>().ok()
        };
        let ticks = field(14)?.saturating_add(field(15)?);
        Some(Self {
            cpu: TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)),
            resident: field(24)?.saturating_mul(PAGE),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 31 11 0 0 20 0 5 0 99 1000 25 184";
        let wanted = Usage {
            cpu: Duration::from_millis(420),
            resident: 25 * 4096,
        };
        assert_eq!(Usage::parse(stat), Some(wanted));
        assert_eq!(Usage::parse("7 (a"), None);
    }

    #[test]
    fn our_own_time_passes() {
        let pid = std::process::id().cast_signed();
        let begin = Usage::of(pid).unwrap();
        assert!(begin.resident > 0);
        let end = Instant::now() + Duration::from_secs(20);
        while Usage::of(pid).unwrap().cpu <= begin.cpu {
            assert!(Instant::now() < end, "no time passes");
        }
    }
}
