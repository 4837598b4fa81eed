//! The bare-metal guest on this machine's KVM: exits, kicks, interrupts and requests, timed from within.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quanta::Clock;

use crate::backend::beside_us;
use crate::case::Wait;
use crate::error::{Error, Result};
use crate::figures::{Counts, Figures, Latency};

/// The guest, an ELF image (tests/payload/).
const IMAGE: &[u8] = include_bytes!(env!("PAYLOAD"));

/// How long a guest may take that has been given what takes seconds.
const LIMIT: Duration = Duration::from_mins(5);

/// Bytes of data in a request of the guest's.
pub const REQUEST: u64 = 4096;

/// What one thing costs the guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// The guest's name for it.
    pub name: String,
    /// How often it was done.
    pub count: u64,
    /// Nanoseconds each.
    pub nanos: f64,
}

/// Reads of a disk, so many under way at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    /// How the guest waited.
    pub wait: Wait,
    /// How many were under way.
    pub depth: u16,
    /// What came of it.
    pub figures: Figures,
}

/// The device that does nothing, as `--device` has it: a daemon, this program.
pub fn null_daemon() -> String {
    own_daemon("serve-null")
}

/// A device that this program serves with that verb.
pub(crate) fn own_daemon(verb: &str) -> String {
    let bench = beside_us("outboard-bench");
    daemon(&format!(
        "'{}' {verb} --log-level warn --socket {{socket}}",
        bench.display()
    ))
}

/// The disk that this command serves at `{socket}`, as `--device` has it.
pub fn daemon(command: &str) -> String {
    let command = command.replace(',', ",,");
    format!("vhost-user,id=block,name=disk,addr=8,on-exit=stop,spawn={command}")
}

/// Boots the guest, has it do each thing `count` times, and ends it.
pub fn costs(count: u64, stop: &AtomicBool) -> Result<Vec<Cost>> {
    let lines = boot(&null_daemon(), "bench", count, stop)?;
    Ok(read_costs(&lines, &Clock::new()))
}

/// Boots the guest with that disk in slot 8, has it read `count` times in each way, and ends it.
pub fn requests(device: &str, count: u64, stop: &AtomicBool) -> Result<Vec<Requests>> {
    let lines = boot(device, "requests", count, stop)?;
    Ok(read_requests(&lines, &Clock::new()))
}

