//! The machine's reset, and the device's end.

use std::thread;

use super::interrupts::WHILE;
use super::{Bench, Registers};
use crate::testing::{Outcome, ensure};

/// Writes all over the registers.
fn scribble(bench: &Bench) -> Outcome {
    for (offset, width) in bench.accesses() {
        if bench.expected.widths.contains(&width) {
            bench.write(offset, &vec![0x5a; width])?;
            bench.write(offset, &vec![0xa7; width])?;
        }
    }
    Ok(())
}

/// A reset brings back what the registers were at first; a second one changes nothing.
pub fn resets_to_power_on(registers: &Registers) -> Outcome {
    let bench = Bench::new(registers)?;
    let first = bench.values()?;
    scribble(&bench)?;
    bench.begin()?;
    for _ in 0..2 {
        bench.reset()?;
        let now = bench.values()?;
        ensure!(
            first == now,
            "after a reset there is {now:x?}, and {first:x?} at first"
        );
        ensure!(!bench.is_high(), "the line is high after a reset");
    }
    Ok(())
}

/// What was begun before a reset does not interrupt after it.
pub fn forgets_what_was_under_way(registers: &Registers) -> Outcome {
    let bench = Bench::new(registers)?;
    for _ in 0..5 {
        bench.begin()?;
        bench.reset()?;
        let before = bench.interrupts();
        thread::sleep(WHILE);
        bench.values()?;
        ensure!(
            bench.interrupts() == before,
            "an interrupt comes after the reset"
        );
    }
    Ok(())
}

/// It interrupts after a reset as it does before.
pub fn works_after_a_reset(registers: &Registers) -> Outcome {
    let bench = Bench::new(registers)?;
    for _ in 0..3 {
        bench.raise()?;
        bench.reset()?;
    }
    bench.raise()
}

/// It can be destroyed at any moment.
pub fn ends_at_any_moment(registers: &Registers) -> Outcome {
    for _ in 0..20 {
        let bench = Bench::new(registers)?;
        bench.begin()?;
        bench.end()?;
    }
    Ok(())
}
