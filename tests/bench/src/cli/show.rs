//! Results for a person: a progress bar while it takes, a table in the end.

use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::case::Case;
use crate::machine::Machine;
use crate::record::Record;
use crate::run::Conditions;
use crate::table::{Table, percent, short};

/// A run that is shown. The bar is on standard error, and only on a terminal; the table on standard output.
pub(super) struct Shown {
    bar: ProgressBar,
    table: Table,
}

/// A bar over so many runs; invisible where there is no terminal.
pub(super) fn bar(runs: u64) -> ProgressBar {
    let bar = ProgressBar::new(runs);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// What the machine is, in a few words.
pub(super) fn machine() -> String {
    let machine = Machine::here();
    format!(
        "{} CPUs, {}, Linux {}",
        machine.cpus, machine.cpu, machine.kernel
    )
}

/// What the machine is and where both sides run, in a line.
pub(super) fn conditions(conditions: &Conditions) -> String {
    format!(
        "{}; affinity {}; {} s after {} s of warm-up",
        machine(),
        conditions.affinity,
        conditions.time.as_secs_f64(),
        conditions.warmup.as_secs_f64(),
    )
}

impl Shown {
    pub(super) fn new(cases: &[Case], how: &Conditions) -> Self {
        say(&conditions(how));
        Self {
            bar: bar(cases.len() as u64),
            table: Table::new(
                1,
                [
                    "case",
                    "req/s",
                    "B/s",
                    "mean us",
                    "p50",
                    "p99",
                    "p99.9",
                    "max",
                    "driver us",
                    "backend us",
                    "kicks",
                    "calls",
                    "noise",
                ],
            ),
        }
    }

    pub(super) fn add(&mut self, record: &Record) {
        let figures = &record.figures;
        let latency = |value: fn(&crate::figures::Latency) -> f64| {
            figures
                .latency
                .as_ref()
                .map_or("-".into(), |latency| short(value(latency)))
        };
        self.table.row([
            record.case.to_string(),
            short(figures.rate),
            short(figures.bandwidth),
            latency(|l| l.mean),
            latency(|l| l.p50),
            latency(|l| l.p99),
            latency(|l| l.p999),
            latency(|l| l.max),
            figures.driver_cpu.map_or("-".into(), short),
            figures.backend_cpu.map_or("-".into(), short),
            short(figures.kicks),
            short(figures.calls),
            percent(record.noise.sum()),
        ]);
        self.bar.set_message(record.case.to_string());
        self.bar.inc(1);
    }

    pub(super) fn end(self) {
        self.bar.finish_and_clear();
        for line in self.table.lines() {
            say(&line);
        }
    }
}

/// Why standard output has not taken everything.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// A line on standard output; a reader who has left is no error of ours. What else goes wrong,
/// [`lost`] tells in the end: what is measured meanwhile may go into a file as well.
pub(super) fn say(line: &str) {
    let mut out = io::stdout().lock();
    let said = writeln!(out, "{line}").and_then(|()| out.flush());
    if let Err(error) = said
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error);
    }
}

/// Why a result was not shown, if one was not.
pub(super) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}
