//! What Prometheus reads: the VM, what KVM counts of its vCPUs, its devices' daemons, and what those
//! count of their queues.

use std::fmt::Write;
use std::time::Duration;

use outboard_device::counters::QueueCounters;

use crate::kvm::VcpuInfo;
use crate::supervisor::Usage;
use crate::vm::{Control, DeviceInfo, Info, QueueCounts, QueueInfo};

/// The text format, version 0.0.4.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const VCPU: &str = "outboard_vcpu_total";
const EXITS: &str = "outboard_vcpu_exits_total";
const UP: &str = "outboard_device_connected";
const CPU: &str = "outboard_daemon_cpu_seconds_total";
const RESIDENT: &str = "outboard_daemon_resident_bytes";
/// What is counted of a queue, as [`QueueCounts::each`] calls it.
const QUEUE: &[(&str, &str)] = &[
    ("requests", "Chains that the device has answered."),
    (
        "bytes_to_device",
        "Bytes in them that were the device's to read.",
    ),
    ("bytes_to_guest", "Bytes that the device wrote into them."),
    ("kicks", "Kicks since the driver enabled the queue."),
    ("interrupts", "Signals that the device has sent."),
];
const IN_FLIGHT: &str = "outboard_queue_in_flight";
const TIME: &str = "outboard_queue_service_seconds";

