//! A wake-up there and one back: what a driver that sleeps and a backend that sleeps pay at least. And one wake-up
//! alone: what a driver that sleeps pays where the backend looks at shared memory.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::repeat;
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::run::Conditions;

/// Tells the other thread to end: eventfds count, and no ping counts so far.
const END: u64 = 1 << 32;

fn eventfd() -> Result<EventFd> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(Error::errno("make an eventfd"))
}

fn write(event: &EventFd, count: u64) -> Result<()> {
    let written = event.write(count).map(drop);
    written.map_err(Error::errno("write an eventfd"))
}

fn read(event: &EventFd) -> Result<u64> {
    event.read().map_err(Error::errno("read an eventfd"))
}

/// Measures an echo that is asked in shared memory, at which it looks all the time, and answers by an eventfd.
pub fn echo(how: &Conditions, stop: &AtomicBool) -> Result<Figures> {
    let (asked, back) = (AtomicU64::new(0), eventfd()?);
    how.affinity.driver.hold_this_thread()?;
    thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            how.affinity.backend.hold_this_thread()?;
            let mut answered = 0;
            loop {
                match asked.load(Ordering::Acquire) {
                    END => return Ok(()),
                    now if now == answered => hint::spin_loop(),
                    now => {
                        answered = now;
                        write(&back, 1)?;
                    }
                }
            }
        });
        let mut count = 0;
        let figures = repeat(how, stop, 0, || {
            count += 1;
            asked.store(count, Ordering::Release);
            read(&back).map(drop)
        });
        asked.store(END, Ordering::Release);
        let _ = echo.join();
        figures
    })
}

/// Measures round trips between the places of the driver and of the backend.
pub fn run(how: &Conditions, stop: &AtomicBool) -> Result<Figures> {
    let (there, back) = (eventfd()?, eventfd()?);
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
