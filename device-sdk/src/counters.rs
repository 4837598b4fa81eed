//! What a device counts of its queues, on a page that its VMM can read.
//!
//! The data path passes no VMM, so that only the worker knows what it has done. Where it is given a
//! page ([`daemon::COUNTERS`](crate::daemon::COUNTERS), a memfd that is inherited) it writes there, once a batch, with plain stores:
//! no message, no lock, and no clock but for one request in [`SAMPLED_ONE_IN`]. Whoever holds the memfd
//! reads it with `pread`, whenever it likes, and believes it as far as it believes the device.
//!
//! The page has a row of 32 native 64-bit words for each queue, in the order of
//! [`QueueCounters`]. They only ever grow, over resets of the device as well.
#![allow(unsafe_code)] // Words of a mapping that outlives them.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{FileOffset, MmapRegion};

/// Queues that have a row; those behind them are not counted.
pub const QUEUES: u16 = 256;

/// Words of a row.
const WORDS: usize = 32;
/// Bytes of a row.
const ROW: usize = WORDS * 8;
/// Bytes of all rows. Those that nobody writes to take no memory.
const PAGE: usize = QUEUES as usize * ROW;

/// Steps of the histogram of times.
pub const BUCKETS: usize = 24;

/// Of so many requests, one is timed: reading the clock twice takes about as long as the rings'
/// part of five requests.
pub const SAMPLED_ONE_IN: u32 = 64;

const REQUESTS: usize = 0;
const TO_DEVICE: usize = 1;
const TO_GUEST: usize = 2;
const INTERRUPTS: usize = 3;
const SAMPLED_NANOSECONDS: usize = 4;
/// The words between are for what comes.
const HISTOGRAM: usize = 8;

/// What was counted of one queue since its device was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Chains that the device has answered.
    pub requests: u64,
    /// Bytes in them that were the device's to read: what a driver writes to a disk or sends, headers
    /// included.
    pub bytes_to_device: u64,
    /// Bytes that the device wrote into them, headers and states included.
    pub bytes_to_guest: u64,
    /// Signals on the call eventfd. The driver may have had several of them as one interrupt.
    pub interrupts: u64,
    /// How long the requests that were timed have taken together, in nanoseconds.
    pub sampled_nanoseconds: u64,
    /// How many of them took how long, from the moment they were taken from the ring to the moment
    /// their answers were there. The first step is of those below 1 us, each further one reaches twice
    /// as far, and the last has no end.
    pub histogram: [u64; BUCKETS],
}

impl QueueCounters {
    /// Where the step of this number ends; `None` for the last.
    pub fn bound(step: usize) -> Option<Duration> {
        let shift = u32::try_from(step).ok()?;
        let last = step.saturating_add(1) >= BUCKETS;
        (!last).then(|| Duration::from_micros(1u64.checked_shl(shift).unwrap_or(u64::MAX)))
    }

    /// How many requests were timed.
    pub fn sampled(&self) -> u64 {
        self.histogram
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// The page of a device, where it is made and read. Any number of threads may read it.
#[derive(Debug)]
pub struct Page(File);

impl Page {
    /// A page of zeros, sealed so that its size stays: whoever maps it may rely on that.
    ///
    /// # Errors
    /// The system gives none.
    pub fn new() -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"counters", flags)?);
        file.set_len(PAGE as u64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self(file))
    }

    /// The descriptor once more, for the device.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// What stands there of a queue now; `None` for one that has no row.
    pub fn read(&self, queue: u16) -> Option<QueueCounters> {
        let at = (queue < QUEUES).then(|| usize::from(queue).saturating_mul(ROW))?;
        let mut bytes = [0; ROW];
        self.0.read_exact_at(&mut bytes, at as u64).ok()?;
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| {
            let word = words.get(index).copied();
            word.map(u64::from_ne_bytes).unwrap_or_default()
        };
        Some(QueueCounters {
            requests: word(REQUESTS),
            bytes_to_device: word(TO_DEVICE),
            bytes_to_guest: word(TO_GUEST),
            interrupts: word(INTERRUPTS),
            sampled_nanoseconds: word(SAMPLED_NANOSECONDS),
            histogram: std::array::from_fn(|step| word(HISTOGRAM.saturating_add(step))),
        })
    }
}

