//! Two moments of a VM, and what happened between them.

use std::collections::BTreeMap;
use std::time::Instant;

use outboard::kvm::VcpuInfo;
use outboard::supervisor::Usage;
use outboard::vm::{Info, QueueCounts, QueueInfo};
use serde::Serialize;

/// A VM at one moment.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) info: Info,
    at: Instant,
    /// Of the VMM and of each daemon.
    usage: BTreeMap<i32, Usage>,
}

/// How many chains were used since the last sample, by device and queue, as the rings' indices tell.
#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<(String, u16), u64>);

/// What happened in a while. Rates are per second.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) state: &'static str,
    /// How long the while was.
    pub(super) seconds: f64,
    pub(super) vcpus: Vec<VcpuSample>,
    pub(super) queues: Vec<QueueSample>,
    pub(super) processes: Vec<ProcessSample>,
}

/// What a vCPU did.
#[derive(Debug, Serialize)]
pub(super) struct VcpuSample {
    pub(super) index: u32,
    pub(super) state: &'static str,
    /// What came to the VMM, by reason.
    pub(super) exits: BTreeMap<String, f64>,
    /// What KVM counted, by KVM's names.
    pub(super) counters: BTreeMap<String, f64>,
}

/// What went through a queue that its driver uses. Nothing but requests and those in flight is known of
/// a daemon that is not ours, and of its packed rings nothing.
#[derive(Debug, Serialize)]
pub(super) struct QueueSample {
    pub(super) device: String,
    pub(super) queue: u16,
    /// Chains that the device has answered.
    pub(super) requests: Option<f64>,
    /// Bytes in them that were the device's to read.
    pub(super) bytes_to_device: Option<f64>,
    /// Bytes that the device wrote into them.
    pub(super) bytes_to_guest: Option<f64>,
    pub(super) kicks: Option<f64>,
    pub(super) interrupts: Option<f64>,
    /// Chains that the device has and has not answered, now.
    pub(super) in_flight: Option<u16>,
    /// Half of the requests that were timed took less than so many microseconds.
    pub(super) p50_us: Option<u64>,
    /// 99 of 100 did.
    pub(super) p99_us: Option<u64>,
}

/// What a process used.
#[derive(Debug, Serialize)]
pub(super) struct ProcessSample {
    /// `vmm`, or the device's.
    pub(super) id: String,
    pub(super) pid: i32,
    /// Of one CPU, in percent.
    pub(super) cpu: f64,
    /// Bytes.
    pub(super) resident: u64,
}

impl Moment {
    pub(super) fn of(info: Info, at: Instant) -> Self {
        let usage = processes(&info).filter_map(|(_, pid)| Some((pid, Usage::of(pid)?)));
        let usage = usage.collect();
        Self { info, at, usage }
    }
}

impl Moment {
    fn queue(&self, device: &str, index: u16) -> Option<&QueueInfo> {
        let device = self.info.devices.iter().find(|is| is.id == device)?;
        device.queues.iter().find(|queue| queue.index == index)
    }
}

/// The VMM, then every daemon.
fn processes(info: &Info) -> impl Iterator<Item = (&str, i32)> {
    let vmm = ("vmm", info.pid.cast_signed());
    let daemons = info.daemons.iter();
    let daemons = daemons.map(|daemon| (daemon.id.as_str(), daemon.pid));
    std::iter::once(vmm).chain(daemons)
}

impl Progress {
    /// Adds what happened from one look to the next. The indices are what a guest and a daemon wrote:
    /// whatever they are, they add 65535 at most.
    pub(super) fn add(&mut self, before: &Info, now: &Info) {
        for device in &now.devices {
            let was = before.devices.iter().find(|was| was.id == device.id);
            let pairs = was
                .into_iter()
                .flat_map(|was| was.queues.iter().zip(&device.queues));
            for (was, is) in pairs {
                if let (Some(was), Some(now)) = (was.used, is.used) {
                    let sum = self.0.entry((device.id.clone(), is.index)).or_default();
                    *sum = sum.saturating_add(now.wrapping_sub(was).into());
                }
            }
        }
    }
}

/// The state of one that did not answer: what it does is not known.
pub(super) const NO_ANSWER: &str = "no answer";

