//! Entropy (virtio 1.2, section 5.4): the guest's random bytes come from the host's kernel, or from a
//! file.
//!
//! The smallest whole device there is, and an asynchronous one: requests come as a stream, and are
//! answered in turn.
#![allow(unsafe_code)] // The plugin's entry is a symbol that C finds.

use std::fs::File;
use std::io::Read;

use outboard_device::abi::export::{FromOptions, OptionSpec, Options};
use outboard_device::device::LocalFuture;
use outboard_device::queue::RequestStream;
use outboard_device::{AsyncDevice, Device, DeviceError, Worker};

/// Bytes given for one request at most: what a guest asks for at a time is far less.
const MOST: usize = 4096;

outboard_device::export_plugin! { virtio 4: Entropy }

/// One queue, no features, no configuration: of those there is nothing to say.
#[derive(Debug)]
pub struct Entropy(File);

impl FromOptions for Entropy {
    const NAME: &'static str = "entropy";
    const SUMMARY: &'static str = "Random bytes for the guest";
    const OPTIONS: &'static [OptionSpec] =
        &[OptionSpec::path("source", "where the bytes are read").default("/dev/urandom")];

    fn from_options(options: &Options<'_>) -> Result<Self, DeviceError> {
        let source = options.path("source").unwrap_or("/dev/urandom".as_ref());
        let file = File::open(source);
        let what = || format!("open source={}", source.display());
        Ok(Self(file.map_err(|error| DeviceError::io(what(), error))?))
    }
}

impl Device for Entropy {
    fn device_id(&self) -> u32 {
        4
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![1]
    }

    fn start(&mut self, _group: usize) -> Result<Worker, DeviceError> {
        let source = self.0.try_clone();
        let source = source.map_err(|error| DeviceError::io("share the source", error))?;
        Ok(Worker::asynchronous(Source(source)))
    }
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
                    let len = room.len().min(MOST);
                    let bytes = bytes.get_mut(..len).unwrap_or_default();
                    let read = self.0.read_exact(bytes);
                    read.map_err(|error| DeviceError::io("read the source", error))?;
                    let written = room.write(bytes);
                    request.complete(written as u32)?;
                }
            }
            Ok(())
        })
    }
}
