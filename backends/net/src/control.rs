//! The control queue (virtio 1.2, section 5.1.6.5): how many queue pairs the driver uses.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use outboard_device::ratelimit::RateLimit;
use outboard_device::{DeviceError, Progress, Queue, QueueWorker, Ready, Request};
use tracing::{debug, warn};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use crate::pairs::Pairs;

/// Commands answered in one call.
const BUDGET: usize = 64;

/// Serves the control queue.
#[derive(Debug)]
pub struct ControlWorker {
    pairs: Arc<Pairs>,
    /// The driver took `VIRTIO_NET_F_MQ`.
    multiqueue: bool,
}

impl ControlWorker {
    /// `multiqueue`: the driver took `VIRTIO_NET_F_MQ`.
    pub fn new(pairs: Arc<Pairs>, multiqueue: bool) -> Self {
        Self { pairs, multiqueue }
    }

    /// Obeys a command; returns how many bytes have been written. One without room for an answer is
    /// not obeyed.
    fn answer(&self, request: &Request) -> u32 {
        let mut writer = request.writer();
        if writer.is_empty() {
            return 0;
        }
        let mut reader = request.reader();
        let mut head = [0; 2];
        let obeyed = reader.read_exact(&mut head).is_ok() && {
            // The longest data of a command that is known, and one byte that would be too many.
            let mut data = [0; 3];
            let len = reader.read(&mut data);
            self.obey(head, data.get(..len).unwrap_or_default())
        };
        if !obeyed {
            static LIMIT: RateLimit = RateLimit::new();
            if let Some(unseen) = LIMIT.pass() {
                debug!("Control command {head:?} is refused{unseen}");
            }
        }
        let answer = if obeyed {
            VIRTIO_NET_OK
        } else {
            VIRTIO_NET_ERR
        };
        writer.write(&[answer as u8]) as u32
    }

    fn obey(&self, [class, command]: [u8; 2], data: &[u8]) -> bool {
        match (u32::from(class), u32::from(command), data) {
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &[low, high])
                if self.multiqueue =>
            {
                let wanted = u16::from_le_bytes([low, high]);
                match self.pairs.set_active(wanted) {
                    Ok(()) => true,
                    Err(error) => {
                        static LIMIT: RateLimit = RateLimit::new();
                        if let Some(unseen) = LIMIT.pass() {
                            warn!("The card cannot use {wanted} queue pairs: {error}{unseen}");
                        }
                        false
                    }
                }
            }
            _ => false,
        }
    }
}

impl QueueWorker for ControlWorker {
    fn run(&mut self, queues: &mut [Queue], _: Ready) -> Result<Progress, DeviceError> {
        let Some(queue) = queues.first_mut() else {
            return Ok(Progress::Idle);
        };
        let mut progress = Progress::Idle;
        for _ in 0..BUDGET {
            let Some(request) = queue.pop()? else { break };
            let written = self.answer(&request);
            queue.complete([(request, written)])?;
            progress = Progress::Worked;
        }
        Ok(progress)
    }
}
