//! A ring with its kick, call and error eventfds.

use std::io::{Error as IoError, ErrorKind};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::error::{DriverError, Result};
use super::ring::{Ring, RingError, Segment, Used};

/// One queue of a device, from the driver's side.
#[derive(Debug)]
pub struct Queue {
    index: u16,
    ring: Ring,
    kick: EventFd,
    call: EventFd,
    error: EventFd,
    /// Holds the call eventfd.
    sleep: Epoll,
}

impl Queue {
    /// Puts eventfds around a ring.
    pub fn new(index: u16, ring: Ring) -> Result<Self> {
        let (kick, error) = (eventfd(index)?, eventfd(index)?);
        let (call, sleep) = sleeping(index)?;
        Ok(Self {
            index,
            ring,
            kick,
            call,
            error,
            sleep,
        })
    }

    /// Makes a new call eventfd; the old one, which the device knows until it hears of this one.
    pub fn replace_call(&mut self) -> Result<EventFd> {
        let (call, sleep) = sleeping(self.index)?;
        self.sleep = sleep;
        Ok(std::mem::replace(&mut self.call, call))
    }

    /// The queue's index in the device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The ring itself.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The ring itself, to be filled by hand.
    pub fn ring_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// Written to make the device look at the ring.
    pub fn kick_fd(&self) -> &EventFd {
        &self.kick
    }

    /// Written by the device when it completed something and was asked to say so.
    pub fn call_fd(&self) -> &EventFd {
        &self.call
    }

    /// Written by the device when it gave the queue up.
    pub fn error_fd(&self) -> &EventFd {
        &self.error
    }

    /// Adds a chain without showing it to the device: see [`Queue::flush`].
    #[inline]
    pub fn add(&mut self, chain: &[Segment], token: u64) -> std::result::Result<(), RingError> {
        self.ring.add(chain, token)
    }

    /// Shows the device all added chains and kicks it if it asked for that. True if it was kicked.
    #[inline]
    pub fn flush(&mut self) -> Result<bool> {
        self.ring.publish();
        let needed = self.ring.needs_kick();
        if needed {
            self.kick()?;
        }
        Ok(needed)
    }

    /// Adds one chain and flushes.
    #[inline]
    pub fn submit(&mut self, chain: &[Segment], token: u64) -> Result<()> {
        self.ring.add(chain, token)?;
        self.flush()?;
        Ok(())
    }

    /// Kicks, wanted or not.
    pub fn kick(&self) -> Result<()> {
        self.kick.write(1).map_err(|source| self.event(source))
    }

    /// Takes back one completed chain, if there is one.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Used>> {
        Ok(self.ring.pop()?)
    }

    /// Takes back one completed chain, sleeping on the call eventfd for at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<Used> {
        let end = Instant::now() + limit;
        loop {
            if let Some(used) = self.ring.pop()? {
                return Ok(used);
            }
            if self.ring.arm() {
                continue;
            }
            let left = end.saturating_duration_since(Instant::now());
            let called = self.wait_call(left)?;
            if !called && left.is_zero() {
                return Err(DriverError::Timeout {
                    queue: self.index,
                    limit,
                });
            }
        }
    }

    /// Takes back one completed chain by polling memory, for at most `limit`: no call is needed.
    pub fn spin(&mut self, limit: Duration) -> Result<Used> {
        let end = Instant::now() + limit;
        loop {
            if let Some(used) = self.ring.pop()? {
                return Ok(used);
            }
            if Instant::now() >= end {
                return Err(DriverError::Timeout {
                    queue: self.index,
                    limit,
                });
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Sleeps until the device calls, for at most `limit`, and clears the call. True if it called.
    pub fn wait_call(&self, limit: Duration) -> Result<bool> {
        // In whole milliseconds, rounded up, so that a short limit still sleeps.
        let limit = limit.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32;
        match self.sleep.wait(limit, &mut [EpollEvent::default()]) {
            Ok(0) => Ok(false),
            Ok(_) => Ok(self.take_calls()? > 0),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(false),
            Err(source) => Err(self.event(source)),
        }
    }

    /// How often the device called since this was last asked; clears the count.
    pub fn take_calls(&self) -> Result<u64> {
        self.take(&self.call)
    }

    /// How often the device reported the queue broken since this was last asked.
    pub fn take_errors(&self) -> Result<u64> {
        self.take(&self.error)
    }

    fn take(&self, event: &EventFd) -> Result<u64> {
        match event.read() {
            Ok(count) => Ok(count),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(source) => Err(self.event(source)),
        }
    }

    fn event(&self, source: IoError) -> DriverError {
        DriverError::Event {
            queue: self.index,
            source,
        }
    }
}

fn eventfd(queue: u16) -> Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|source| DriverError::Event { queue, source })
}

/// A call eventfd, and an epoll set that holds it.
fn sleeping(queue: u16) -> Result<(EventFd, Epoll)> {
    let failed = |source| DriverError::Event { queue, source };
    let call = eventfd(queue)?;
    let sleep = Epoll::new().map_err(failed)?;
    let wanted = EpollEvent::new(EventSet::IN, 0);
    sleep
        .ctl(ControlOperation::Add, call.as_raw_fd(), wanted)
        .map_err(failed)?;
    Ok((call, sleep))
}
