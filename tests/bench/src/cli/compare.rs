//! `compare`.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use outboard_device::daemon;

use super::measure::{TimeArgs, stop_flag};
use super::show::{bar, conditions, say};
use crate::bytes::Bytes;
use crate::case::Sweep;
use crate::compare::{self, Contestant, Description};
use crate::error::{Error, Result};
use crate::floor::{Engine, Fio, Floor, dpdk_is_installed, fio_is_installed};
use crate::image;
use crate::record::Log;
use crate::summary;

/// Whom to compare, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A TOML file for each backend: name, path, spawn or socket, `event-idx = "off"` where it offers none,
    /// and a `[sweep]`. The first is the one that the others are compared with; its sweep is the one that counts
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    subjects: Vec<PathBuf>,
    /// How often each is measured in each case
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = daemon::number(1..=1000u32))]
    rounds: u32,
    #[command(flatten)]
    sweep: Sweep,
    #[command(flatten)]
    time: TimeArgs,
    /// The image for all of them; made and filled where there is none
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Its size, when it is made
    #[arg(long, value_name = "BYTES", default_value = "1G")]
    file_size: Bytes,
    /// Make this tap for each turn, and play the host at its other end; {tap} in a command is its name
    #[arg(long, value_name = "NAME")]
    tap: Option<String>,
    /// The backends open the image with `O_DIRECT`: fio is to do so too
    #[arg(long)]
    direct: bool,
    /// Leave out what the machine itself can do: fio on the same file, memory copy, eventfds, the bare
    /// tap, DPDK between two processes
    #[arg(long)]
    no_floors: bool,
    /// Keep every round in this file, a line of JSON each, behind what is there
    /// [default: compare-SECONDS.jsonl]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures all of them in turn, and shows the medians.
pub(super) fn run(args: &Args) -> Result<()> {
    let descriptions: Vec<_> = args
        .subjects
        .iter()
        .map(|path| Description::read(path))
        .collect::<Result<_>>()?;
    let Some(first) = descriptions.first() else {
        return Ok(());
    };
    if let Some(other) = descriptions.iter().find(|other| other.path != first.path) {
        let (one, two) = (&first.name, &other.name);
        return Err(Error::Unfit(format!(
            "{one} and {two} are different kinds of device"
        )));
    }
    let given = args.sweep != Sweep::default();
    let sweep = if given { &args.sweep } else { &first.sweep };
    let cases = sweep.cases(first.path);
    let file = args.file.as_deref();
    if let Some(file) = file {
        image::ensure(file, args.file_size)?;
    }
    let subjects = descriptions
        .iter()
        .map(|d| Ok(Contestant::Backend(d.subject(file, args.tap.as_deref())?)));
    let mut contestants: Vec<_> = subjects.collect::<Result<_>>()?;
    if !args.no_floors {
        contestants.extend(floors(args).into_iter().map(Contestant::Floor));
    }

    let how = args.time.conditions();
    let stop = stop_flag()?;
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let json = args
        .json
        .clone()
        .unwrap_or_else(|| format!("compare-{seconds}.jsonl").into());
    let mut log = Log::append(&json)?;
    say(&conditions(&how));
    let turns: Vec<_> = compare::turns(&contestants, &cases, args.rounds).collect();
    let bar = bar(turns.len() as u64);
    let mut records = Vec::new();
    let done = turns.into_iter().try_for_each(|(round, case, who)| {
        bar.set_message(format!("{}: {case}", who.name()));
        let record = compare::turn(who, case, &how, round, &stop)?;
        log.write(&record)?;
        records.push(record);
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    let rows = summary::rows(&records);
    for line in summary::table(&rows).lines() {
        say(&line);
    }
    let sure = rows
        .iter()
        .find_map(|row| row.ratio)
        .map(|ratio| ratio.confidence);
    if let Some(sure) = sure {
        say(&format!(
            "Medians of {} rounds by turns. In brackets: where the median ratio lies with {:.1}% confidence.",
            args.rounds,
            sure * 100.0
        ));
    }
    for limit in compare::limits(&cases, file, args.direct) {
        say(&limit);
    }
    say(&format!("Every round: {}", json.display()));
    done
}

/// What can be measured of the machine.
fn floors(args: &Args) -> Vec<Floor> {
    let mut floors = Vec::new();
    if let Some(file) = &args.file
        && fio_is_installed()
    {
        for engine in [Engine::Psync, Engine::IoUring] {
            let (file, direct) = (file.clone(), args.direct);
            floors.push(Floor::Fio(Fio {
                engine,
                file,
                direct,
            }));
        }
    }
    // No disk is as quick as memory.
    if !args.direct {
        floors.push(Floor::Copy);
    }
    floors.extend([Floor::Eventfd, Floor::Echo]);
    floors.extend(args.tap.clone().map(Floor::Tap));
    if dpdk_is_installed() {
        floors.push(Floor::Dpdk);
    }
    floors
}
