//! A disk in memory that, now and then, does not keep what is written to it: what `--verify` must find.

use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use outboard_device::device::{Progress, QueueWorker, Ready};
use outboard_device::{Device, DeviceError, Queue, Request, Worker};

use crate::verify::stamp::SECTOR;

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wrong {
    /// Nothing: the control.
    Nothing,
    /// Acknowledges a write and forgets it.
    Drop,
    /// Writes the first half.
    Tear,
    /// Writes in the place of the write before, and what was there in this one's.
    Swap,
    /// Writes in another place too.
    Duplicate,
    /// Answers the next read of the block with what it held before.
    Stale,
}

/// The disk.
#[derive(Debug)]
pub struct Faulty(Arc<Mutex<Store>>);

#[derive(Debug)]
struct Store {
    data: Vec<u8>,
    wrong: Wrong,
    every: u64,
    writes: u64,
    /// Where the write before went.
    last: Option<std::ops::Range<usize>>,
    /// What a read of that place will get, once.
    stale: Option<(usize, Vec<u8>)>,
}

impl Faulty {
    /// Of `size` bytes, which does wrong one write in `every`.
    pub fn new(size: u64, wrong: Wrong, every: u64) -> Self {
        Self(Arc::new(Mutex::new(Store {
            data: vec![0; size as usize],
            wrong,
            every: every.max(1),
            writes: 0,
            last: None,
            stale: None,
        })))
    }
}

impl Device for Faulty {
    fn device_id(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![1]
    }

    fn config_len(&self) -> u32 {
        8
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        let store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sectors = (store.data.len() / SECTOR) as u64;
        for (to, from) in data
            .iter_mut()
            .zip(sectors.to_le_bytes().iter().skip(offset as usize))
        {
            *to = *from;
        }
    }

    fn set_features(&mut self, _acked: u64) -> Result<(), DeviceError> {
        Ok(())
    }

    fn start(&mut self, _group: usize) -> Result<Worker, DeviceError> {
        Ok(Worker::queues(Server(Arc::clone(&self.0))))
    }

    fn reset(&mut self) {}
}

struct Server(Arc<Mutex<Store>>);

impl QueueWorker for Server {
    fn run(&mut self, queues: &mut [Queue], _ready: Ready) -> Result<Progress, DeviceError> {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut progress = Progress::Idle;
        for queue in queues {
            while let Some(request) = queue.pop()? {
                let written = store.serve(&request);
                queue.complete([(request, written)])?;
                progress = Progress::Worked;
            }
        }
        Ok(progress)
    }
}

impl Store {
    /// Does a read or a write; a status of 1 (IOERR) to what is neither or not on the disk.
    fn serve(&mut self, request: &Request) -> u32 {
        let mut header = [0; 16];
        let mut reader = request.reader();
        let Ok((mut data, mut status)) = request.writer().split_last(1) else {
            return 0;
        };
        if reader.read_exact(&mut header).is_err() {
            return 0;
        }
        let [kind, _, _, _, _, _, _, _, sector @ ..] = header;
        let start = u64::from_le_bytes(sector) as usize * SECTOR;
        let written = match kind {
            0 => self.read(start, data.len()).map(|bytes| data.write(&bytes)),
            1 => {
                let mut bytes = vec![0; reader.len()];
                let read = reader.read_exact(&mut bytes).is_ok();
                read.then(|| self.write(start, &bytes))
                    .flatten()
                    .map(|()| 0)
            }
            _ => None,
        };
        status.write(&[u8::from(written.is_none())]);
        written.unwrap_or(0) as u32 + 1
    }

    fn read(&mut self, start: usize, len: usize) -> Option<Vec<u8>> {
        if let Some((at, bytes)) = self
            .stale
            .take_if(|(at, bytes)| *at == start && bytes.len() == len)
        {
            debug_assert_eq!(at, start);
            return Some(bytes);
        }
        Some(self.data.get(start..start.checked_add(len)?)?.to_vec())
    }

    fn write(&mut self, start: usize, bytes: &[u8]) -> Option<()> {
        let place = start..start.checked_add(bytes.len())?;
        let before = self.data.get(place.clone())?.to_vec();
        self.writes += 1;
        let last = self
            .last
            .replace(place.clone())
            .filter(|last| last.len() == bytes.len() && *last != place);
        let wrong = if self.writes.is_multiple_of(self.every) {
            self.wrong
        } else {
            Wrong::Nothing
        };
        match wrong {
            Wrong::Nothing => self.put(start, bytes),
            Wrong::Drop => {}
            Wrong::Tear => self.put(start, bytes.get(..bytes.len() / 2)?),
            Wrong::Swap => match last {
                Some(last) => {
                    let there = self.data.get(last.clone())?.to_vec();
                    self.put(last.start, bytes);
                    self.put(start, &there);
                }
                None => self.put(start, bytes),
            },
            Wrong::Duplicate => {
                self.put(start, bytes);
                let elsewhere = (start + self.data.len() / 2) % self.data.len();
                self.put(elsewhere, bytes);
            }
            Wrong::Stale => {
                self.put(start, bytes);
                self.stale = Some((start, before));
            }
        }
        Some(())
    }

    fn put(&mut self, start: usize, bytes: &[u8]) {
        if let Some(place) = self.data.get_mut(start..start + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}
