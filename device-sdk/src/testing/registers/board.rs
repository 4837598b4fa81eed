//! A machine around a device of registers: a vCPU, memory, and an interrupt line that is watched.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use super::{Access, Expected, MEMORY, Registers};
use crate::abi::host::{GuestMemory, PluginRegisters, Wiring};
use crate::register::{InterruptLine, RegisterDevice};
use crate::testing::{Failure, Outcome, ensure};

/// How often the line is looked at.
const LOOK: Duration = Duration::from_micros(200);

/// A device in a machine of its own. The accesses are made by a thread in place of the vCPU, so that one
/// that does not return fails the check instead of never ending it.
pub struct Bench {
    /// What the device is expected to be.
    pub expected: Expected,
    /// How many bytes of registers it has.
    pub len: u64,
    asked: Option<Sender<Ask>>,
    answers: Receiver<Vec<u8>>,
    line: Arc<Line>,
    failed: Arc<AtomicBool>,
    limit: Duration,
}

/// What the vCPU is to do.
enum Ask {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Reset,
}

impl Bench {
    /// A fresh device, in its power-on state.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(registers: &Registers) -> Outcome<Self> {
        let ram = vec![0; MEMORY as usize];
        Self::with_memory(registers, Some(Arc::new(Ram(Mutex::new(ram)))))
    }

    /// The same, in a machine without memory that it could reach.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn without_memory(registers: &Registers) -> Outcome<Self> {
        Self::with_memory(registers, None)
    }

    fn with_memory(registers: &Registers, memory: Option<Arc<dyn GuestMemory>>) -> Outcome<Self> {
        let line = Arc::new(Line::default());
        let refused = |error: crate::abi::PluginError| Failure::new(error.to_string());
        let kind = registers.plugin.device(None).map_err(refused)?;
        let wired: Arc<dyn InterruptLine> = line.clone();
        let wiring = |_: &_| Wiring {
            line: Some(wired),
            memory,
        };
        let device = registers
            .plugin
            .create_registers(kind, &registers.options, wiring)
            .map_err(refused)?;
        let len = device.place().len;
        let (asked, asks) = channel();
        let (answer, answers) = channel();
        let failed = Arc::new(AtomicBool::new(false));
        let noted = failed.clone();
        // Not joined: what is stuck in the device cannot be ended.
        Builder::new().name("vcpu".into()).spawn(move || {
            run(device, &asks, &answer, &noted);
        })?;
        Ok(Self {
            expected: registers.expected.clone(),
            len,
            asked: Some(asked),
            answers,
            line,
            failed,
            limit: registers.limit,
        })
    }

    fn ask(&self, ask: Ask, what: impl Fn() -> String) -> Outcome<Vec<u8>> {
        let answer = match self.asked.as_ref().map(|asked| asked.send(ask)) {
            Some(Ok(())) => self.answers.recv_timeout(self.limit),
            _ => Err(RecvTimeoutError::Disconnected),
        };
        let answer = answer.map_err(|error| {
            Failure::new(match error {
                RecvTimeoutError::Timeout => {
                    let seconds = self.limit.as_secs_f64();
                    format!("{} has not returned after {seconds} s", what())
                }
                RecvTimeoutError::Disconnected => format!("{} ends its thread", what()),
            })
        })?;
        ensure!(
            !self.failed.load(Ordering::SeqCst),
            "the device has failed at {}: the log says why",
            what()
        );
        Ok(answer)
    }

    /// Reads so many bytes: 1, 2, 4 or 8, none of them behind the last register's.
    ///
    /// # Errors
    /// It does not return, or the device fails.
    pub fn read(&self, offset: u64, width: usize) -> Outcome<Vec<u8>> {
        self.ask(Ask::Read(offset, width), || {
            format!("a read of {width} bytes at {offset:#x}")
        })
    }

    /// Writes these bytes: 1, 2, 4 or 8, none of them behind the last register's.
    ///
    /// # Errors
    /// It does not return, or the device fails.
    pub fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let written = self.ask(Ask::Write(offset, data.to_vec()), || {
            format!("a write of {data:x?} at {offset:#x}")
        });
        written.map(drop)
    }

    /// Resets the machine.
    ///
    /// # Errors
    /// The device does not return.
    pub fn reset(&self) -> Outcome {
        self.ask(Ask::Reset, || "the reset".into()).map(drop)
    }

    /// Every access there is: offset and width.
    pub fn accesses(&self) -> Vec<(u64, usize)> {
        let widths = [1, 2, 4, 8];
        let all = widths.iter().flat_map(|&width| {
            let starts = (self.len + 1).saturating_sub(width as u64);
            (0..starts).map(move |offset| (offset, width))
        });
        all.collect()
    }

    /// The values of the plain registers.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn values(&self) -> Outcome<Vec<(u64, Vec<u8>)>> {
        let width = self.width();
        let plain = self.expected.plain.iter();
        plain
            .map(|&offset| Ok((offset, self.read(offset, width)?)))
            .collect()
    }

    /// The width of its registers.
    pub fn width(&self) -> usize {
        self.expected.widths.first().copied().unwrap_or(4)
    }

    /// Has the device interrupt, and waits for it. Where the line is to be lowered, it is high then.
    ///
    /// # Errors
    /// There is no interrupt.
    pub fn raise(&self) -> Outcome {
        let before = self.interrupts();
        self.begin()?;
        let end = Instant::now() + self.limit;
        while self.interrupts() == before {
            let seconds = self.limit.as_secs_f64();
            ensure!(Instant::now() < end, "no interrupt comes in {seconds} s");
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Has the device interrupt, now or in a while.
    ///
    /// # Errors
    /// An access does not return, or the device fails.
    pub fn begin(&self) -> Outcome {
        self.all(&self.expected.raise)
    }

    /// Has it lower its line.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    pub fn lower(&self) -> Outcome {
        self.all(&self.expected.lower)
    }

    fn all(&self, accesses: &[Access]) -> Outcome {
        accesses.iter().try_for_each(|access| match access {
            Access::Read(offset, width) => self.read(*offset, *width).map(drop),
            Access::Write(offset, data) => self.write(*offset, data),
        })
    }

    /// How often the line has gone from low to high.
    pub fn interrupts(&self) -> u64 {
        self.line.rises.load(Ordering::SeqCst)
    }

    /// Whether the line is high.
    pub fn is_high(&self) -> bool {
        self.line.high.load(Ordering::SeqCst)
    }

    /// Destroys the device.
    ///
    /// # Errors
    /// It does not return.
    pub fn end(mut self) -> Outcome {
        drop(self.asked.take());
        match self.answers.recv_timeout(self.limit) {
            // The thread is over, and the device with it.
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            _ => Err(Failure::new("destroying the device does not return")),
        }
    }
}

