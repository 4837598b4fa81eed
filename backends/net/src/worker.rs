//! A queue pair's worker: both directions on one thread.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use outboard_device::{DeviceError, Progress, Queue, QueueWorker, Ready, Watch};

use crate::cable::Cable;
use crate::filter::View;
use crate::link::Link;
use crate::receive::Receive;
use crate::transmit::Transmit;

/// Serves one queue pair over one cable.
#[derive(Debug)]
pub struct NetWorker {
    cable: Arc<Cable>,
    link: Arc<Link>,
    receive: Receive,
    transmit: Transmit,
}

impl NetWorker {
    /// `mergeable`: the driver took `VIRTIO_NET_F_MRG_RXBUF`.
    pub fn new(cable: Arc<Cable>, link: Arc<Link>, filter: View, mergeable: bool) -> Self {
        Self {
            cable,
            link,
            receive: Receive::new(filter, mergeable),
            transmit: Transmit::default(),
        }
    }
}

impl QueueWorker for NetWorker {
    fn run(&mut self, queues: &mut [Queue], ready: Ready) -> Result<Progress, DeviceError> {
        let [rx, tx] = queues else {
            return Ok(Progress::Idle);
        };
        if ready.event(0) {
            self.cable.wake();
            self.receive.wake();
        }
        let sent = self.transmit.run(tx, &self.cable, &self.link)?;
        let received = self.receive.run(rx, &self.cable, &self.link)?;
        Ok(if sent || received {
            Progress::Worked
        } else {
            Progress::Idle
        })
    }

    fn event_fds(&self) -> Vec<Watch<'_>> {
        vec![Watch::both(&*self.cable)]
    }

    fn drain(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        if let [rx, tx] = queues {
            self.receive.drain(rx)?;
            self.transmit.drain(tx)?;
        }
        Ok(Progress::Idle)
    }
}
