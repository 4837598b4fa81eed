//! fio on the same file: the kernel's own way to the data, without a ring in between.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::case::{Case, Op, Pattern};
use crate::error::{Error, Result};
use crate::figures::{Figures, Latency};
use crate::run::Conditions;

/// How fio asks the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// By `pread` and `pwrite`, one at a time.
    Psync,
    /// By `io_uring`, as many at a time as the case says.
    IoUring,
}

impl Engine {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Psync => "fio psync",
            Self::IoUring => "fio io_uring",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Psync => "psync",
            Self::IoUring => "io_uring",
        }
    }
}

/// fio with one engine on one file.
#[derive(Clone, Debug)]
pub struct Fio {
    /// How it asks.
    pub engine: Engine,
    /// What it reads and writes.
    pub file: PathBuf,
    /// Past the page cache (`O_DIRECT`).
    pub direct: bool,
}

/// Whether there is a fio to be run.
pub fn installed() -> bool {
    let found = Command::new("fio")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

impl Fio {
    /// Measures it where the backend would run. Its command line, and its figures.
    pub(super) fn run(&self, case: &Case, how: &Conditions) -> Result<(String, Figures)> {
        let mode = match (case.op, case.pattern) {
            (Op::Write, Pattern::Random) => "randwrite",
            (Op::Write, Pattern::Sequential) => "write",
            (Op::Mixed, Pattern::Random) => "randrw",
            (Op::Mixed, Pattern::Sequential) => "rw",
            (_, Pattern::Random) => "randread",
            (_, Pattern::Sequential) => "read",
        };
        let mut arguments = vec![
            "--name=floor".to_owned(),
            "--output-format=json".into(),
            "--thread".into(),
            "--time_based".into(),
            "--invalidate=0".into(),
            "--norandommap".into(),
            "--rwmixread=70".into(),
            format!("--ioengine={}", self.engine.option()),
            format!("--filename={}", self.file.display()),
            format!("--rw={mode}"),
            format!("--bs={}", case.size.0),
            format!("--iodepth={}", case.depth),
            format!("--direct={}", u8::from(self.direct)),
            format!("--runtime={}ms", how.time.as_millis()),
            format!("--ramp_time={}ms", how.warmup.as_millis()),
        ];
        let cpus = how.affinity.backend.to_string().replace('+', ",");
        if cpus != "any" {
            arguments.push(format!("--cpus_allowed={cpus}"));
        }
        if let Some(rate) = case.rate {
            arguments.push(format!("--rate_iops={rate}"));
        }
        let line = format!("fio {}", arguments.join(" "));
        let output = Command::new("fio")
            .args(&arguments)
            .output()
            .map_err(Error::system("run fio"))?;
        let failed = |what: &str, words: &[u8]| {
            Error::Unfit(format!(
                "{what}: {line}\n{}",
                String::from_utf8_lossy(words).trim_end()
            ))
        };
        if !output.status.success() {
            return Err(failed("fio failed", &output.stderr));
        }
        let said: Value = serde_json::from_slice(&output.stdout)
            .map_err(|_| failed("fio did not answer in JSON", &output.stdout))?;
        figures(&said, case).map_or_else(
            || Err(failed("fio's answer lacks figures", &output.stdout)),
            |figures| Ok((line.clone(), figures)),
        )
    }
}

/// The figures of fio's one job.
fn figures(said: &Value, case: &Case) -> Option<Figures> {
    let job = said.pointer("/jobs/0")?;
    let number = |path: &str| job.pointer(path).and_then(Value::as_f64);
    let mut rate = 0.0;
    let mut bandwidth = 0.0;
    let mut requests = 0.0;
    for side in ["read", "write"] {
        rate += number(&format!("/{side}/iops"))?;
        bandwidth += number(&format!("/{side}/bw_bytes"))?;
        requests += number(&format!("/{side}/total_ios"))?;
    }
    let main = if case.op == Op::Write {
        "write"
    } else {
        "read"
    };
    let us = |path: &str| Some(number(&format!("/{main}/clat_ns/{path}"))? / 1e3);
    let latency = Latency {
        mean: us("mean")?,
        p50: us("percentile/50.000000")?,
        p99: us("percentile/99.000000")?,
        p999: us("percentile/99.900000")?,
        max: us("max")?,
    };
    let seconds = number(&format!("/{main}/runtime"))? / 1e3;
    // Of the job's run time, in percent.
    let cpu = (number("/usr_cpu")? + number("/sys_cpu")?) / 100.0;
    Some(Figures {
        seconds,
        requests: requests as u64,
        rate,
        bandwidth,
        latency: Some(latency),
        driver_cpu: Some(if rate > 0.0 { cpu * 1e6 / rate } else { 0.0 }),
        backend_cpu: None,
        kicks: 0.0,
        calls: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Path, Sweep};

    #[test]
    fn an_answer_is_read() {
        let side = |iops: f64| {
            serde_json::json!({
                "iops": iops, "bw_bytes": iops * 4096.0, "total_ios": iops * 2.0, "runtime": 2000,
                "clat_ns": {"mean": 2000.0, "max": 9000, "percentile":
                    {"50.000000": 1900, "99.000000": 4000, "99.900000": 8000}},
            })
        };
        let said = serde_json::json!({"jobs": [
            {"read": side(1000.0), "write": side(0.0), "usr_cpu": 20.0, "sys_cpu": 30.0}]});
        let case = Sweep::default().cases(Path::Block).swap_remove(0);
        let figures = figures(&said, &case).unwrap();
        assert!(
            (figures.rate - 1000.0).abs() < 1e-9
                && (figures.driver_cpu.unwrap() - 500.0).abs() < 1e-9
        );
        assert_eq!((figures.requests, figures.seconds), (2000, 2.0));
        assert!((figures.latency.unwrap().p999 - 8.0).abs() < 1e-9);
        assert!(super::figures(&serde_json::json!({"jobs": []}), &case).is_none());
    }
}
