//! A small vhost-user device, independent of the SDK's session and ring engine: the kit is tried on
//! it, and it can be broken on purpose.
//!
//! It answers a request with the request's bytes inverted. A connection has one thread.

mod handler;
mod packed;
mod ring;
mod session;

use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Endpoint, Expected, Failure, Outcome, Probe};

/// What is wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It does not offer indirect descriptors although its class needs them, say.
    OffersLess,
    /// It breaks down without event indices.
    NeedsEventIdx,
    /// It waits for a ring to be enabled also by a frontend that does not know how.
    WaitsForEnable,
    /// It takes feature bits it does not offer.
    TakesAnyFeature,
    /// It offers `RESET_DEVICE` and refuses it.
    RefusesReset,
    /// It goes on as if nothing had happened when it is reset.
    IgnoresReset,
    /// It hangs up on requests it does not know.
    HangsUpOnUnknown,
    /// It ends when a connection ends with an error.
    DiesOnError,
    /// It panics at a queue it does not have.
    PanicsOnQueue,
    /// It ends with its first connection.
    ServesOnce,
    /// Bytes after its config space read as ones.
    ConfigLeaks,
    /// It reads its config space from the start, wherever it is asked to.
    ConfigIgnoresOffset,
    /// It says 0 when stopped.
    StopsAtZero,
    /// It says that it took one more than it completed when stopped.
    TakesOneMore,
    /// When one queue stops, all do.
    StopsAll,
    /// It keeps memory that was taken away.
    KeepsAllMemory,
    /// It starts at 0, whatever it is told.
    StartsAtZero,
    /// It keeps the first ring it was given.
    KeepsFirstRing,
    /// It does not care whether a ring is enabled.
    IgnoresEnable,
    /// Once enabled, a ring stays so.
    IgnoresDisable,
    /// It works on rings that were not started.
    IgnoresStart,
    /// It keeps the first memory table it was given.
    KeepsFirstMemory,
    /// It answers wrongly after a hundred requests.
    Tires,
    /// It completes one request a kick.
    OneEachKick,
    /// It loses what lies in the last slot of its ring.
    LosesLastSlot,
    /// It takes at most two descriptors.
    AtMostTwo,
    /// It takes an indirect table for a buffer.
    NoIndirect,
    /// It takes a buffer to lie in one region.
    OneRegion,
    /// It never calls when there are no event indices.
    NeverCalls,
    /// It takes `used_event` for a flag.
    IgnoresUsedEvent,
    /// It calls for each completion.
    AlwaysCalls,
    /// It calls only the first eventfd.
    KeepsFirstCall,
    /// It does not move `avail_event`, so that it is not kicked again.
    AsksOnce,
    /// It follows a chain for ever.
    FollowsLoops,
    /// It panics at an index outside the table.
    PanicsOnIndex,
    /// It panics when a buffer has an odd length.
    PanicsOnLength,
    /// It panics at an address outside memory.
    PanicsOnAddress,
    /// It panics at an odd indirect table.
    PanicsOnTable,
    /// It panics when the index runs ahead of the ring.
    PanicsOnJump,
    /// It panics when a ring is not in memory.
    PanicsOnRing,
    /// It says it wrote more than it may.
    SaysTooMuch,
    /// At the end of a packed ring it keeps its wrap counter.
    KeepsWrap,
    /// It does not take the state that it has saved.
    RefusesOwnState,
    /// It tells its state while rings run.
    TellsTooEarly,
    /// It panics at state that is not its own.
    PanicsOnState,
}

/// The largest ring it takes.
const SIZE: u16 = 256;
const QUEUES: usize = 3;
const CONFIG: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// The reference device, sound or not, as an endpoint.
pub(super) struct Reference {
    fault: Fault,
    limit: Duration,
    thread: Option<JoinHandle<()>>,
    dead: bool,
}

impl Reference {
    /// A device with one fault, or none.
    pub(super) fn new(fault: Fault) -> Self {
        let limit = if fault == Fault::None { 20_000 } else { 300 };
        Self {
            fault,
            limit: Duration::from_millis(limit),
            thread: None,
            dead: false,
        }
    }

    /// Sees the connection before to its end.
    fn reap(&mut self) -> Outcome {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let end = Instant::now() + self.limit;
        while !thread.is_finished() {
            if Instant::now() > end {
                return Err(Failure::new("the connection before is still served"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        self.dead |= thread.join().is_err() || self.fault == Fault::ServesOnce;
        Ok(())
    }
}

impl Endpoint for Reference {
    fn connect(&mut self) -> Outcome<UnixStream> {
        self.reap()?;
        self.check_alive()?;
        let (ours, theirs) = UnixStream::pair()?;
        let fault = self.fault;
        self.thread = Some(std::thread::spawn(move || session::serve(&theirs, fault)));
        Ok(ours)
    }

    fn expected(&self) -> Expected {
        Expected {
            features: crate::driver::connection::F_INDIRECT_DESC,
            config_len: CONFIG.len() as u32,
            queues: QUEUES as u16,
            max_queue_size: SIZE,
            running: vec![0, 1],
            probe: Probe {
                queue: 0,
                readable: (0..40).collect(),
                writable: 24,
                check: |written, data| {
                    let expected: Vec<u8> = (0..24u8).map(|byte| !byte).collect();
                    if written == 24 && data == expected {
                        Ok(())
                    } else {
                        Err(format!("{written} bytes written: {data:x?}"))
                    }
                },
            },
        }
    }

    fn check_alive(&mut self) -> Outcome {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.reap()?;
        }
        if self.dead {
            Err(Failure::new("the device died"))
        } else {
            Ok(())
        }
    }

    fn limit(&self) -> Duration {
        self.limit
    }
}

mod sound {
    use super::{Fault, Reference};

    crate::conformance!(Reference::new(Fault::None));
}
