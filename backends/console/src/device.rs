//! The virtio console (virtio 1.2, section 5.3): one port, no control queue.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outboard_device::device::LocalFuture;
use outboard_device::queue::RequestStream;
use outboard_device::{AsyncDevice, Device, DeviceError, DeviceEvents, Reader, Worker};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::size::Size;

/// Virtio 1.2, section 5.3.
const DEVICE_ID: u32 = 3;
/// Section 5.3.3: the configuration has a terminal size.
const F_SIZE: u64 = 1 << 0;
/// Section 5.3.4: cols (16 bits), rows (16), `max_nr_ports` (32), `emerg_wr` (32).
const CONFIG_LEN: usize = 12;
/// Section 5.3.2: receiveq is queue 0, transmitq queue 1; each is a group of its own.
const RECEIVE: usize = 0;
/// How long the rest of a request, printed in part, may hold up a stop of its queue.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// One copy through this process's memory, as large as a guest's usual buffer.
const CHUNK: usize = 4096;

/// A virtio console whose bytes go to and come from a stream.
pub struct Console {
    stream: StdStream,
    size: Size,
    events: Events,
}

/// The device's voice towards its present frontend, shared with who watches the terminal's size.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Option<DeviceEvents>>>);

impl Events {
    /// Tells the guest that the configuration has changed. Nothing happens without a frontend.
    pub fn config_changed(&self) {
        if let Some(events) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            events.config_changed();
        }
    }
}

impl Console {
    /// A console whose output is written to `stream` and whose input is read from it.
    pub fn new(stream: StdStream, size: Size, events: Events) -> Self {
        Self {
            stream,
            size,
            events,
        }
    }

    fn config(&self) -> [u8; CONFIG_LEN] {
        let (columns, rows) = self.size.get();
        let [c0, c1] = columns.to_le_bytes();
        let [r0, r1] = rows.to_le_bytes();
        // max_nr_ports counts only where MULTIPORT is offered.
        [c0, c1, r0, r1, 1, 0, 0, 0, 0, 0, 0, 0]
    }
}

impl Device for Console {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        F_SIZE
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![1, 1]
    }

    fn config_len(&self) -> u32 {
        CONFIG_LEN as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        let config = self.config();
        let bytes = config
            .iter()
            .skip(offset as usize)
            .chain(std::iter::repeat(&0));
        data.iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    }

    fn set_features(&mut self, _acked: u64) -> Result<(), DeviceError> {
        Ok(())
    }

    fn attach(&mut self, events: DeviceEvents) {
        *self.events.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }

    fn start(&mut self, group: usize) -> Result<Worker, DeviceError> {
        let stream = self
            .stream
            .try_clone()
            .map_err(|e| DeviceError::io("copy the console's stream", e))?;
        Ok(match group {
            RECEIVE => Worker::asynchronous(Input(stream)),
            _ => Worker::asynchronous(Output(stream)),
        })
    }

    fn reset(&mut self) {}
}

/// Registers a copy of the stream with the runtime of the thread that calls.
fn join(stream: &StdStream) -> Result<UnixStream, DeviceError> {
    let joined = stream.try_clone().and_then(|stream| {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    });
    joined.map_err(|e| DeviceError::io("watch the console's stream", e))
}

/// Fills the buffers that the guest posts with what people type.
struct Input(StdStream);

impl AsyncDevice for Input {
    fn run(&mut self, mut queues: Vec<RequestStream>) -> LocalFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let stream = join(&self.0)?;
            let Some(queue) = queues.first_mut() else {
                return Ok(());
            };
            let mut bytes = [0; CHUNK];
            while let Some(request) = queue.next().await? {
                let room = request.writer().len().min(CHUNK);
                if room == 0 {
                    request.complete(0)?;
                    continue;
                }
                let got = loop {
                    // Nothing is read before there is a buffer for it, so a stop loses nothing.
                    tokio::select! {
                        biased;
                        () = queue.stopped() => return Ok(()),
                        ready = stream.readable() => ready.map_err(|e| DeviceError::io("wait for input", e))?,
                    }
                    match stream.try_read(bytes.get_mut(..room).unwrap_or_default()) {
                        // The people's side is gone; there is nothing more to type.
                        Ok(0) => {
                            queue.stopped().await;
                            return Ok(());
                        }
                        Ok(got) => break got,
                        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                        Err(e) => return Err(DeviceError::io("read input", e)),
                    }
                };
                let written = request.writer().write(bytes.get(..got).unwrap_or_default());
                request.complete(u32::try_from(written).unwrap_or(0))?;
            }
            Ok(())
        })
    }
}

/// Writes what the guest prints to the stream, in order.
struct Output(StdStream);

impl AsyncDevice for Output {
    fn run(&mut self, mut queues: Vec<RequestStream>) -> LocalFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let stream = join(&self.0)?;
            let Some(queue) = queues.first_mut() else {
                return Ok(());
            };
            while let Some(request) = queue.next().await? {
                match print(&stream, request.reader(), queue).await {
                    Printed::Nothing => {
                        request.give_back();
                        return Ok(());
                    }
                    Printed::Done => request.complete(0)?,
                }
            }
            Ok(())
        })
    }
}

/// What became of a request's bytes.
enum Printed {
    /// The stream has them, or is gone.
    Done,
    /// The queue stops and none of them is printed: whoever serves it next prints them.
    Nothing,
}

/// Writes a request's bytes to the stream. When the queue is to stop while people are stuck, the
/// rest of a request that is printed in part has a moment more, and is lost after it.
async fn print(stream: &UnixStream, mut reader: Reader<'_>, queue: &RequestStream) -> Printed {
    let mut bytes = [0; CHUNK];
    let mut begun = false;
    // Once the queue is told to stop: when the rest is lost.
    let mut end: Option<Instant> = None;
    let mut stopped = pin!(queue.stopped());
    while !reader.is_empty() {
        let got = reader.read(&mut bytes);
        let mut rest = bytes.get(..got).unwrap_or_default();
        while !rest.is_empty() {
            match stream.try_write(rest) {
                Ok(taken) => {
                    begun |= taken > 0;
                    rest = rest.get(taken..).unwrap_or_default();
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Printed::Done,
            }
            let writable = async { stream.writable().await.is_ok() };
            tokio::select! {
                biased;
                () = &mut stopped, if end.is_none() => {
                    if !begun {
                        return Printed::Nothing;
                    }
                    end = Instant::now().checked_add(LAST_WORDS);
                }
                is = writable => if !is { return Printed::Done },
                () = until(end) => return Printed::Done,
            }
        }
    }
    Printed::Done
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_tells_the_size_and_ends() {
        let (stream, _other) = StdStream::pair().unwrap();
        let size = Size::default();
        size.set(80, 25);
        let console = Console::new(stream, size, Events::default());
        let mut bytes = [0xff; 16];
        console.read_config(0, &mut bytes);
        assert_eq!(bytes, [80, 0, 25, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        console.read_config(u32::MAX, &mut bytes);
        assert_eq!(bytes, [0; 16]);
    }
}
