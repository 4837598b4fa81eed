//! A VM that does nothing, seen from outside: how long until it does, and what that takes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::backend::beside_us;
use crate::clock::ProcessClock;
use crate::error::{Error, Result};
use crate::guest::{self, Running};
use crate::machine::Machine;
use crate::table::{Table, short};

/// How long any of it may take to start.
const LIMIT: Duration = Duration::from_secs(20);

/// What guest memory is called in maps.
const GUEST_MEMORY: &str = "/memfd:outboard-ram";

/// What was seen, once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The machine.
    pub machine: Machine,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// What there is to see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// How long something took from its exec on.
    Start {
        /// What.
        name: String,
        /// How long.
        seconds: f64,
    },
    /// A process of a VM at rest.
    Process(Process),
}

/// One process of a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Process {
    /// Its name, as `ps` has it.
    pub name: String,
    /// Resident bytes, guest memory left out.
    pub resident: u64,
    /// Of those, bytes that are nobody else's.
    pub private: u64,
    /// How long it was looked at.
    pub seconds: f64,
    /// CPU time in that time, in seconds.
    pub cpu: f64,
    /// Times that one of its threads woke up in it.
    pub wakes: u64,
}

/// A table of the starts, medians of what has one name, and one of the processes.
pub fn tables(seen: &[Seen]) -> [Table; 2] {
    let mut starts = Table::new(1, ["from exec", "ms, median", "least", "most"]);
    let mut processes = Table::new(
        1,
        [
            "at rest",
            "resident KiB",
            "private KiB",
            "% of a CPU",
            "wake-ups/s",
        ],
    );
    let mut told = Vec::new();
    for one in seen {
        match &one.what {
            What::Start { name, .. } if !told.contains(name) => {
                starts.row(start(name, seen));
                told.push(name.clone());
            }
            What::Start { .. } => {}
            What::Process(process) => processes.row([
                process.name.clone(),
                (process.resident / 1024).to_string(),
                (process.private / 1024).to_string(),
                short(process.cpu / process.seconds * 100.0),
                short(process.wakes as f64 / process.seconds),
            ]),
        }
    }
    [starts, processes]
}

/// The row of all starts of this name.
fn start(name: &str, seen: &[Seen]) -> [String; 4] {
    let times = seen.iter().filter_map(|one| match &one.what {
        What::Start { name: of, seconds } if of == name => Some(*seconds),
        _ => None,
    });
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    let ms = |at: Option<&f64>| at.map_or("-".into(), |time| short(time * 1e3));
    [
        name.to_owned(),
        ms(times.get(times.len() / 2)),
        ms(times.first()),
        ms(times.last()),
    ]
}

/// Boots a guest that halts, with three devices, and looks at all its processes for `time`. From the VMM's
/// exec to the guest's first byte on ttyS0, and the processes, the VMM first.
pub fn vm(time: Duration, stop: &AtomicBool) -> Result<(Duration, Vec<Process>)> {
    let folder = guest::folder()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let disk = fs::File::create(at("disk")).and_then(|disk| disk.set_len(64 << 20));
    disk.map_err(Error::system("make a disk"))?;
    let begun = Instant::now();
    let child = Command::new(beside_us("outboard"))
        .args([
            "run",
            "--kernel",
            &at(guest::NAME),
            "--cmdline",
            "jobs=rest",
        ])
        .args(["--memory", "64M", "--log-dir", "off", "--console", "off"])
        .args(["--disk", &format!("path={}", at("disk"))])
        .args(["--net", &format!("stream-listen={}", at("cable"))])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::file("start", "outboard"))?;
    let mut vm = Running(child);
    let mut line = String::new();
    if let Some(printed) = vm.0.stdout.take() {
        let _ = BufReader::new(printed).read_line(&mut line);
    }
    let started = begun.elapsed();
    if !line.starts_with("resting") {
        let mut words = String::new();
        if let Some(said) = vm.0.stderr.take() {
            let _ = vm.0.kill();
            for line in BufReader::new(said).lines().map_while(std::io::Result::ok) {
                words = words + "\n  " + &line;
            }
        }
        return Err(Error::Unfit(format!(
            "the guest does not rest: {line}{words}"
        )));
    }
    let pids = family(vm.0.id());
    // What the start has left to do is not rest.
    pause(Duration::from_secs(1), stop)?;
    let before: Vec<_> = pids.iter().map(|pid| spent(*pid)).collect();
    pause(time, stop)?;
    let processes = pids.iter().zip(before).map(|(&pid, (cpu, wakes))| {
        let (cpu_now, wakes_now) = spent(pid);
        let (resident, private) = resident(pid);
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = name.split('\0').next().unwrap_or_default();
        Process {
            name: program.rsplit('/').next().unwrap_or_default().to_owned(),
            resident,
            private,
            seconds: time.as_secs_f64(),
            cpu: cpu_now.saturating_sub(cpu).as_secs_f64(),
            wakes: wakes_now.saturating_sub(wakes),
        }
    });
    Ok((started, processes.collect()))
}

