//! A limit on log lines that a guest or a peer can cause.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines let through at once after a quiet time.
const BURST: u32 = 10;

/// After a burst, one line in this time.
const INTERVAL: Duration = Duration::from_secs(5);

/// Lets a burst of log lines through and then one in five seconds, counting what it holds back.
///
/// ```
/// use outboard_device::ratelimit::RateLimit;
/// static LIMIT: RateLimit = RateLimit::new();
/// if let Some(unseen) = LIMIT.pass() {
///     tracing::warn!("The guest sent nonsense{unseen}");
/// }
/// ```
#[derive(Debug)]
pub struct RateLimit(Mutex<State>);

#[derive(Debug)]
struct State {
    tokens: u32,
    /// When the last token was added; `None` before the first line.
    refilled: Option<Instant>,
    unseen: u64,
}

/// How many lines were held back since the last one; prints as the end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unseen(u64);

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " ({n} more like this were not shown)"),
        }
    }
}

impl RateLimit {
    /// A limit that has seen nothing yet. Make it a `static` beside the line it limits.
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            tokens: BURST,
            refilled: None,
            unseen: 0,
        }))
    }

    /// Whether a line may be written now; `Some` says how many before it were not.
    pub fn pass(&self) -> Option<Unseen> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<Unseen> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *state.refilled.get_or_insert(now);
        let intervals = now.saturating_duration_since(since).as_secs() / INTERVAL.as_secs();
        let added = u32::try_from(intervals).unwrap_or(BURST).min(BURST);
        if added > 0 {
            state.tokens = state.tokens.saturating_add(added).min(BURST);
            state.refilled = Some(now);
        }
        let Some(left) = state.tokens.checked_sub(1) else {
            state.unseen = state.unseen.saturating_add(1);
            return None;
        };
        state.tokens = left;
        Some(Unseen(std::mem::take(&mut state.unseen)))
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_an_interval_and_the_rest_is_counted() {
        let limit = RateLimit::new();
        let start = Instant::now();
        let passed = (0..100).filter(|_| limit.pass_at(start).is_some()).count();
        assert_eq!(passed, BURST as usize);
        let later = start + INTERVAL;
        assert_eq!(limit.pass_at(later), Some(Unseen(90)));
        assert_eq!(limit.pass_at(later), None);
        let quiet = later + INTERVAL * 1000;
        assert_eq!(
            (0..100).filter(|_| limit.pass_at(quiet).is_some()).count(),
            BURST as usize
        );
    }

    #[test]
    fn the_count_prints_only_when_there_is_one() {
        assert_eq!(Unseen(0).to_string(), "");
        assert_eq!(Unseen(3).to_string(), " (3 more like this were not shown)");
    }
}
