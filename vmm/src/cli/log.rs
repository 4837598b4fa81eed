//! `outboard log`: what a VM, its daemons and its guest have said, while it runs and afterwards.

use std::io::{self, ErrorKind, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use outboard::config::check_name;
use outboard::history;
use outboard::logs::{self, Line, Reader};
use outboard::registry;
use outboard::vm::Info;
use owo_colors::OwoColorize;

use super::manage::{Error, Named, finish};
use super::say::{Output, print};

const LOOK: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Lines are in the order of their times (UTC), each with whose it is: vmm, a device, or serial, which \
is what the guest prints on ttyS0.

Examples:
  outboard log web
  outboard log web -f
  outboard log web --device disk0
  outboard log web --device serial --output json";

/// Shows what a VM, its daemons and its guest have said.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Log {
    #[command(flatten)]
    vm: Named,
    /// Go on with what comes, until the VM ends
    #[arg(short, long)]
    follow: bool,
    /// Only of this device, of vmm or of serial; may be given several times
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<String>,
    /// For people; or for programs, an object a line
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Log {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run().map(|()| String::new()))
    }

    fn run(self) -> Result<(), Error> {
        let name = &self.vm.name;
        let mut reader = self.open()?;
        let all: Vec<_> = reader.sources().map(str::to_owned).collect();
        let missing = |id: &&String| !all.contains(*id);
        // One that is plugged in later is waited for.
        if let Some(id) = self.devices.iter().find(missing).filter(|_| !self.follow) {
            return Err(Error::Usage(format!(
                "The VM '{name}' has no log of '{id}'; it has {}",
                all.join(", ")
            )));
        }
        let wanted = |log: &str| self.devices.is_empty() || self.devices.iter().any(|id| id == log);
        let width = all.iter().map(String::len).max().unwrap_or(0);
        let colour = io::stdout().is_terminal();
        let process = match registry::find(name) {
            Ok(vm) if self.follow => Some(vm.client().get::<Info>("outboard.info")?.pid),
            _ => None,
        };
        loop {
            // Seen before the last lines are read.
            let goes_on = process.is_some_and(runs);
            let lines = reader.read(&wanted).map_err(Error::Log)?;
            let mut text = String::new();
            for line in &lines {
                text.push_str(&match self.output {
                    Output::Text => shown(line, width, colour),
                    Output::Json => serde_json::to_string(line)? + "\n",
                });
            }
            if !print(&text).map_err(Error::Log)? || !goes_on {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The logs of the last run, which is the present one of a VM that runs.
    fn open(&self) -> Result<Reader, Error> {
        let name = &self.vm.name;
        check_name(name).map_err(Error::Usage)?;
        let folder = match history::last(name) {
            Some(record) => record
                .logs
                .ok_or_else(|| format!("No logs of the VM '{name}' are kept: its log-dir is off")),
            None => logs::folder(name).ok_or_else(|| {
                "There is no place for logs; set HOME or XDG_STATE_HOME to a folder of yours".into()
            }),
        };
        let folder = folder.map_err(Error::Usage)?;
        match Reader::open(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let base = folder.parent().unwrap_or(&folder);
                let (others, base) = (others(base), base.display());
                Err(Error::Usage(format!(
                    "There are no logs of a VM '{name}' in {base}{others}; outboard run and outboard \
                     start begin them"
                )))
            }
            opened => opened.map_err(Error::Log),
        }
    }
}

/// The end of the sentence that a VM has no logs in `base`: those that do.
fn others(base: &Path) -> String {
    let entries = base.read_dir().into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| check_name(name).is_ok()).collect();
    names.sort();
    match names.as_slice() {
        [] => String::new(),
        names => format!(", only those of {}", names.join(", ")),
    }
}

/// One that has ended has no program any more, reaped or not.
fn runs(process: u32) -> bool {
    std::fs::read_link(format!("/proc/{process}/exe")).is_ok()
}

fn shown(line: &Line, width: usize, colour: bool) -> String {
    let Line { time, source, text } = line;
    // To the millisecond; a line that tells no time goes on from the one before.
    let time = time.get(..23).unwrap_or(time);
    let source = format!("{source:<width$}");
    if colour {
        format!("{} {} {text}\n", time.dimmed(), source.cyan())
    } else {
        format!("{time} {source} {text}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_has_no_logs_those_that_do_are_told() {
        let base = tempfile::tempdir().unwrap();
        assert_eq!(others(base.path()), "");
        for name in ["web", "db", "no name"] {
            std::fs::create_dir(base.path().join(name)).unwrap();
        }
        std::fs::write(base.path().join("file"), "").unwrap();
        assert_eq!(others(base.path()), ", only those of db, web");
    }

    #[test]
    fn a_line_tells_when_and_whose() {
        let line = Line {
            time: "2026-01-01T00:00:02.123456Z".into(),
            source: "disk0".into(),
            text: "INFO ready".into(),
        };
        assert_eq!(
            shown(&line, 6, false),
            "2026-01-01T00:00:02.123 disk0  INFO ready\n"
        );
        assert!(shown(&line, 6, true).contains("\x1b["));
    }
}
