//! What came of a run.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How long requests took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// On average.
    pub mean: f64,
    /// Half took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// 999 of 1000 took no longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Of a histogram in nanoseconds; `None` of an empty one.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(Self {
            mean: histogram.mean() / 1e3,
            p50: us(0.5),
            p99: us(0.99),
            p999: us(0.999),
            max: histogram.max() as f64 / 1e3,
        })
    }
}

/// Counts over the measured time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// How long it was.
    pub time: Duration,
    /// Requests completed.
    pub requests: u64,
    /// Bytes of data they moved.
    pub bytes: u64,
    /// Times the driver kicked the device.
    pub kicks: u64,
    /// Times the device called the driver.
    pub calls: u64,
    /// CPU time of the driver's thread.
    pub driver: Duration,
    /// CPU time of the backend's process, where that is known.
    pub backend: Option<Duration>,
}

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Figures {
    /// Seconds measured, after the warm-up.
    pub seconds: f64,
    /// Requests completed in them.
    pub requests: u64,
    /// Requests a second.
    pub rate: f64,
    /// Bytes of data a second.
    pub bandwidth: f64,
    /// How long requests took; of a run that completed any.
    pub latency: Option<Latency>,
    /// CPU time a request of the driver's thread, in microseconds, where that is known.
    pub driver_cpu: Option<f64>,
    /// CPU time a request of the backend's process, in microseconds, where that is known.
    pub backend_cpu: Option<f64>,
    /// Kicks a request.
    pub kicks: f64,
    /// Calls a request.
    pub calls: f64,
}

impl Figures {
    /// From what a guest has counted and timed itself. CPU times it does not know.
    pub fn told(counts: &Counts, latency: Latency) -> Self {
        Self {
            latency: Some(latency),
            driver_cpu: None,
            ..Self::over(counts)
        }
    }

    /// From what was counted, and how long each took.
    pub fn new(counts: &Counts, latencies: &Histogram<u64>) -> Self {
        Self {
            latency: Latency::of(latencies),
            ..Self::over(counts)
        }
    }

    fn over(counts: &Counts) -> Self {
        let seconds = counts.time.as_secs_f64();
        let requests = counts.requests as f64;
        let per_second = |n: f64| if seconds > 0.0 { n / seconds } else { 0.0 };
        let each = |n: f64| {
            if counts.requests > 0 {
                n / requests
            } else {
                0.0
            }
        };
        Self {
            seconds,
            requests: counts.requests,
            rate: per_second(requests),
            bandwidth: per_second(counts.bytes as f64),
            latency: None,
            driver_cpu: Some(each(counts.driver.as_secs_f64() * 1e6)),
            backend_cpu: counts.backend.map(|time| each(time.as_secs_f64() * 1e6)),
            kicks: each(counts.kicks as f64),
            calls: each(counts.calls as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_second_and_per_request() {
        let mut latencies = Histogram::<u64>::new(3).unwrap();
        for micros in 1..=1000u64 {
            latencies.record(micros * 1000).unwrap();
        }
        let counts = Counts {
            time: Duration::from_secs(2),
            requests: 1000,
            bytes: 4_096_000,
            kicks: 500,
            calls: 10,
            driver: Duration::from_millis(1),
            backend: None,
        };
        let figures = Figures::new(&counts, &latencies);
        let near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() < 0.002;
        assert!(near(figures.rate, 500.0) && near(figures.bandwidth, 2_048_000.0));
        assert!(near(figures.kicks, 0.5) && near(figures.calls, 0.01));
        assert!(near(figures.driver_cpu.unwrap(), 1.0) && figures.backend_cpu.is_none());
        let latency = figures.latency.unwrap();
        assert!(near(latency.p50, 500.0) && near(latency.p99, 990.0) && near(latency.p999, 999.0));
        assert!(near(latency.mean, 500.5) && near(latency.max, 1000.0));
    }

    #[test]
    fn nothing_done_is_nothing_and_not_infinite() {
        let figures = Figures::new(&Counts::default(), &Histogram::new(3).unwrap());
        assert!(figures.latency.is_none());
        assert!(figures.rate == 0.0 && figures.kicks == 0.0);
    }
}
