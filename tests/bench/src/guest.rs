//! The bare-metal guest on this machine's KVM: exits, kicks and interrupts, timed from within.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use quanta::Clock;

use crate::backend::beside_us;
use crate::error::{Error, Result};

/// The guest, an ELF image (tests/payload/).
const IMAGE: &[u8] = include_bytes!(env!("PAYLOAD"));

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

/// Boots the guest, has it do each thing `count` times, and ends it.
pub fn run(count: u64) -> Result<Vec<Cost>> {
    let folder = tempfile::Builder::new().prefix("outboard-bench-").tempdir();
    let folder = folder.map_err(Error::system("make a folder for the guest"))?;
    let image = folder.path().join("guest");
    fs::write(&image, IMAGE).map_err(Error::file("write", &image))?;
    let backend = beside_us("outboard-bench");
    let device = format!(
        "vhost-user,id=block,name=null,addr=8,spawn='{}' serve-null --log-level warn --socket {{socket}}",
        backend.display()
    );
    let mut child = Command::new(beside_us("outboard"))
        .arg("run")
        .arg("--kernel")
        .arg(&image)
        .args([
            "--memory",
            "64M",
            "--log-dir",
            "off",
            "--device",
            &device,
            "--cmdline",
        ])
        .arg(format!("jobs=bench requests={count}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::file("start", "outboard"))?;
    let mut lines = Vec::new();
    if let Some(printed) = child.stdout.take() {
        lines.extend(
            BufReader::new(printed)
                .lines()
                .map_while(std::io::Result::ok),
        );
    }
    let mut words = String::new();
    if let Some(mut said) = child.stderr.take() {
        let _ = said.read_to_string(&mut words);
    }
    let status = child.wait().map_err(Error::system("wait for outboard"))?;
    let passed = lines.iter().any(|line| line == "ok bench");
    if !status.success() || !passed {
        let lines = lines.join("\n  ");
        return Err(Error::Unfit(format!(
            "the guest failed:\n  {lines}\n  {}",
            words.trim_end()
        )));
    }
    Ok(costs(&lines, &Clock::new()))
}

/// The costs that the guest has printed. Its time-stamp counter is this machine's, at its own pace.
fn costs(lines: &[String], clock: &Clock) -> Vec<Cost> {
    let cost = |line: &String| {
        let mut words = line.strip_prefix("bench ")?.split_whitespace();
        let name = words.next()?.to_owned();
        let (count, ticks): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let nanos = clock.delta_as_nanos(0, ticks) as f64 / count.max(1) as f64;
        Some(Cost { name, count, nanos })
    };
    lines.iter().filter_map(cost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_lines_are_read() {
        // A mock's ticks are nanoseconds.
        let (clock, _) = Clock::mock();
        let lines = ["hello", "bench pio-out 10 5000", "bench x", "ok bench"].map(str::to_owned);
        let costs = costs(&lines, &clock);
        assert_eq!(costs.len(), 1);
        assert_eq!((costs[0].name.as_str(), costs[0].count), ("pio-out", 10));
        assert!((costs[0].nanos - 500.0).abs() < 1e-9);
    }
}
