//! The device that does nothing: of a block request it reads the header and writes the status.
//!
//! What is left is the ring, and its host: what any device on the same engine pays at least.
#![allow(unsafe_code)] // The plugin's entry is a symbol that C finds.

use outboard_device::device::{Progress, QueueWorker, Ready};
use outboard_device::plugin::{FromOptions, OptionSpec, Options};
use outboard_device::{Device, DeviceError, Queue, Request, Worker};

outboard_device::export_plugin! { virtio 2: Null }

/// Sectors it pretends to have: 1 GiB.
const SECTORS: u64 = 2 << 20;
/// Feature bit: there is more than one queue (virtio 1.2, section 5.2.3).
const F_MQ: u64 = 1 << 12;
/// Where the config space says how many (virtio 1.2, section 5.2.4).
const NUM_QUEUES_AT: usize = 34;
const CONFIG_LEN: usize = 60;

/// What a request's status byte says (virtio 1.2, section 5.2.6).
const OK: u8 = 0;
const UNSUPPORTED: u8 = 2;

/// Requests taken at a time: few enough that the driver has some to take back while others are served.
const BATCH: usize = 16;

/// A block device without blocks.
#[derive(Debug)]
pub struct Null {
    queues: u16,
}

impl Null {
    /// With so many queues.
    pub fn new(queues: u16) -> Self {
        Self { queues }
    }
}

impl FromOptions for Null {
    const NAME: &'static str = "null";
    const SUMMARY: &'static str = "A disk that answers and does nothing";
    const OPTIONS: &'static [OptionSpec] = &[];

    fn from_options(_: &Options<'_>) -> Result<Self, DeviceError> {
        Ok(Self::new(1))
    }
}

impl Device for Null {
    fn device_id(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        F_MQ
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![1; usize::from(self.queues)]
    }

    fn config_len(&self) -> u32 {
        CONFIG_LEN as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        let mut config = [0; CONFIG_LEN];
        config[..8].copy_from_slice(&SECTORS.to_le_bytes());
        config[NUM_QUEUES_AT..NUM_QUEUES_AT + 2].copy_from_slice(&self.queues.to_le_bytes());
        let from = config.get(offset as usize..).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(from) {
            *to = *from;
        }
    }

    fn set_features(&mut self, _acked: u64) -> Result<(), DeviceError> {
        Ok(())
    }

    fn start(&mut self, _group: usize) -> Result<Worker, DeviceError> {
        Ok(Worker::queues(Answers(Vec::with_capacity(BATCH))))
    }

    fn reset(&mut self) {}
}

/// Answered and not yet published.
struct Answers(Vec<(Request, u32)>);

impl QueueWorker for Answers {
    fn run(&mut self, queues: &mut [Queue], _ready: Ready) -> Result<Progress, DeviceError> {
        let mut progress = Progress::Idle;
        for queue in queues {
            while self.0.len() < BATCH
                && let Some(request) = queue.pop()?
            {
                let written = answer(&request);
                self.0.push((request, written));
            }
            if !self.0.is_empty() {
                queue.complete(self.0.drain(..))?;
                progress = Progress::Worked;
            }
        }
        Ok(progress)
    }
}

/// Reads the header and writes the status. Bytes written: what a read would have, and the status.
#[inline]
fn answer(request: &Request) -> u32 {
    let mut header = [0; 16];
    if request.reader().read_exact(&mut header).is_err() {
        return 0;
    }
    let Ok((data, mut status)) = request.writer().split_last(1) else {
        return 0;
    };
    let [a, b, c, d, ..] = header;
    let known = matches!(u32::from_le_bytes([a, b, c, d]), 0 | 1 | 4 | 8);
    status.write(&[if known { OK } else { UNSUPPORTED }]);
    data.len() as u32 + 1
}
