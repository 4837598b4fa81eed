//! A whole virtio device in a page: entropy (virtio 1.2, section 5.4), as a daemon.
//!
//! ```sh
//! cargo run -p outboard-device --example entropy -- --socket /tmp/entropy.sock
//! outboard run ... --device vhost-user,id=rng0,socket=/tmp/entropy.sock,queues=1
//! ```

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

use clap::Parser;
use outboard_device::device::LocalFuture;
use outboard_device::queue::RequestStream;
use outboard_device::{AsyncDevice, Device, DeviceError, Worker, daemon};

/// Bytes given for one request at most: what a guest asks for at a time is far less.
const MOST: usize = 4096;

/// Gives the guest random bytes of the host's.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    endpoint: daemon::Endpoint,
    #[command(flatten)]
    log: daemon::LogArgs,
}

/// One queue, no features, no configuration.
struct Entropy;

impl Device for Entropy {
    fn device_id(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![1]
    }

    fn config_len(&self) -> u32 {
        0
    }

    fn read_config(&self, _offset: u32, _data: &mut [u8]) {}

    fn set_features(&mut self, _acked: u64) -> Result<(), DeviceError> {
        Ok(())
    }

    fn start(&mut self, _group: usize) -> Result<Worker, DeviceError> {
        let source = File::open("/dev/urandom");
        let source = source.map_err(|error| DeviceError::io("open /dev/urandom", error))?;
        Ok(Worker::asynchronous(Source(source)))
    }

    fn reset(&mut self) {}
}

/// Where the bytes come from.
struct Source(File);

impl AsyncDevice for Source {
    fn run(&mut self, queues: Vec<RequestStream>) -> LocalFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let mut bytes = [0; MOST];
            for mut queue in queues {
                while let Some(request) = queue.next().await? {
                    let mut room = request.writer();
                    let bytes = &mut bytes[..room.len().min(MOST)];
                    let read = self.0.read_exact(bytes);
                    read.map_err(|error| DeviceError::io("read /dev/urandom", error))?;
                    let written = room.write(bytes);
                    request.complete(written as u32)?;
                }
            }
            Ok(())
        })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    daemon::init_logging(&cli.log);
    daemon::exit(daemon::serve(&cli.endpoint, Entropy))
}
