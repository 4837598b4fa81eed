//! What vCPU threads and the watcher post to the actor.
//!
//! Bounded whatever the guest and the backend do: a reset takes the place of what it makes moot,
//! config changes and the connection's end are flags, config writes beyond a limit are dropped.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::watch::Watch;
use crate::transport::{QueueStart, Start};

/// Config writes that wait at most; a driver that posts more does not read what it wrote.
const WRITES_MAX: usize = 64;
/// Queue starts and stops that wait at most; no driver in its right mind has as many.
const QUEUES_MAX: usize = 1024;

/// One thing for the actor to do.
#[derive(Debug)]
pub(super) enum Command {
    /// `DRIVER_OK`.
    Start(Start),
    /// One more queue was enabled.
    StartQueue(QueueStart),
    /// `RING_RESET`.
    StopQueue(u16),
    /// Stop everything; afterwards as many resets as this have been carried out.
    Reset(u64),
    /// The driver wrote to the config space.
    WriteConfig { offset: u32, data: Vec<u8> },
    /// Stop every ring where it is, then say so.
    Pause(Sender<()>),
    /// Let every ring go on where it was stopped, then say so.
    Resume(Sender<()>),
    /// The backend's config space changed.
    ConfigChanged,
    /// The backend signalled a ring's error eventfd.
    Broken,
    /// The connection of this number ended.
    Lost(u64),
    /// What stands behind the daemon has ended.
    Alone,
    /// The device goes.
    Close,
}

/// The inbox.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    posted: Mutex<Posted>,
    ready: Condvar,
}

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Each is a thing that is posted once however often.
struct Posted {
    commands: VecDeque<Command>,
    lost: Option<u64>,
    config_changed: bool,
    broken: bool,
    alone: bool,
    closing: bool,
    resets_asked: u64,
    resets_done: u64,
}

impl Inbox {
    /// Posts a start or stop. `false`: there were too many, and it was dropped.
    pub(super) fn post(&self, command: Command) -> bool {
        let mut posted = self.posted();
        if posted.commands.len() >= QUEUES_MAX {
            return false;
        }
        posted.commands.push_back(command);
        self.ready.notify_one();
        true
    }

    /// Posts what the VM's owner wants, who does so once in many seconds: there is always room for it.
    pub(super) fn owner(&self, command: Command) {
        self.posted().commands.push_back(command);
        self.ready.notify_one();
    }

    /// Posts a config write. `false`: there were too many, and it was dropped.
    pub(super) fn write_config(&self, offset: u32, data: Vec<u8>) -> bool {
        let mut posted = self.posted();
        let is_write = |command: &&Command| matches!(command, Command::WriteConfig { .. });
        if posted.commands.iter().filter(is_write).count() >= WRITES_MAX {
            return false;
        }
        posted
            .commands
            .push_back(Command::WriteConfig { offset, data });
        self.ready.notify_one();
        true
    }

    /// Posts a reset and starts its deadline.
    pub(super) fn reset(&self, watch: &Watch, deadline: Duration) {
        let mut posted = self.posted();
        posted
            .commands
            .retain(|command| matches!(command, Command::WriteConfig { .. }));
        posted.resets_asked = posted.resets_asked.wrapping_add(1);
        let asked = posted.resets_asked;
        posted.commands.push_back(Command::Reset(asked));
        // Under the lock, so that the end of an earlier reset cannot take it for its own.
        watch.arm_reset(deadline);
        self.ready.notify_one();
    }

    /// The actor has carried out `Reset(done)`.
    pub(super) fn reset_done(&self, done: u64, watch: &Watch) {
        let mut posted = self.posted();
        posted.resets_done = done;
        if posted.resets_asked == done {
            watch.disarm_reset();
        }
    }

    /// Whether every reset asked for has been carried out.
    pub(super) fn is_reset(&self) -> bool {
        let posted = self.posted();
        posted.resets_asked == posted.resets_done
    }

    /// The connection ended.
    pub(super) fn lost(&self, epoch: u64) {
        self.posted().lost = Some(epoch);
        self.ready.notify_one();
    }

    /// The backend announced a config change.
    pub(super) fn config_changed(&self) {
        self.posted().config_changed = true;
        self.ready.notify_one();
    }

    /// The backend says that the device is broken.
    pub(super) fn broken(&self) {
        self.posted().broken = true;
        self.ready.notify_one();
    }

    /// What stands behind the daemon has ended.
    pub(super) fn alone(&self) {
        self.posted().alone = true;
        self.ready.notify_one();
    }

    /// The device goes.
    pub(super) fn close(&self) {
        self.posted().closing = true;
        self.ready.notify_all();
    }

    /// Whether the device goes.
    pub(super) fn is_closing(&self) -> bool {
        self.posted().closing
    }

    /// Waits for at most `time`, or until the device goes. Answers whether it goes.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let begin = Instant::now();
        let mut posted = self.posted();
        loop {
            let left = time.saturating_sub(begin.elapsed());
            if posted.closing || left.is_zero() {
                return posted.closing;
            }
            (posted, _) = self
                .ready
                .wait_timeout(posted, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next thing to do; waits for it.
    pub(super) fn take(&self) -> Command {
        let mut posted = self.posted();
        loop {
            if posted.closing {
                return Command::Close;
            }
            if let Some(epoch) = posted.lost.take() {
                return Command::Lost(epoch);
            }
            if std::mem::take(&mut posted.alone) {
                return Command::Alone;
            }
            if let Some(command) = posted.commands.pop_front() {
                return command;
            }
            if std::mem::take(&mut posted.broken) {
                return Command::Broken;
            }
            if std::mem::take(&mut posted.config_changed) {
                return Command::ConfigChanged;
            }
            posted = self
                .ready
                .wait(posted)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn posted(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_takes_the_place_of_what_it_makes_moot() {
        let (inbox, watch) = (Inbox::default(), Watch::new().unwrap());
        assert!(inbox.is_reset());
        for _ in 0..10_000 {
            inbox.post(Command::StopQueue(0));
            inbox.reset(&watch, Duration::from_secs(1));
        }
        inbox.write_config(0, vec![1]);
        assert!(!inbox.is_reset());
        let Command::Reset(number) = inbox.take() else {
            panic!("no reset")
        };
        inbox.reset_done(number, &watch);
        assert!(inbox.is_reset());
        assert!(matches!(inbox.take(), Command::WriteConfig { .. }));
        assert!(inbox.posted().commands.is_empty());
    }

    #[test]
    fn an_earlier_reset_does_not_complete_a_later_one() {
        let (inbox, watch) = (Inbox::default(), Watch::new().unwrap());
        inbox.reset(&watch, Duration::from_secs(1));
        let Command::Reset(first) = inbox.take() else {
            panic!("no reset")
        };
        inbox.reset(&watch, Duration::from_secs(1));
        inbox.reset_done(first, &watch);
        assert!(!inbox.is_reset());
    }

    #[test]
    fn neither_driver_nor_backend_fills_it() {
        let inbox = Inbox::default();
        let kept = (0..10_000)
            .filter(|_| inbox.write_config(0, vec![0; 8]))
            .count();
        assert_eq!(kept, WRITES_MAX);
        (0..10_000).for_each(|_| inbox.config_changed());
        (0..10_000).for_each(|n| inbox.lost(n));
        let kept = (0..10_000)
            .filter(|_| inbox.post(Command::StopQueue(0)))
            .count();
        assert_eq!(kept, QUEUES_MAX - WRITES_MAX);
    }
}
