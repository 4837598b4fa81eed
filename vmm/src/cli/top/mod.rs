//! `outboard top`: what VMs do, as it happens.
//!
//! | file | idea |
//! |---|---|
//! | `watch.rs` | VMs looked at again and again |
//! | `sample.rs` | two moments of one, and what happened between them |
//! | `text.rs` | a sample as text |
//! | `view.rs` | samples on a terminal |

mod sample;
mod text;
mod view;
mod watch;

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::complain;
use super::manage::{Error, finish};
use super::say::{Output, answer, complain as remark, print};
use watch::{End, GLANCE, PATIENCE, Watches};

/// How often a key, a signal or the next sample is looked for.
const PACE: Duration = Duration::from_millis(50);

const NOTES: &str = "\
Keys: q or Ctrl-C leaves, the arrows scroll.

Requests do not cross the VMM. A device of ours counts them where the VMM can read, and times one \
in 64, from taking it to its answer: p50 and p99 are below what is shown. Of a daemon of somebody \
else's what is known is its ring's index in guest memory, as the daemon has written it: requests, \
but no bytes or times. Kicks and interrupts are as the two sides signal them; of several at once the \
other side sees one.";

/// Shows what VMs do: exits by reason, requests through queues, CPU and memory of every process.
#[derive(Args)]
#[command(after_help = NOTES)]
pub(super) struct Top {
    /// The VM's name, as outboard list shows it; all when absent
    name: Option<String>,
    /// Print one sample and end, as where standard output is no terminal
    #[arg(long)]
    once: bool,
    /// For people; or for programs, a line a sample, until the VM ends
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Seconds from one sample to the next, 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{text} is no number of seconds from 0.1 to 3600"))
}

impl Top {
    pub(super) fn execute(self) -> ExitCode {
        let mut watches = match Watches::begin(self.name.clone()) {
            Ok(watches) => watches,
            Err(error) => return finish(Err(error)),
        };
        if self.output == Output::Text && !self.once && stdout().is_terminal() {
            return view::run(&mut watches, self.interval);
        }
        match self.print(&mut watches) {
            Ok(code) => code,
            Err(error) => finish(Err(error)),
        }
    }

    /// One sample, or one after the other in JSON until the VM ends or nobody reads.
    fn print(&self, watches: &mut Watches) -> Result<ExitCode, Error> {
        let single = self.once || self.output == Output::Text;
        let patience = if single { PATIENCE } else { GLANCE };
        loop {
            let end = Instant::now() + self.interval;
            while let left = end.saturating_duration_since(Instant::now())
                && !left.is_zero()
            {
                std::thread::sleep(PACE.min(left));
                watches.keep_up();
            }
            let samples = watches.samples(patience);
            if samples.is_empty() && self.name.is_none() && self.output == Output::Text {
                // Others may have come meanwhile.
                watches.meet()?;
                if watches.is_empty() {
                    return Ok(answer("No VM runs\n", ExitCode::SUCCESS));
                }
                continue;
            }
            for (index, sample) in samples.iter().enumerate() {
                let text = match self.output {
                    Output::Json => serde_json::to_string(sample)? + "\n",
                    Output::Text if index > 0 => format!("\n{}", text::of(sample)),
                    Output::Text => text::of(sample),
                };
                match print(&text) {
                    Ok(true) => {}
                    Ok(false) => return Ok(ExitCode::SUCCESS),
                    Err(error) => {
                        complain(&error);
                        return Ok(ExitCode::FAILURE);
                    }
                }
            }
            match watches.end() {
                Some(End::Ended(name)) => {
                    remark(&ended(name));
                    return Ok(ExitCode::SUCCESS);
                }
                Some(End::Unreadable(error)) => {
                    complain(error);
                    return Ok(ExitCode::FAILURE);
                }
                None => {}
            }
            if single {
                return Ok(ExitCode::SUCCESS);
            }
            watches.meet()?;
        }
    }
}

/// The end of a VM that was watched by its name.
fn ended(name: &str) -> String {
    format!("VM '{name}' has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_number_of_seconds_in_reason() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "NaN", "inf", "1e9", "1s", ""] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