/// From a daemon's exec until it can be connected to; its program's name, and what it is given, in which
/// `{folder}` is a folder with a `disk` in it.
pub fn daemon(program: &str, arguments: &[&str]) -> Result<Duration> {
    let folder = guest::folder()?;
    let place = folder.path().display().to_string();
    fs::write(folder.path().join("disk"), [0; 4096]).map_err(Error::system("make a disk"))?;
    let socket = folder.path().join("socket");
    let begun = Instant::now();
    let child = Command::new(beside_us(program))
        .arg("--socket")
        .arg(&socket)
        .args(
            arguments
                .iter()
                .map(|word| word.replace("{folder}", &place)),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::file("start", program))?;
    let mut daemon = Running(child);
    while UnixStream::connect(&socket).is_err() {
        if begun.elapsed() > LIMIT || !matches!(daemon.0.try_wait(), Ok(None)) {
            return Err(Error::Unfit(format!("{program} does not listen")));
        }
        thread::sleep(Duration::from_micros(50));
    }
    Ok(begun.elapsed())
}

fn pause(time: Duration, stop: &AtomicBool) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        // One wake-up of ours in a while is nothing to the others.
        thread::sleep((end - Instant::now()).min(Duration::from_millis(100)));
    }
    Ok(())
}

/// A process and its children, whichever of its threads has started them.
fn family(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let mut pids = vec![pid];
    for task in tasks.into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    pids
}

/// CPU time of a process, and how often one of its threads has woken up.
fn spent(pid: u32) -> (Duration, u64) {
    let cpu = ProcessClock::of(pid)
        .and_then(ProcessClock::now)
        .unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let wakes = tasks.into_iter().flatten().flatten().filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        number(&status, "voluntary_ctxt_switches:")
    });
    (cpu, wakes.sum())
}

/// Resident bytes and private ones, in all mappings but guest memory's (proc(5), `smaps`).
fn resident(pid: u32) -> (u64, u64) {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut counts = true;
    let (mut resident, mut private) = (0, 0);
    for line in smaps.lines() {
        // A mapping's first line begins with its addresses.
        if line
            .split(' ')
            .next()
            .is_some_and(|word| word.contains('-'))
        {
            counts = !line.contains(GUEST_MEMORY);
        } else if counts {
            resident += number(line, "Rss:").unwrap_or(0) * 1024;
            private += number(line, "Private_Clean:").unwrap_or(0) * 1024;
            private += number(line, "Private_Dirty:").unwrap_or(0) * 1024;
        }
    }
    (resident, private)
}

/// The number behind `name` at the start of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_told_by_their_medians_and_processes_one_by_one() {
        let seen = |what| Seen {
            machine: Machine::here(),
            what,
        };
        let start = |seconds| {
            seen(What::Start {
                name: "a daemon".into(),
                seconds,
            })
        };
        let process = seen(What::Process(Process {
            name: "outboard".into(),
            resident: 8 << 20,
            private: 1 << 20,
            seconds: 10.0,
            cpu: 0.01,
            wakes: 5,
        }));
        let all = [start(0.003), start(0.001), process, start(0.002)];
        let lines: Vec<String> = all
            .iter()
            .map(|seen| serde_json::to_string(seen).unwrap())
            .collect();
        let read: Vec<Seen> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read, all);
        let [starts, processes] = tables(&all);
        let [_, row] = starts.rows() else {
            panic!("{starts:?}");
        };
        assert_eq!(*row, ["a daemon", "2.00", "1.00", "3.00"]);
        let [_, row] = processes.rows() else {
            panic!("{processes:?}");
        };
        assert_eq!(*row, ["outboard", "8192", "1024", "0.100", "0.500"]);
    }
}