/// A page, where it is written: the device's end.
#[derive(Clone, Debug)]
pub struct Counters(Arc<MmapRegion>);

impl Counters {
    /// Maps the page behind a descriptor.
    ///
    /// # Errors
    /// It is none: too short, or not sealed against becoming so.
    pub fn map(page: OwnedFd) -> io::Result<Self> {
        let file = File::from(page);
        let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(io::Error::other("it is not sealed against shrinking"));
        }
        if file.metadata()?.len() < PAGE as u64 {
            return Err(io::Error::other("it is too short"));
        }
        let region = MmapRegion::from_file(FileOffset::new(file, 0), PAGE);
        Ok(Self(Arc::new(region.map_err(io::Error::other)?)))
    }

    /// The row of a queue; `None` for one that has none.
    pub(crate) fn row(&self, queue: u16) -> Option<Row> {
        let at = (queue < QUEUES).then(|| usize::from(queue).saturating_mul(ROW))?;
        let words = NonNull::new(self.0.as_ptr().wrapping_add(at))?.cast();
        Some(Row {
            words,
            _page: Arc::clone(&self.0),
        })
    }
}

/// A queue's row. One worker at a time writes to it.
#[derive(Debug)]
pub(crate) struct Row {
    words: NonNull<[AtomicU64; WORDS]>,
    _page: Arc<MmapRegion>,
}

// SAFETY: words are atomic, and the mapping they lie in is the row's own and no thread's.
unsafe impl Send for Row {}

impl Row {
    fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: a row lies in the mapping, which is page-aligned, is held by `_page`, and whose file
        // cannot shrink; other processes may change the words, which are atomic.
        unsafe { self.words.as_ref() }
    }

    /// Nobody else adds to it: no locked instruction.
    #[inline]
    fn add(word: &AtomicU64, count: u64) {
        let sum = word.load(Ordering::Relaxed).wrapping_add(count);
        word.store(sum, Ordering::Relaxed);
    }

    /// A batch was answered.
    #[inline]
    pub(crate) fn answered(&self, batch: &Batch) {
        let [requests, to_device, to_guest, ..] = self.words();
        Self::add(requests, batch.requests);
        Self::add(to_device, batch.to_device);
        Self::add(to_guest, batch.to_guest);
    }

    /// The driver was interrupted.
    #[inline]
    pub(crate) fn interrupted(&self) {
        let [_, _, _, interrupts, ..] = self.words();
        Self::add(interrupts, 1);
    }

    /// A request was timed.
    fn timed(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let [_, _, _, _, sum, _, _, _, histogram @ ..] = self.words();
        Self::add(sum, nanoseconds);
        if let Some(word) = histogram.get(step(nanoseconds / 1000)) {
            Self::add(word, 1);
        }
    }
}

/// The step of so many whole microseconds.
fn step(microseconds: u64) -> usize {
    let bits = u64::BITS.saturating_sub(microseconds.leading_zeros());
    (bits as usize).min(BUCKETS - 1)
}

/// What is to be counted of the requests that are answered together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) requests: u64,
    pub(crate) to_device: u64,
    pub(crate) to_guest: u64,
}

/// A queue's row, and the request that is being timed.
#[derive(Debug)]
pub(crate) struct Tally {
    row: Row,
    /// Until the next one is timed.
    left: u32,
    /// The ring position of the one that is, or none's.
    position: u32,
    taken: Instant,
}

/// No position of any ring.
const NONE: u32 = u32::MAX;

impl Tally {
    pub(crate) fn new(row: Row) -> Self {
        Self {
            row,
            left: 1,
            position: NONE,
            taken: Instant::now(),
        }
    }

    pub(crate) fn row(&self) -> &Row {
        &self.row
    }

    /// Positions begin anew.
    pub(crate) fn restart(&mut self) {
        self.position = NONE;
    }

