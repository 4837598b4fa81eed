//! A learning switch whose ports are guests: `outboard-net switch`.
//!
//! Each [`port`] is a device with a socket and a session of its own; one thread has the queues of all
//! and does the [`forwarding`] between them. A frame is copied once, by [`deliver`], out of the sender's
//! memory into the receiver's buffers. The [`table`] tells behind which port an address is. What passes
//! and what is dropped is in the [`counters`] of each port.

pub mod cli;
pub mod counters;
pub mod deliver;
pub mod forwarding;
pub mod port;
pub mod table;

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use counters::Counters;

/// The longest Ethernet frame there is: a packet of 65535 bytes, an Ethernet header, and a VLAN tag.
pub const MAX_FRAME: usize = 65535 + 14 + 4;

/// What is told of a switch on request and at its end.
#[derive(Debug)]
pub struct Report {
    ports: Vec<(String, Arc<Counters>)>,
    /// For a machine: each time a line of JSON for each port.
    file: Option<Mutex<File>>,
}

impl Report {
    /// Of these ports, into the log and, if given, a file.
    pub fn new(ports: Vec<(String, Arc<Counters>)>, file: Option<File>) -> Self {
        let file = file.map(Mutex::new);
        Self { ports, file }
    }

    /// Tells the counters as they are now.
    pub fn tell(&self) {
        for (name, counters) in &self.ports {
            info!("port {name}: {counters}");
        }
        if let Err(error) = self.write() {
            warn!("The counters cannot be written: {error}");
        }
    }

    fn write(&self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let lines: String = self
            .ports
            .iter()
            .map(|(name, counters)| counters.to_json(name) + "\n")
            .collect();
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(lines.as_bytes())
    }
}
