//! Lines on ttyS0, whole ones also when two CPUs speak.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::port;

static SPEAKING: AtomicBool = AtomicBool::new(false);

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(port::print);
        Ok(())
    }
}

pub fn line(words: fmt::Arguments<'_>) {
    while SPEAKING.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let _ = writeln!(Serial, "{words}");
    SPEAKING.store(false, Ordering::Release);
}

#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::report::line(format_args!($($words)*)) };
}

/// Reports one check.
pub fn check(name: &str, result: Result<(), &'static str>) {
    match result {
        Ok(()) => line(format_args!("ok {name}")),
        Err(why) => line(format_args!("FAIL {name}: {why}")),
    }
}