    /// A request was taken from this position.
    #[inline]
    pub(crate) fn taken(&mut self, position: u16) {
        self.left = self.left.wrapping_sub(1);
        if self.left == 0 {
            self.left = SAMPLED_ONE_IN;
            // One that is still being timed, when so many have come after it, is a slow one.
            if self.position == NONE {
                self.position = position.into();
                self.taken = Instant::now();
            }
        }
    }

    /// The one from this position was answered.
    #[inline]
    pub(crate) fn done(&mut self, position: u16) {
        if self.position == u32::from(position) {
            self.position = NONE;
            self.row.timed(self.taken.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> (Page, Counters) {
        let page = Page::new().unwrap();
        let counters = Counters::map(page.share().unwrap()).unwrap();
        (page, counters)
    }

    #[test]
    fn what_is_counted_is_read_by_whoever_made_the_page() {
        let (page, counters) = page();
        let row = counters.row(3).unwrap();
        row.answered(&Batch {
            requests: 2,
            to_device: 32,
            to_guest: 8194,
        });
        row.answered(&Batch {
            requests: 1,
            to_device: 16,
            to_guest: 1,
        });
        row.interrupted();
        row.timed(Duration::from_nanos(2_500));
        let read = page.read(3).unwrap();
        assert_eq!(
            (read.requests, read.bytes_to_device, read.bytes_to_guest),
            (3, 48, 8195)
        );
        assert_eq!((read.interrupts, read.sampled_nanoseconds), (1, 2_500));
        assert_eq!((read.histogram[2], read.sampled()), (1, 1));
        assert_eq!(page.read(2), Some(QueueCounters::default()));
        assert_eq!(page.read(4), Some(QueueCounters::default()));
    }

    #[test]
    fn the_last_queue_has_a_row_and_the_one_behind_it_none() {
        let (page, counters) = page();
        counters.row(QUEUES - 1).unwrap().interrupted();
        assert_eq!(page.read(QUEUES - 1).unwrap().interrupts, 1);
        assert!(counters.row(QUEUES).is_none());
        assert!(page.read(QUEUES).is_none());
    }

    #[test]
    fn a_page_cannot_become_shorter_and_what_can_is_none() {
        let (page, _) = page();
        assert!(File::from(page.share().unwrap()).set_len(0).is_err());
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE as u64).unwrap();
        assert!(Counters::map(file.into()).is_err());
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let short = memfd_create(c"short", flags).unwrap();
        fcntl(&short, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        assert!(Counters::map(short).is_err());
    }

    #[test]
    fn steps_double_from_a_microsecond_on() {
        let steps = [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 2),
            (4, 3),
            (u64::MAX, BUCKETS - 1),
        ];
        for (microseconds, wanted) in steps {
            assert_eq!(step(microseconds), wanted, "{microseconds}");
        }
        for index in 0..BUCKETS - 1 {
            let bound = u64::try_from(QueueCounters::bound(index).unwrap().as_micros()).unwrap();
            assert_eq!(step(bound - 1), index);
            assert_eq!(step(bound), index + 1);
        }
        assert_eq!(QueueCounters::bound(BUCKETS - 1), None);
    }

    #[test]
    fn the_first_request_is_timed_then_one_in_so_many() {
        let (page, counters) = page();
        let mut tally = Tally::new(counters.row(0).unwrap());
        let mut serve = |positions: std::ops::Range<u16>| {
            for position in positions {
                tally.taken(position);
                tally.done(position);
            }
            page.read(0).unwrap().sampled()
        };
        assert_eq!(serve(0..1), 1);
        assert_eq!(serve(1..64), 1);
        assert_eq!(serve(64..65), 2);
        assert_eq!(serve(65..65 + 640), 12);
    }

    #[test]
    fn one_that_takes_long_is_timed_to_its_end() {
        let (page, counters) = page();
        let mut tally = Tally::new(counters.row(0).unwrap());
        tally.taken(0);
        std::thread::sleep(Duration::from_millis(5));
        for position in 1..200 {
            tally.taken(position);
            tally.done(position);
        }
        assert_eq!(page.read(0).unwrap().sampled(), 0);
        tally.done(0);
        let read = page.read(0).unwrap();
        assert_eq!(read.sampled(), 1);
        assert!(read.sampled_nanoseconds > 5_000_000, "{read:?}");
    }
}
