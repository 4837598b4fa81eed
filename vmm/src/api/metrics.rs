//! What Prometheus reads: the VM, what KVM counts of its vCPUs, and its devices' daemons.

use std::fmt::Write;

use crate::vm::{Control, Counters, DeviceInfo, Info};

/// The text format, version 0.0.4.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const VCPU: &str = "outboard_vcpu_total";
const UP: &str = "outboard_device_connected";
const CPU: &str = "outboard_daemon_cpu_seconds_total";

/// Everything, at this moment. Of a VM that is not booted, that it is not.
pub(super) async fn text(vm: &Control) -> String {
    let mut page = Page::default();
    let Ok(info) = vm.info().await else {
        page.family("outboard_vm_booted", "gauge", "Whether a VM is booted.");
        page.sample("outboard_vm_booted", &[], 0);
        return page.0;
    };
    page.vm(&info);
    if let Ok(counters) = vm.counters().await {
        page.vcpus(&counters);
    }
    page.devices(&info.devices);
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

    fn vcpus(&mut self, counters: &Counters) {
        self.family(
            VCPU,
            "counter",
            "What KVM counts of each vCPU, by KVM's names.",
        );
        for (vcpu, counters) in counters {
            for (counter, value) in counters {
                let labels = [("vcpu", vcpu.as_str()), ("counter", counter)];
                self.sample(VCPU, &labels, value);
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
        for device in devices {
            if let Some(seconds) = device.pid.and_then(cpu) {
                self.sample(CPU, &[("device", &device.id)], seconds);
            }
        }
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

/// Seconds of CPU that a process has used: `utime` and `stime` of proc(5)'s `stat`.
fn cpu(pid: i32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11);
    let mut next = || times.next()?.parse::<u32>().ok();
    let ticks = f64::from(next()?) + f64::from(next()?);
    // USER_HZ is 100 on every Linux that KVM runs on.
    Some(ticks / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_time_is_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let begin = cpu(pid).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while cpu(pid).unwrap() <= begin {
            assert!(std::time::Instant::now() < end, "no time passes");
        }
    }
}
