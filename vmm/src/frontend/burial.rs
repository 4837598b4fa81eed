//! The end of a daemon that is given up.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::actor::LAST_WORDS;
use super::inbox::Inbox;
use crate::supervisor::Process;

/// Between two complaints about a daemon that does not die.
const COMPLAIN: Duration = Duration::from_secs(5);
/// Between two looks at whether the device goes.
const LOOK: Duration = Duration::from_millis(50);

/// Sees a daemon dead. Waits as long as it takes, since until then it can write to guest memory;
/// only a daemon stuck in the kernel takes long. No longer than the device is there, though: the
/// supervisor sees to the rest.
pub(super) fn bury(process: &Process, at_once: bool, inbox: &Inbox) -> Option<ExitStatus> {
    if !at_once && let Some(status) = wait(process, LAST_WORDS, inbox) {
        return Some(status);
    }
    process.signal(libc::SIGKILL);
    while !inbox.is_closing() {
        if let Some(status) = wait(process, COMPLAIN, inbox) {
            return Some(status);
        }
        if !inbox.is_closing() {
            tracing::error!(
                device = process.id(),
                pid = process.pid(),
                "The daemon outlives SIGKILL; waiting"
            );
        }
    }
    None
}

/// Waits for the daemon's end, for at most `time`, and not once the device goes.
fn wait(process: &Process, time: Duration, inbox: &Inbox) -> Option<ExitStatus> {
    let begin = Instant::now();
    loop {
        let left = time.saturating_sub(begin.elapsed());
        let status = process.wait(left.min(LOOK));
        if status.is_some() || left.is_zero() || inbox.is_closing() {
            return status;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::supervisor::{Command, Supervisor};

    #[test]
    fn nobody_waits_at_the_grave_of_a_device_that_goes() {
        let supervisor = Supervisor::start().unwrap();
        let sleeper = Command::new("disk0", "/bin/sleep").args(["1000"]);
        let process = supervisor.spawn(sleeper).unwrap();
        let inbox = Inbox::default();
        let begin = Instant::now();
        thread::scope(|scope| {
            // As one in the kernel's hands, it does not end.
            let waiting = scope.spawn(|| wait(&process, Duration::from_mins(1), &inbox));
            thread::sleep(LOOK);
            inbox.close();
            assert_eq!(waiting.join().unwrap(), None);
        });
        assert!(begin.elapsed() < Duration::from_secs(30));
        let inbox = Inbox::default();
        assert!(bury(&process, true, &inbox).is_some());
    }
}
