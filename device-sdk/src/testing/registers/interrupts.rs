//! The interrupt line.

use std::thread;
use std::time::Duration;

use super::{Bench, Registers};
use crate::testing::{Outcome, ensure};

/// Long enough for an interrupt that should not come to come, mostly.
pub(super) const WHILE: Duration = Duration::from_millis(30);

/// A device that was told nothing does not interrupt.
pub fn keeps_quiet_at_first(registers: &Registers) -> Outcome {
    let bench = Bench::new(registers)?;
    bench.values()?;
    thread::sleep(WHILE);
    ensure!(
        bench.interrupts() == 0 && !bench.is_high(),
        "it interrupts and was told nothing"
    );
    Ok(())
}

/// It interrupts when it is told to.
pub fn interrupts_when_told(registers: &Registers) -> Outcome {
    Bench::new(registers)?.raise()
}

/// Its line stays high until the guest has it lowered; that of a pulse is low again.
pub fn holds_its_line(registers: &Registers) -> Outcome {
    let bench = Bench::new(registers)?;
    bench.raise()?;
    thread::sleep(WHILE);
    if bench.expected.lower.is_empty() {
        ensure!(!bench.is_high(), "the line stays high behind a pulse");
        return Ok(());
    }
    ensure!(bench.is_high(), "the line is low before it is lowered");
    bench.lower()?;
    ensure!(!bench.is_high(), "the line is high after it was lowered");
    Ok(())
}

/// It interrupts each time anew.
pub fn interrupts_again(registers: &Registers) -> Outcome {
    let bench = Bench::new(registers)?;
    for _ in 0..20 {
        bench.raise()?;
        bench.lower()?;
    }
    Ok(())
}
