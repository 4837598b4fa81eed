//! A sample as text. Into a string no write fails.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use outboard::kvm::meanings;

use super::sample::{NO_ANSWER, QueueSample, Sample, VcpuSample};

/// So many vCPUs have a column each; of more, their sum is shown.
const COLUMNS: usize = 4;

/// All of it, as lines of 80 characters. `queued`: what the device has and has not answered.
pub(super) fn of(sample: &Sample) -> String {
    let mut text = String::new();
    if sample.state == NO_ANSWER {
        let _ = writeln!(text, "{}: {NO_ANSWER}", sample.name);
        return text;
    }
    let _ = writeln!(
        text,
        "{}: {}, a second in the last {:.1} s",
        sample.name, sample.state, sample.seconds
    );
    let ours = |vcpu: &VcpuSample| vcpu.exits.clone();
    exits(&mut text, "Exits to the VMM", sample, meanings::OURS, ours);
    let kvms = |vcpu: &VcpuSample| vcpu.counters.clone();
    exits(&mut text, "Counted by KVM", sample, meanings::KVMS, kvms);
    if !sample.queues.is_empty() {
        let _ = writeln!(
            text,
            "{:<14}{:>9}{:>10}{:>10}{:>7}{:>7}{:>7}{:>8}{:>8}",
            "Queue", "requests", "to device", "to guest", "kicks", "irqs", "queued", "p50", "p99"
        );
    }
    for queue in &sample.queues {
        self::queue(&mut text, queue);
    }
    let _ = writeln!(
        text,
        "{:<22}{:>12}{:>12}{:>12}",
        "Process", "pid", "CPU %", "memory"
    );
    for process in &sample.processes {
        #[allow(clippy::cast_precision_loss)] // for people
        let resident = short(process.resident as f64);
        let _ = writeln!(
            text,
            "  {:<20}{:>12}{:>12.1}{resident:>12}",
            cut(&process.id, 19),
            process.pid,
            process.cpu,
        );
    }
    text
}

fn queue(text: &mut String, queue: &QueueSample) {
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".into(), short);
    let below = |time: Option<u64>| time.map_or_else(|| "-".into(), below);
    let name = format!("{} {}", queue.device, queue.queue);
    let _ = writeln!(
        text,
        "  {:<12}{:>9}{:>10}{:>10}{:>7}{:>7}{:>7}{:>8}{:>8}",
        cut(&name, 12),
        rate(queue.requests),
        rate(queue.bytes_to_device),
        rate(queue.bytes_to_guest),
        rate(queue.kicks),
        rate(queue.interrupts),
        queue.in_flight.map_or_else(|| "-".into(), of_display),
        below(queue.p50_us),
        below(queue.p99_us),
    );
}

/// An end of a step of times, in microseconds.
fn below(time: u64) -> String {
    match time {
        0..1000 => format!("<{time}us"),
        1000..1_000_000 => format!("<{}ms", time / 1000),
        _ => format!("<{}s", time / 1_000_000),
    }
}

fn of_display(value: impl Display) -> String {
    value.to_string()
}

/// At most so many characters.
fn cut(text: &str, length: usize) -> String {
    text.chars().take(length).collect()
}

/// A number in six characters at most, by powers of 1024.
fn short(number: f64) -> String {
    let mut number = number;
    for unit in ["", "K", "M", "G", "T"] {
        if number < 9999.5 {
            return format!("{number:.0}{unit}");
        }
        number /= 1024.0;
    }
    format!("{number:.0}P")
}

/// A line a reason, a column a vCPU; reasons that did not come are left out.
fn exits(
    text: &mut String,
    title: &str,
    sample: &Sample,
    names: &[(&str, &str)],
    of: impl Fn(&VcpuSample) -> BTreeMap<String, f64>,
) {
    let rates: Vec<_> = sample.vcpus.iter().map(of).collect();
    let summed = rates.len() > COLUMNS;
    let _ = write!(text, "{title:<22}");
    if summed {
        let _ = write!(text, "{:>14}", "all vCPUs");
    } else {
        for vcpu in &sample.vcpus {
            let head = format!("{} {}", vcpu.index, vcpu.state);
            let _ = write!(text, "{head:>14}");
        }
    }
    text.push('\n');
    for (name, _) in names {
        let rates = rates.iter();
        let rates = rates.map(|rates| rates.get(*name).copied().unwrap_or(0.0));
        let mut rates: Vec<f64> = rates.collect();
        if summed {
            rates = vec![rates.iter().sum()];
        }
        if rates.iter().all(|rate| *rate < 0.5) {
            continue;
        }
        let _ = write!(text, "  {:<20}", cut(name, 19));
        for rate in rates {
            let _ = write!(text, "{rate:>14.0}");
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::ProcessSample;
    use super::*;

    fn queue_of(device: &str) -> QueueSample {
        QueueSample {
            device: device.into(),
            queue: 0,
            requests: Some(12_345.0),
            bytes_to_device: Some(197_520.0),
            bytes_to_guest: Some(50_577_465.0),
            kicks: Some(310.0),
            interrupts: Some(295.4),
            in_flight: Some(31),
            p50_us: Some(64),
            p99_us: Some(4_194_304),
        }
    }

    fn sample() -> Sample {
        let vcpu = |index, exits| VcpuSample {
            index,
            state: "running",
            exits: BTreeMap::from([("port-write".to_owned(), exits)]),
            counters: BTreeMap::from([("halt_exits".to_owned(), 0.2)]),
        };
        let foreign = QueueSample {
            bytes_to_device: None,
            bytes_to_guest: None,
            kicks: None,
            interrupts: None,
            p50_us: None,
            p99_us: None,
            ..queue_of("a-name-that-is-too-long")
        };
        Sample {
            name: "web".into(),
            state: "running",
            seconds: 1.02,
            vcpus: vec![vcpu(0, 120.0), vcpu(1, 0.0)],
            queues: vec![queue_of("disk0"), foreign],
            processes: vec![ProcessSample {
                id: "disk0".into(),
                pid: 4251,
                cpu: 12.34,
                resident: 70 << 20,
            }],
        }
    }

    #[test]
    fn a_sample_fits_a_terminal() {
        let text = of(&sample());
        let wanted = "\
web: running, a second in the last 1.0 s
Exits to the VMM           0 running     1 running
  port-write                     120             0
Counted by KVM             0 running     1 running
Queue          requests to device  to guest  kicks   irqs queued     p50     p99
  disk0 0           12K      193K       48M    310    295     31   <64us     <4s
";
        assert!(text.starts_with(wanted), "{text}");
        assert!(
            text.contains(
                "  a-name-that-      12K         -         -      -      -     31       -       -\n"
            ),
            "{text}"
        );
        assert!(
            text.ends_with("  disk0                       4251        12.3         70M\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn many_vcpus_are_summed() {
        let mut sample = sample();
        let more = std::mem::take(&mut sample.vcpus).remove(0);
        for _ in 0..5 {
            sample.vcpus.push(VcpuSample {
                exits: more.exits.clone(),
                counters: more.counters.clone(),
                ..more
            });
        }
        let text = of(&sample);
        assert!(
            text.contains("Exits to the VMM           all vCPUs\n"),
            "{text}"
        );
        assert!(
            text.contains("  port-write                     600\n"),
            "{text}"
        );
    }

    #[test]
    fn numbers_are_short() {
        for (number, wanted) in [
            (0.4, "0"),
            (9999.4, "9999"),
            (9999.6, "10K"),
            (1e7, "9766K"),
            (1e18, "888P"),
        ] {
            assert_eq!(short(number), wanted);
        }
    }
}
