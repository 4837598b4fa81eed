//! The device under test: it inverts what it reads, in one of several ways.
#![allow(clippy::arithmetic_side_effects)]

use std::sync::Arc;
use std::sync::mpsc::Sender;

use nix::sys::eventfd::EventFd;

use crate::device::{
    AsyncDevice, Device, DeviceError, DeviceEvents, LocalFuture, Progress, QueueWorker, Ready,
    Watch, Worker,
};
use crate::queue::{Queue, RequestStream};
use crate::request::Request;

pub(super) const CONFIG: [u8; 8] = *b"outboard";

/// How the test device serves its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Inverts what it reads, on the worker's thread.
    Fast,
    /// The same, awaiting requests in turn.
    Simple,
    /// The same, a task for each request.
    Spawned,
    /// Takes requests and holds them until it must stop; then it gives them back.
    Hoarding,
    /// Answers one request for each count of an eventfd of its own.
    Ticking,
    /// The same, and wants to hear of it more often than can be.
    Crowding,
    /// Breaks with an error at the first request, holding it.
    Failing,
    /// Panics at the first request.
    Panicking,
    /// Panics at the first request, at the simple level.
    SimplyPanicking,
    /// Drops each request unanswered.
    Dropping,
}

/// What the device was told, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Features(u64),
    Started(usize),
    Stopped(usize),
    Wrote(u32, Vec<u8>),
    Reset,
}

pub(super) struct Inverter {
    pub(super) way: Way,
    pub(super) log: Sender<Told>,
    pub(super) events: Sender<DeviceEvents>,
    pub(super) tick: Arc<EventFd>,
}

/// Answers with the readable bytes inverted, as far as there is room.
fn invert(request: &Request) -> u32 {
    let mut bytes = vec![0; request.reader().len()];
    request.reader().read(&mut bytes);
    for byte in &mut bytes {
        *byte = !*byte;
    }
    request.writer().write(&bytes) as u32
}

impl Device for Inverter {
    fn device_id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        0b101
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![1, 2]
    }

    fn max_queue_size(&self) -> u16 {
        256
    }

    fn config_len(&self) -> u32 {
        CONFIG.len() as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        data.copy_from_slice(&CONFIG[offset as usize..][..data.len()]);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let _ = self.log.send(Told::Wrote(offset, data.to_vec()));
    }

    fn set_features(&mut self, acked: u64) -> Result<(), DeviceError> {
        let _ = self.log.send(Told::Features(acked));
        Ok(())
    }

    fn attach(&mut self, events: DeviceEvents) {
        let _ = self.events.send(events);
    }

    fn start(&mut self, group: usize) -> Result<Worker, DeviceError> {
        let _ = self.log.send(Told::Started(group));
        let way = self.way;
        Ok(match way {
            Way::Simple | Way::Spawned | Way::SimplyPanicking | Way::Dropping => {
                Worker::asynchronous(Simple(way))
            }
            _ => Worker::queues(Fast {
                way,
                held: Vec::new(),
                tick: Arc::clone(&self.tick),
                crowd: (0..if way == Way::Crowding { 65 } else { 0 })
                    .map(|_| EventFd::new().unwrap())
                    .collect(),
            }),
        })
    }

    fn stop(&mut self, group: usize, _worker: Worker) {
        let _ = self.log.send(Told::Stopped(group));
    }

    fn reset(&mut self) {
        let _ = self.log.send(Told::Reset);
    }
}

struct Fast {
    way: Way,
    held: Vec<Request>,
    tick: Arc<EventFd>,
    crowd: Vec<EventFd>,
}

impl Fast {
    /// Answers as many held requests as the eventfd has counted.
    fn tick(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        let count = self.tick.read().unwrap_or(0).min(self.held.len() as u64);
        for request in self.held.drain(..count as usize) {
            let queue = queues.iter_mut().find(|q| q.index() == request.queue());
            let written = invert(&request);
            queue.unwrap().complete([(request, written)])?;
        }
        Ok(match (count, self.held.len()) {
            (0, 0) => Progress::Idle,
            (0, _) => Progress::Waiting,
            _ => Progress::Worked,
        })
    }
}

impl QueueWorker for Fast {
    fn event_fds(&self) -> Vec<Watch<'_>> {
        match self.way {
            Way::Ticking => vec![Watch::readable(&*self.tick)],
            Way::Crowding => self.crowd.iter().map(Watch::readable).collect(),
            _ => Vec::new(),
        }
    }

    fn run(&mut self, queues: &mut [Queue], ready: Ready) -> Result<Progress, DeviceError> {
        let mut progress = Progress::Idle;
        if self.way == Way::Ticking && ready.event(0) {
            progress = self.tick(queues)?;
        }
        for queue in queues {
            let mut done = Vec::new();
            while let Some(request) = queue.pop()? {
                match self.way {
                    Way::Panicking => panic!("as it should"),
                    Way::Hoarding | Way::Ticking => self.held.push(request),
                    Way::Failing => {
                        self.held.push(request);
                        return Err(DeviceError::other("as it should"));
                    }
                    _ => {
                        let written = invert(&request);
                        done.push((request, written));
                    }
                }
            }
            if !done.is_empty() {
                progress = Progress::Worked;
            }
            queue.complete(done)?;
        }
        Ok(progress)
    }

    fn drain(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        if self.way == Way::Ticking {
            return self.tick(queues);
        }
        for request in self.held.drain(..) {
            let queue = queues.iter_mut().find(|q| q.index() == request.queue());
            queue.unwrap().give_back(request);
        }
        Ok(Progress::Idle)
    }
}

struct Simple(Way);

impl AsyncDevice for Simple {
    fn run(&mut self, queues: Vec<RequestStream>) -> LocalFuture<'_, Result<(), DeviceError>> {
        let way = self.0;
        Box::pin(async move {
            let mut all = tokio::task::JoinSet::new();
            for queue in queues {
                all.spawn_local(answer_all(way, queue));
            }
            while let Some(served) = all.join_next().await {
                match served {
                    Ok(result) => result?,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            }
            Ok(())
        })
    }
}

/// Serves one queue until it stops.
async fn answer_all(way: Way, mut queue: RequestStream) -> Result<(), DeviceError> {
    while let Some(request) = queue.next().await? {
        match way {
            Way::Dropping => drop(request),
            Way::SimplyPanicking => panic!("as it should"),
            Way::Spawned => {
                tokio::task::spawn_local(async move {
                    tokio::task::yield_now().await;
                    let written = invert(&request);
                    request.complete(written)
                });
            }
            _ => {
                let written = invert(&request);
                request.complete(written)?;
            }
        }
    }
    Ok(())
}