/// Everything, at this moment. Of a VM that is not booted, that it is not.
pub(super) async fn text(vm: &Control) -> String {
    let mut page = Page::default();
    let Ok(info) = vm.info().await else {
        page.family("outboard_vm_booted", "gauge", "Whether a VM is booted.");
        page.sample("outboard_vm_booted", &[], 0);
        return page.0;
    };
    page.vm(&info);
    page.vcpus(&info.vcpus);
    page.devices(&info.devices);
    page.queues(&info.devices);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn vm(&mut self, info: &Info) {
        self.family("outboard_vm_booted", "gauge", "Whether a VM is booted.");
        self.sample("outboard_vm_booted", &[], 1);
        self.family("outboard_vm_state", "gauge", "1 for the state it is in.");
        for state in ["created", "running", "paused", "stopped"] {
            let is = u8::from(info.state.word() == state);
            let labels = [("vm", info.name.as_str()), ("state", state)];
            self.sample("outboard_vm_state", &labels, is);
        }
        self.family("outboard_vm_memory_bytes", "gauge", "Guest memory.");
        self.sample("outboard_vm_memory_bytes", &[], info.memory);
        self.family("outboard_vm_vcpus", "gauge", "Number of vCPUs.");
        self.sample("outboard_vm_vcpus", &[], info.cpus);
    }

    fn vcpus(&mut self, vcpus: &[VcpuInfo]) {
        self.family(
            VCPU,
            "counter",
            "What KVM counts of each vCPU, by KVM's names.",
        );
        for vcpu in vcpus {
            let name = format!("vcpu{}", vcpu.index);
            for (counter, value) in &vcpu.counters {
                let labels = [("vcpu", name.as_str()), ("counter", counter)];
                self.sample(VCPU, &labels, value);
            }
        }
        self.family(EXITS, "counter", "What came to the VMM, by reason.");
        for vcpu in vcpus {
            let name = format!("vcpu{}", vcpu.index);
            for (reason, value) in &vcpu.exits {
                let labels = [("vcpu", name.as_str()), ("reason", reason)];
                self.sample(EXITS, &labels, value);
            }
        }
    }

    fn devices(&mut self, devices: &[DeviceInfo]) {
        self.family(UP, "gauge", "1 while the device's backend is there.");
        for device in devices {
            let connected = u8::from(device.backend == "connected");
            let labels = [
                ("device", device.id.as_str()),
                ("kind", &device.kind),
                ("host", &device.host),
            ];
            self.sample(UP, &labels, connected);
        }
        self.family(CPU, "counter", "CPU that the device's daemon has used.");
        let daemons = devices
            .iter()
            .filter_map(|device| Some((device.id.as_str(), device.pid.and_then(Usage::of)?)));
        let daemons: Vec<_> = daemons.collect();
        for (id, usage) in &daemons {
            self.sample(CPU, &[("device", id)], usage.cpu.as_secs_f64());
        }
        self.family(RESIDENT, "gauge", "Memory that it has, guest memory too.");
        for (id, usage) in &daemons {
            self.sample(RESIDENT, &[("device", id)], usage.resident);
        }
    }

    /// Of queues that a driver uses.
    fn queues(&mut self, devices: &[DeviceInfo]) {
        let queues = devices.iter().flat_map(|device| {
            let used = device.queues.iter().filter(|queue| queue.enabled);
            used.map(|queue| (device.id.as_str(), queue.index.to_string(), queue))
        });
        let queues: Vec<(&str, String, &QueueInfo)> = queues.collect();
        let help = "Chains that the device has and has not used.";
        self.family(IN_FLIGHT, "gauge", help);
        for (device, index, queue) in &queues {
            if let Some(chains) = queue.in_flight() {
                self.sample(IN_FLIGHT, &[("device", device), ("queue", index)], chains);
            }
        }
        for (counter, help) in QUEUE {
            let name = format!("outboard_queue_{counter}_total");
            self.family(&name, "counter", help);
            for (device, index, queue) in &queues {
                let counts = queue.counts.iter().flat_map(QueueCounts::each);
                for (_, value) in counts.filter(|(name, _)| name == counter) {
                    self.sample(&name, &[("device", device), ("queue", index)], value);
                }
            }
        }
        let help = "From taking a request to its answer, of one request in 64.";
        self.family(TIME, "histogram", help);
        for (device, index, queue) in &queues {
            if let Some(counts) = &queue.counts {
                self.histogram(&[("device", device), ("queue", index)], counts);
            }
        }
    }

    fn histogram(&mut self, labels: &[(&str, &str)], counts: &QueueCounts) {
        let mut sum = 0_u64;
        for (step, count) in counts.histogram.iter().enumerate() {
            sum = sum.saturating_add(*count);
            let bound = QueueCounters::bound(step).map(|bound| bound.as_secs_f64().to_string());
            let bound = bound.as_deref().unwrap_or("+Inf");
            let labels = [labels, &[("le", bound)]].concat();
            self.sample(&format!("{TIME}_bucket"), &labels, sum);
        }
        let seconds = Duration::from_nanos(counts.sampled_nanoseconds).as_secs_f64();
        self.sample(&format!("{TIME}_sum"), labels, seconds);
        self.sample(&format!("{TIME}_count"), labels, sum);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Into a string nothing fails.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<_> = labels
            .iter()
            // Names of ours, of KVM and of devices: none has a character to escape.
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative_and_ends_at_infinity() {
        let mut histogram = vec![0; outboard_device::counters::BUCKETS];
        (histogram[0], histogram[2]) = (3, 4);
        if let Some(last) = histogram.last_mut() {
            *last = 1;
        }
        let counts = QueueCounts {
            histogram,
            sampled_nanoseconds: 2_500_000_000,
            ..QueueCounts::default()
        };
        let mut page = Page::default();
        page.histogram(&[("device", "disk0")], &counts);
        for line in [
            "outboard_queue_service_seconds_bucket{device=\"disk0\",le=\"0.000001\"} 3\n",
            "outboard_queue_service_seconds_bucket{device=\"disk0\",le=\"0.000002\"} 3\n",
            "outboard_queue_service_seconds_bucket{device=\"disk0\",le=\"0.000004\"} 7\n",
            "outboard_queue_service_seconds_bucket{device=\"disk0\",le=\"+Inf\"} 8\n",
            "outboard_queue_service_seconds_sum{device=\"disk0\"} 2.5\n",
            "outboard_queue_service_seconds_count{device=\"disk0\"} 8\n",
        ] {
            assert!(page.0.contains(line), "{line}is not in:\n{}", page.0);
        }
    }

    #[test]
    fn every_count_has_a_family() {
        let counts = QueueCounts {
            kicks: Some(1),
            ..QueueCounts::default()
        };
        let named = |name| QUEUE.iter().any(|(family, _)| *family == name);
        assert!(counts.each().all(|(name, _)| named(name)));
        assert_eq!(counts.each().count(), QUEUE.len());
    }
}