impl Sample {
    /// Of one that has not answered yet.
    pub(super) fn silent(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: NO_ANSWER,
            seconds: 0.0,
            vcpus: Vec::new(),
            queues: Vec::new(),
            processes: Vec::new(),
        }
    }

    pub(super) fn between(before: &Moment, now: &Moment, progress: &Progress) -> Self {
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
        let seconds = seconds.max(0.001);
        #[allow(clippy::cast_precision_loss)] // for people
        let rate = |count: u64| count as f64 / seconds;
        let rates = |was: Option<&BTreeMap<String, u64>>, is: &BTreeMap<String, u64>| {
            let rate = |(name, count): (&String, &u64)| {
                let was = was.and_then(|was| was.get(name)).copied().unwrap_or(*count);
                (name.clone(), rate(count.saturating_sub(was)))
            };
            is.iter().map(rate).collect()
        };
        let vcpu = |is: &VcpuInfo| {
            let was = before.info.vcpus.iter().find(|was| was.index == is.index);
            VcpuSample {
                index: is.index,
                state: is.state.word(),
                exits: rates(was.map(|was| &was.exits), &is.exits),
                counters: rates(was.map(|was| &was.counters), &is.counters),
            }
        };
        let process = |(id, pid): (&str, i32)| {
            let is = now.usage.get(&pid)?;
            let was = before.usage.get(&pid).unwrap_or(is);
            Some(ProcessSample {
                id: id.to_owned(),
                pid,
                cpu: is.cpu.saturating_sub(was.cpu).as_secs_f64() * 100.0 / seconds,
                resident: is.resident,
            })
        };
        let queue = |device: &str, is: &QueueInfo| {
            let was = before.queue(device, is.index);
            let counts = is.counts.as_ref().map(|is| {
                let was = was.and_then(|was| was.counts.as_ref());
                // Of one that has just come everything.
                is.since(was.unwrap_or(&QueueCounts::default()))
            });
            let of = |count: fn(&QueueCounts) -> u64| counts.as_ref().map(count).map(rate);
            let by_index = || {
                let key = (device.to_owned(), is.index);
                is.used?;
                Some(rate(progress.0.get(&key).copied().unwrap_or_default()))
            };
            QueueSample {
                device: device.to_owned(),
                queue: is.index,
                requests: of(|counts| counts.requests).or_else(by_index),
                bytes_to_device: of(|counts| counts.bytes_to_device),
                bytes_to_guest: of(|counts| counts.bytes_to_guest),
                kicks: counts.as_ref().and_then(|counts| counts.kicks).map(rate),
                interrupts: of(|counts| counts.interrupts),
                in_flight: is.in_flight(),
                p50_us: counts.as_ref().and_then(|counts| counts.quantile(0.5)),
                p99_us: counts.as_ref().and_then(|counts| counts.quantile(0.99)),
            }
        };
        let queues = now.info.devices.iter().flat_map(|device| {
            let used = device.queues.iter().filter(|queue| queue.enabled);
            used.map(|is| queue(&device.id, is))
        });
        Self {
            name: now.info.name.clone(),
            state: now.info.state.word(),
            seconds,
            vcpus: now.info.vcpus.iter().map(vcpu).collect(),
            queues: queues.collect(),
            processes: processes(&now.info).filter_map(process).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RECORDED: &str = include_str!("../info/text.json");

    fn moments() -> (Moment, Moment) {
        let info: Info = serde_json::from_str(RECORDED).unwrap();
        let at = Instant::now();
        let before = Moment {
            info,
            at,
            usage: BTreeMap::new(),
        };
        let mut now = before.clone();
        now.at = at + Duration::from_secs(2);
        (before, now)
    }

    #[test]
    fn rates_are_differences_by_seconds() {
        let (mut before, mut now) = moments();
        now.info.vcpus[0].exits.insert("port-write".into(), 320);
        now.info.vcpus[1].counters.insert("halt_exits".into(), 41);
        // Of which there was none before: not all of it came in this while.
        now.info.vcpus[1].exits.insert("other".into(), 77);
        before.usage.insert(4242, Usage::default());
        let used = Usage {
            cpu: Duration::from_secs(1),
            resident: 4096,
        };
        now.usage.insert(4242, used);
        let sample = Sample::between(&before, &now, &Progress::default());
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        near(sample.seconds, 2.0);
        near(sample.vcpus[0].exits["port-write"], 100.0);
        near(sample.vcpus[1].counters["halt_exits"], 0.5);
        near(sample.vcpus[1].exits["other"], 0.0);
        assert_eq!(sample.processes.len(), 1, "{:?}", sample.processes);
        near(sample.processes[0].cpu, 50.0);
    }

    #[test]
    fn queues_are_counted_from_look_to_look_over_the_end_of_their_indices() {
        let (before, mut now) = moments();
        let mut progress = Progress::default();
        let mut last = before.info.clone();
        // 7 and 5 as recorded; three looks, each 60000 on.
        for _ in 0..3 {
            let queue = &mut now.info.devices[0].queues[0];
            queue.available = queue.available.map(|index| index.wrapping_add(60000));
            queue.used = queue.used.map(|index| index.wrapping_add(60000));
            progress.add(&last, &now.info);
            last = now.info.clone();
        }
        // As of a daemon that does not count.
        now.info.devices[0].queues[0].counts = None;
        let sample = Sample::between(&before, &now, &progress);
        assert_eq!(sample.queues.len(), 2, "those in use: {:?}", sample.queues);
        let queue = &sample.queues[0];
        assert!(
            (queue.requests.unwrap() - 90000.0).abs() < 1e-6,
            "{queue:?}"
        );
        assert_eq!(queue.in_flight, Some(2));
        assert_eq!((queue.bytes_to_guest, queue.p50_us), (None, None));
    }

    #[test]
    fn what_the_device_has_counted_is_believed() {
        let (before, mut now) = moments();
        let counts = now.info.devices[0].queues[0].counts.as_mut().unwrap();
        counts.requests += 1000;
        counts.bytes_to_guest += 2 << 20;
        counts.kicks = counts.kicks.map(|kicks| kicks + 20);
        counts.histogram[3] += 9;
        counts.histogram[6] += 1;
        let sample = Sample::between(&before, &now, &Progress::default());
        let queue = &sample.queues[0];
        let rate = |rate: Option<f64>, wanted: f64| {
            assert!((rate.unwrap() - wanted).abs() < 1e-6, "{queue:?}");
        };
        rate(queue.requests, 500.0);
        rate(queue.bytes_to_guest, f64::from(1 << 20));
        rate(queue.bytes_to_device, 0.0);
        rate(queue.kicks, 10.0);
        rate(queue.interrupts, 0.0);
        assert_eq!((queue.p50_us, queue.p99_us), (Some(8), Some(64)));
    }
}
