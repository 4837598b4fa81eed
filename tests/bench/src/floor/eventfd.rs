//! A wake-up there and one back: what a driver that sleeps and a backend that sleeps pay at least.

use std::sync::atomic::AtomicBool;
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::repeat;
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::run::Conditions;

/// Tells the other thread to end: eventfds count, and no ping counts so far.
const END: u64 = 1 << 32;

/// Measures round trips between the places of the driver and of the backend.
pub fn run(how: &Conditions, stop: &AtomicBool) -> Result<Figures> {
    let eventfd =
        || EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(Error::errno("make an eventfd"));
    let (there, back) = (eventfd()?, eventfd()?);
    let write = |event: &EventFd, count| {
        event
            .write(count)
            .map(drop)
            .map_err(Error::errno("write an eventfd"))
    };
    let read = |event: &EventFd| event.read().map_err(Error::errno("read an eventfd"));
    how.affinity.driver.hold_this_thread()?;
    thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            how.affinity.backend.hold_this_thread()?;
            while read(&there)? < END {
                write(&back, 1)?;
            }
            Ok(())
        });
        let figures = repeat(how, stop, 0, || {
            write(&there, 1)?;
            read(&back).map(drop)
        });
        write(&there, END)?;
        // It cannot panic; what it could not do has been seen on this side.
        let _ = echo.join();
        figures
    })
}
