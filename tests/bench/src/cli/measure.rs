//! The verbs that measure one backend.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::show::Shown;
use crate::affinity::Affinity;
use crate::backend::Target;
use crate::bytes::Bytes;
use crate::case::{Path, Sweep};
use crate::error::{Error, Result};
use crate::image;
use crate::record::Log;
use crate::run::{self, Conditions, Subject};

/// Which backend, which cases, under what conditions.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    sweep: Sweep,
    #[command(flatten)]
    time: TimeArgs,
    /// The backend's name in the results [default: the program's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Add each result to this file, as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Of a block device, what can be done besides measuring.
#[derive(Debug, clap::Args)]
pub(super) struct BlockArgs {
    #[command(flatten)]
    measure: Args,
    /// Measure nothing, but write blocks that carry their address and generation, read them again,
    /// and say what is not as it was written. What the disk held is lost
    #[arg(long, conflicts_with_all = ["op", "pattern", "queues", "rate", "json"])]
    verify: bool,
    /// Verify so much of the disk, from its start
    #[arg(long, value_name = "BYTES", default_value = "64M", requires = "verify")]
    verify_size: Bytes,
}

/// Where the backend is.
#[derive(Debug, clap::Args)]
struct TargetArgs {
    /// It listens on this Unix socket
    #[arg(long, value_name = "PATH", conflicts_with = "spawn")]
    socket: Option<PathBuf>,
    /// Start it for each case by this command, in which {socket} is where to listen, {other} a switch's second port, {file} what --file
    /// says, and {queues} how many the case wants. A program beside this one is found first
    #[arg(long, value_name = "COMMAND")]
    spawn: Option<String>,
    /// Make this tap for each case, and play the host at its other end: frames to read come from there,
    /// and --op echo sends them back. {tap} is its name
    #[arg(long, value_name = "NAME")]
    tap: Option<String>,
    /// The image; made and filled where there is none
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Its size, when it is made
    #[arg(long, value_name = "BYTES", default_value = "1G")]
    file_size: Bytes,
}

/// How long, and where.
#[derive(Debug, clap::Args)]
pub(super) struct TimeArgs {
    /// Seconds to measure each case for
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub(super) seconds: f64,
    /// Seconds to run each case before that
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = seconds)]
    pub(super) warmup: f64,
    /// CPUs of each side: driver=0,backend=1-3. any leaves the choice to the kernel [default: the driver
    /// on the first, the backend on the others]
    #[arg(long, value_name = "PLACES")]
    pub(super) affinity: Option<Affinity>,
}

/// At most an hour, and not backwards.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("write 0 to 3600 seconds".into()),
    }
}

impl TimeArgs {
    pub(super) fn conditions(&self) -> Conditions {
        Conditions {
            warmup: Duration::from_secs_f64(self.warmup),
            time: Duration::from_secs_f64(self.seconds),
            affinity: self.affinity.clone().unwrap_or_default(),
        }
    }
}

/// Set by Ctrl-C or SIGTERM, so that what was started is ended and removed; a second one ends at once.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(Error::system("be told of signals"))?;
    }
    Ok(stop)
}

impl Args {
    /// The backend; its image is made, where there is none.
    fn subject(&self, path: Path) -> Result<Subject> {
        let subject = self.target.subject(path, self.name.as_deref())?;
        if let Some(file) = &self.target.file {
            image::ensure(file, self.target.file_size)?;
        }
        Ok(subject)
    }
}

impl TargetArgs {
    fn subject(&self, path: Path, name: Option<&str>) -> Result<Subject> {
        let target = match (&self.socket, &self.spawn) {
            (Some(socket), _) => Target::Socket(socket.clone()),
            (None, Some(command)) => Target::Spawn(command.clone()),
            (None, None) if path == Path::Null => Target::Spawn(
                "outboard-bench serve-null --socket {socket} --queues {queues}".into(),
            ),
            (None, None) if path == Path::Switch => {
                Target::Spawn("outboard-net switch --port to={socket} --port from={other}".into())
            }
            (None, None) => {
                return Err(Error::Unfit(
                    "no backend: say where one listens with --socket, or how to start one with --spawn".into(),
                ));
            }
        };
        let program = match &target {
            Target::Socket(socket) => socket
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
            Target::Spawn(command) => command
                .split_whitespace()
                .next()
                .and_then(|program| program.rsplit('/').next())
                .map(str::to_owned),
        };
        Ok(Subject {
            name: name.map_or_else(|| program.unwrap_or_default(), str::to_owned),
            target,
            file: self.file.clone(),
            tap: self.tap.clone(),
            by_flags: false,
        })
    }
}

/// Measures a block device, or verifies it.
pub(super) fn block(args: &BlockArgs) -> Result<()> {
    if !args.verify {
        return run(Path::Block, &args.measure);
    }
    let subject = args.measure.subject(Path::Block)?;
    let cases = args.measure.sweep.cases(Path::Block);
    let conditions = args.measure.time.conditions();
    let stop = stop_flag()?;
    super::verify::run(&subject, &cases, &conditions, args.verify_size, &stop)
}

/// Measures every case and shows each as it comes.
pub(super) fn run(path: Path, args: &Args) -> Result<()> {
    let subject = args.subject(path)?;
    let conditions = args.time.conditions();
    let stop = stop_flag()?;
    let mut log = args.json.as_deref().map(Log::append).transpose()?;
    let cases = args.sweep.cases(path);
    let mut shown = Shown::new(&cases, &conditions);
    // What was measured before one that fails is shown all the same.
    let done = cases.iter().try_for_each(|case| {
        let record = run::run(&subject, case, &conditions, 1, &stop)?;
        shown.add(&record);
        log.as_mut().map_or(Ok(()), |log| log.write(&record))
    });
    shown.end();
    done
}
