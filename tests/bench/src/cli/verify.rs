//! `block --verify`.

use std::sync::atomic::AtomicBool;

use super::show::{conditions, say};
use crate::bytes::Bytes;
use crate::case::Case;
use crate::error::{Error, Result};
use crate::run::{self, Conditions, Subject};
use crate::verify::Verdict;

/// Verifies the device in every case; an error if one found a fault.
pub(super) fn run(
    subject: &Subject,
    cases: &[Case],
    how: &Conditions,
    area: Bytes,
    stop: &AtomicBool,
) -> Result<()> {
    say(&conditions(how));
    let mut faults = 0;
    for case in cases {
        let verdict = run::verify(subject, case, how, area, stop)?;
        faults += show(case, &verdict);
    }
    if faults > 0 {
        let name = &subject.name;
        return Err(Error::Unfit(format!(
            "{name} does not keep what is written to it: {faults} faults"
        )));
    }
    Ok(())
}

fn show(case: &Case, verdict: &Verdict) -> u64 {
    let Verdict {
        blocks,
        writes,
        reads,
        ..
    } = verdict;
    let faults: u64 = verdict.faults.values().sum();
    let size = case.size;
    say(&format!(
        "blocks of {size}, depth {}: {writes} writes and {reads} reads of {blocks} blocks, {faults} faults",
        case.depth
    ));
    for (kind, count) in &verdict.faults {
        say(&format!("  {count} x {kind}"));
    }
    for fault in &verdict.examples {
        say(&format!("  {fault}"));
    }
    faults
}