/// Boots the guest with a device and a job. What it has printed.
pub(crate) fn boot(device: &str, job: &str, count: u64, stop: &AtomicBool) -> Result<Vec<String>> {
    let folder = folder()?;
    let image = folder.path().join(NAME);
    let child = Command::new(beside_us("outboard"))
        // Whatever other VMs are called.
        .env("XDG_RUNTIME_DIR", folder.path())
        .arg("run")
        .arg("--kernel")
        .arg(&image)
        .args(["--memory", "64M", "--log-dir", "off", "--device", device])
        .arg("--cmdline")
        .arg(format!("jobs={job} requests={count}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::file("start", "outboard"))?;
    let mut running = Running(child);
    let printed = collect(running.0.stdout.take());
    let words = collect(running.0.stderr.take());
    let begun = Instant::now();
    let status = loop {
        let ended = running.0.try_wait();
        if let Some(status) = ended.map_err(Error::system("wait for outboard"))? {
            break Some(status);
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        if begun.elapsed() > LIMIT {
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    drop(running);
    let (printed, words) = (
        printed.join().unwrap_or_default(),
        words.join().unwrap_or_default(),
    );
    let lines: Vec<String> = printed.lines().map(str::to_owned).collect();
    let passed = lines.iter().any(|line| *line == format!("ok {job}"));
    if passed && status.is_some_and(|status| status.success()) {
        return Ok(lines);
    }
    let late = format!("has not ended after {} s", LIMIT.as_secs());
    let what = if status.is_some() { "failed" } else { &late };
    let (lines, words) = (lines.join("\n  "), words.trim_end().replace('\n', "\n  "));
    Err(Error::Unfit(format!(
        "the guest with --device {device:?} {what}:\n  {lines}\n  {words}"
    )))
}

/// The guest's image in [`folder`].
pub(crate) const NAME: &str = "guest";

/// A folder with the guest's image in it.
pub(crate) fn folder() -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("outboard-bench-").tempdir();
    let folder = folder.map_err(Error::system("make a folder for the guest"))?;
    let image = folder.path().join(NAME);
    fs::write(&image, IMAGE).map_err(Error::file("write", &image))?;
    Ok(folder)
}

/// A VM, ended when dropped; its daemons end with it.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads all that comes.
fn collect(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The costs that the guest has printed. Its time-stamp counter is this machine's, at its own pace.
fn read_costs(lines: &[String], clock: &Clock) -> Vec<Cost> {
    let cost = |line: &String| {
        let mut words = line.strip_prefix("bench ")?.split_whitespace();
        let name = words.next()?.to_owned();
        let (count, ticks): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let nanos = clock.delta_as_nanos(0, ticks) as f64 / count.max(1) as f64;
        Some(Cost { name, count, nanos })
    };
    lines.iter().filter_map(cost).collect()
}

/// The requests that the guest has told of (tests/payload/bench.rs).
fn read_requests(lines: &[String], clock: &Clock) -> Vec<Requests> {
    let requests = |line: &String| {
        let mut words = line.strip_prefix("requests ")?.split_whitespace();
        let wait = match words.next()? {
            "sleep" => Wait::Sleep,
            "poll" => Wait::Poll,
            _ => return None,
        };
        let depth = words.next()?.parse().ok()?;
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let [count, ticks, kicks, calls, each @ ..] = numbers.as_slice() else {
            return None;
        };
        let micros = |ticks: u64| clock.delta_as_nanos(0, ticks) as f64 / 1e3;
        let &[mean, p50, p99, p999, max] = each else {
            return None;
        };
        let counts = Counts {
            time: Duration::from_nanos(clock.delta_as_nanos(0, *ticks)),
            requests: *count,
            bytes: count.saturating_mul(REQUEST),
            kicks: *kicks,
            calls: *calls,
            ..Counts::default()
        };
        let latency = Latency {
            mean: micros(mean),
            p50: micros(p50),
            p99: micros(p99),
            p999: micros(p999),
            max: micros(max),
        };
        Some(Requests {
            wait,
            depth,
            figures: Figures::told(&counts, latency),
        })
    };
    lines.iter().filter_map(requests).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_lines_are_read() {
        // A mock's ticks are nanoseconds.
        let (clock, _) = Clock::mock();
        let lines = ["hello", "bench pio-out 10 5000", "bench x", "ok bench"].map(str::to_owned);
        let costs = read_costs(&lines, &clock);
        assert_eq!(costs.len(), 1);
        assert_eq!((costs[0].name.as_str(), costs[0].count), ("pio-out", 10));
        assert!((costs[0].nanos - 500.0).abs() < 1e-9);
    }

    #[test]
    fn what_requests_took_is_read() {
        let (clock, _) = Clock::mock();
        let lines = [
            "requests poll 32 1000 2000000 10 0 1500 1000 9000 20000 30000",
            "requests sleep 1 1000 2000000 10 0 1500 1000 9000 20000",
            "requests doze 1 1000 2000000 10 0 1500 1000 9000 20000 30000",
        ];
        let requests = read_requests(&lines.map(str::to_owned), &clock);
        assert_eq!(requests.len(), 1);
        let Requests {
            wait,
            depth,
            figures,
        } = &requests[0];
        assert_eq!((*wait, *depth, figures.requests), (Wait::Poll, 32, 1000));
        assert!((figures.rate - 500_000.0).abs() < 1e-6 && (figures.kicks - 0.01).abs() < 1e-9);
        let latency = figures.latency.unwrap();
        assert!((latency.mean - 1.5).abs() < 1e-9 && (latency.max - 30.0).abs() < 1e-9);
        assert!(figures.driver_cpu.is_none() && figures.backend_cpu.is_none());
    }
}
