//! Reads and writes.

use super::{Bench, Registers};
use crate::testing::{Outcome, ensure};

/// Every read and every write of every length returns, and costs nothing but what it says.
pub fn answers_every_access(registers: &Registers) -> Outcome {
    let bench = Bench::new(registers)?;
    for (offset, width) in bench.accesses() {
        bench.read(offset, width)?;
        for byte in [0, 0xff, 0x55] {
            bench.write(offset, &vec![byte; width])?;
        }
        bench.read(offset, width)?;
    }
    Ok(())
}

/// A write of a length that registers do not take changes none of them.
pub fn drops_writes_of_other_widths(registers: &Registers) -> Outcome {
    let bench = Bench::new(registers)?;
    let before = bench.values()?;
    let interrupts = bench.interrupts();
    for (offset, width) in bench.accesses() {
        if bench.expected.widths.contains(&width) {
            continue;
        }
        bench.write(offset, &vec![0x5a; width])?;
        let after = bench.values()?;
        ensure!(
            before == after,
            "a write of {width} bytes at {offset:#x} made {after:x?} of {before:x?}"
        );
    }
    ensure!(
        bench.interrupts() == interrupts,
        "a write of another length interrupted"
    );
    Ok(())
}

/// Plain registers read the same again, whatever else is read between.
pub fn reads_change_nothing(registers: &Registers) -> Outcome {
    let bench = Bench::new(registers)?;
    let before = bench.values()?;
    for (offset, width) in bench.accesses() {
        bench.read(offset, width)?;
    }
    let after = bench.values()?;
    ensure!(before == after, "reading made {after:x?} of {before:x?}");
    Ok(())
}

/// What is written to one device, another of the kind does not see.
pub fn shares_nothing_with_another(registers: &Registers) -> Outcome {
    let (one, other) = (Bench::new(registers)?, Bench::new(registers)?);
    let before = other.values()?;
    for &width in &one.expected.widths {
        for offset in (0..one.len).step_by(width) {
            if offset + width as u64 <= one.len {
                one.write(offset, &vec![0x33; width])?;
            }
        }
    }
    one.begin()?;
    let after = other.values()?;
    ensure!(
        before == after,
        "{before:x?} became {after:x?} by what another device was told"
    );
    ensure!(other.interrupts() == 0, "it interrupted for another device");
    Ok(())
}
