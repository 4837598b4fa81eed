//! From an irqfd to the guest's handler: a device that raises interrupts and times them, and the guest's half.
//!
//! The guest's clock is not always its host's, and a way there and back would have an exit in it. So the device
//! watches the word of guest memory in which the handler counts, first of all it does: from just before the
//! eventfd is written until the word has changed is one clock, on one CPU.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use outboard_device::device::{Progress, QueueWorker, Ready};
use outboard_device::{Device, DeviceError, Queue, Request, Worker};

use crate::error::Result;
use crate::figures::Latency;
use crate::guest;

/// Kinds of request, beyond a disk's (tests/payload/interrupts.rs).
const WATCH: u32 = 0x100;
const INTERRUPT: u32 = 0x101;
const TELL: u32 = 0x102;
/// From a request to its interrupt: a guest that will halt has done so by then.
const PAUSE: Duration = Duration::from_micros(200);
/// An interrupt that takes so long is lost.
const LOST: Duration = Duration::from_secs(2);
/// What a status byte says (virtio 1.2, section 5.2.6).
const OK: u8 = 0;
const UNSUPPORTED: u8 = 2;

/// The device: to a guest a disk, which knows requests of its own and no others.
#[derive(Debug)]
pub struct Bell;

impl Device for Bell {
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

    fn read_config(&self, _offset: u32, data: &mut [u8]) {
        data.fill(0);
    }

    fn set_features(&mut self, _acked: u64) -> std::result::Result<(), DeviceError> {
        Ok(())
    }

    fn start(&mut self, _group: usize) -> std::result::Result<Worker, DeviceError> {
        // Nanoseconds, of which none is longer than what is lost.
        let times = Histogram::new_with_bounds(1, 2 * LOST.as_nanos() as u64, 3);
        let times = times.map_err(DeviceError::other)?;
        Ok(Worker::queues(Ringer {
            watched: None,
            times,
        }))
    }

    fn reset(&mut self) {}
}

struct Ringer {
    /// The request whose first writable bytes are where the handler counts.
    watched: Option<Request>,
    times: Histogram<u64>,
}

impl QueueWorker for Ringer {
    fn run(
        &mut self,
        queues: &mut [Queue],
        _ready: Ready,
    ) -> std::result::Result<Progress, DeviceError> {
        let mut progress = Progress::Idle;
        for queue in queues {
            while let Some(request) = queue.pop()? {
                self.serve(queue, request)?;
                progress = Progress::Worked;
            }
        }
        Ok(progress)
    }
}

impl Ringer {
    fn serve(
        &mut self,
        queue: &mut Queue,
        request: Request,
    ) -> std::result::Result<(), DeviceError> {
        let mut header = [0; 16];
        let read = request.reader().read_exact(&mut header).is_ok();
        let [a, b, c, d, ..] = header;
        match u32::from_le_bytes([a, b, c, d]) {
            WATCH if read => {
                self.times.reset();
                end(&request, OK);
                // Given back with what it came to.
                if let Some(before) = self.watched.replace(request) {
                    queue.complete([(before, 1)])?;
                }
                Ok(())
            }
            INTERRUPT if read => {
                let from = self.count();
                wait(PAUSE);
                end(&request, OK);
                let begun = Instant::now();
                queue.complete([(request, 1)])?;
                while self.count() == from {
                    if begun.elapsed() > LOST {
                        return Err(DeviceError::other(format!(
                            "the guest has not counted an interrupt within {} s",
                            LOST.as_secs()
                        )));
                    }
                    std::hint::spin_loop();
                }
                let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.times.saturating_record(nanos.max(1));
                Ok(())
            }
            TELL if read => {
                let told = [
                    self.times.mean() as u64,
                    self.times.value_at_quantile(0.5),
                    self.times.value_at_quantile(0.99),
                    self.times.value_at_quantile(0.999),
                    self.times.max(),
                ];
                let told = told.map(u64::to_le_bytes).concat();
                request.writer().write(&told);
                end(&request, OK);
                let done = self.watched.take().into_iter().chain([request]);
                Ok(queue.complete(done.map(|request| (request, 1)))?)
            }
            _ => {
                end(&request, UNSUPPORTED);
                Ok(queue.complete([(request, 1)])?)
            }
        }
    }

    /// What the guest's handler has counted.
    fn count(&self) -> [u8; 8] {
        let mut count = [0; 8];
        if let Some(watched) = &self.watched {
            watched.writer().read_back(&mut count);
        }
        count
    }
}

/// Writes the status, a request's last byte.
fn end(request: &Request, status: u8) {
    if let Ok((_, mut last)) = request.writer().split_last(1) {
        last.write(&[status]);
    }
}

/// On this CPU, which is to be as awake as one at work.
fn wait(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// How long interrupts took.
#[derive(Clone, Debug, PartialEq)]
pub struct Interrupts {
    /// What the guest did meanwhile.
    pub how: String,
    /// From the eventfd to the handler's first store.
    pub latency: Latency,
}

/// Boots the guest and has it interrupted `count` times in each way.
pub fn run(count: u64, stop: &std::sync::atomic::AtomicBool) -> Result<Vec<Interrupts>> {
    let device = guest::own_daemon("serve-interrupts");
    Ok(read(&guest::boot(&device, "interrupts", count, stop)?))
}

/// What the guest has printed of them.
fn read(lines: &[String]) -> Vec<Interrupts> {
    let interrupts = |line: &String| {
        let mut words = line.strip_prefix("interrupts ")?.split_whitespace();
        let how = words.next()?.to_owned();
        let numbers: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
        let &[_count, mean, p50, p99, p999, max] = numbers.as_slice() else {
            return None;
        };
        let latency = Latency {
            mean: mean / 1e3,
            p50: p50 / 1e3,
            p99: p99 / 1e3,
            p999: p999 / 1e3,
            max: max / 1e3,
        };
        Some(Interrupts { how, latency })
    };
    lines.iter().filter_map(interrupts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_lines_are_read() {
        let lines = [
            "interrupts halted 100 12000 11000 19000 20000 21000",
            "interrupts ring-3 100 12000 11000 19000",
            "ok interrupts",
        ];
        let all = read(&lines.map(str::to_owned));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].how, "halted");
        assert!((all[0].latency.p50 - 11.0).abs() < 1e-9);
    }
}