/// In place of the vCPU.
fn run(
    mut device: PluginRegisters,
    asks: &Receiver<Ask>,
    answers: &Sender<Vec<u8>>,
    failed: &AtomicBool,
) {
    for ask in asks {
        let mut data = Vec::new();
        match ask {
            Ask::Read(offset, width) => {
                data.resize(width, 0xff);
                device.read(offset, &mut data);
            }
            Ask::Write(offset, data) => device.write(offset, &data),
            Ask::Reset => device.reset(),
        }
        failed.store(device.has_failed(), Ordering::SeqCst);
        if answers.send(data).is_err() {
            break;
        }
    }
}

/// The interrupt line.
#[derive(Default)]
struct Line {
    high: AtomicBool,
    rises: AtomicU64,
}

impl InterruptLine for Line {
    fn set(&self, high: bool) {
        if !self.high.swap(high, Ordering::SeqCst) && high {
            self.rises.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The guest's memory.
struct Ram(Mutex<Vec<u8>>);

impl Ram {
    fn with<T>(&self, address: u64, len: usize, f: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(address).ok()?;
        bytes.get_mut(start..start.checked_add(len)?).map(f)
    }
}

impl GuestMemory for Ram {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let len = data.len();
        self.with(address, len, |bytes| data.copy_from_slice(bytes))
            .is_some()
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        self.with(address, data.len(), |bytes| bytes.copy_from_slice(data))
            .is_some()
    }
}
