//! `outboard info`: a VM at one moment, as text. Into a string no write fails.

use std::fmt::Write;

use outboard::config::Size;
use outboard::kvm::{VcpuInfo, meanings};
use outboard::vm::{DeviceInfo, Info, KvmInfo, PluginInfo, QueueCounts, QueueInfo, RegistersInfo};

/// So many vCPUs have a column each in the table of exits; of more, their sum is shown.
const COLUMNS: usize = 4;

/// All of it.
pub(super) fn text(info: &Info) -> String {
    let mut text = String::new();
    for (what, value) in [
        ("Name", info.name.clone()),
        ("State", info.state.word().to_owned()),
        ("Process", info.pid.to_string()),
        ("KVM", kvm(&info.kvm)),
        ("vCPUs", info.cpus.to_string()),
        ("Memory", Size(info.memory).to_string()),
        ("Kernel", info.kernel.clone()),
    ] {
        line(&mut text, what, &value);
    }
    for console in &info.consoles {
        let at = if console.pty { "on" } else { "at" };
        let value = format!("{} {at} {}", console.port, console.path.display());
        line(&mut text, "Console", &value);
    }
    for daemon in &info.daemons {
        let value = format!("of {}, process {}", daemon.id, daemon.pid);
        line(&mut text, "Daemon", &value);
    }
    for vcpu in &info.vcpus {
        let thread = vcpu.thread.map(|thread| format!(", thread {thread}"));
        let value = format!(
            "{}: {}{}",
            vcpu.index,
            vcpu.state.word(),
            thread.unwrap_or_default()
        );
        line(&mut text, "vCPU", &value);
    }
    text.push_str("\nMemory map\n");
    for entry in &info.map {
        let last = entry.end.saturating_sub(1);
        let range = format!("{:#012x} to {last:#012x}", entry.start);
        let _ = writeln!(text, "  {range}  {}", entry.what);
    }
    info.devices.iter().for_each(|device| {
        self::device(&mut text, device);
    });
    info.registers
        .iter()
        .for_each(|device| registers(&mut text, device));
    exits(&mut text, &info.vcpus);
    text
}

fn line(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "{what:<9}{value}");
}

fn detail(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "  {what:<10}{value}");
}

fn kvm(kvm: &KvmInfo) -> String {
    let vendor = match kvm.vendor.as_str() {
        "" => String::new(),
        vendor => format!(", {vendor}"),
    };
    let nested = if kvm.nested {
        ", nested: this host is a VM itself"
    } else {
        ""
    };
    format!("{}{vendor}{nested}", kvm.module)
}

fn device(text: &mut String, device: &DeviceInfo) {
    let leaving = if device.leaving { ", asked to go" } else { "" };
    let _ = writeln!(
        text,
        "\nDevice   {} at {}, {}, {}{leaving}",
        device.id, device.bdf, device.kind, device.backend,
    );
    let pid = device.pid.map(|pid| format!(", process {pid}"));
    let host = format!(
        "{} {}{}",
        device.host,
        device.program,
        pid.unwrap_or_default()
    );
    detail(text, "host", &host);
    if let Some(socket) = &device.socket {
        detail(text, "socket", &socket.display().to_string());
    }
    if let Some(of) = &device.plugin {
        detail(text, "plugin", &plugin(of));
    }
    detail(text, "driver", &device.driver);
    let refused = device
        .offered
        .iter()
        .filter(|name| !device.taken.contains(name));
    let refused: Vec<_> = refused.map(String::as_str).collect();
    detail(text, "features", &words(&device.taken.join(" ")));
    detail(text, "not taken", &words(&refused.join(" ")));
    for queue in &device.queues {
        detail(text, &format!("queue {}", queue.index), &self::queue(queue));
        if let Some(counts) = queue.counts.as_ref().filter(|_| queue.enabled) {
            detail(text, "", &self::counts(counts));
        }
    }
}

fn words(words: &str) -> String {
    if words.is_empty() { "none" } else { words }.to_owned()
}

fn plugin(plugin: &PluginInfo) -> String {
    let version = plugin.version.as_ref();
    let of = version.map(|version| format!(" of {version}"));
    format!(
        "{}{}, in {}",
        plugin.device,
        of.unwrap_or_default(),
        plugin.path.display()
    )
}

fn queue(queue: &QueueInfo) -> String {
    if !queue.enabled {
        return format!("not in use, up to {} descriptors", queue.size);
    }
    let vector = queue.vector.map_or_else(
        || "no interrupt".into(),
        |vector| format!("interrupt {vector}"),
    );
    let rings = match (queue.available, queue.used) {
        (Some(available), Some(used)) => {
            let in_flight = queue.in_flight().map_or_else(
                || "which makes no sense".into(),
                |chains| format!("{chains} in flight"),
            );
            format!("available {available}, used {used}, {in_flight}")
        }
        _ => "a packed ring".into(),
    };
    format!("{} descriptors, {vector}, {rings}", queue.size)
}

fn counts(counts: &QueueCounts) -> String {
    let kicks = counts.kicks.map(|kicks| format!("{kicks} kicks, "));
    let times = counts.quantile(0.5).zip(counts.quantile(0.99));
    let times = times.map(|(half, most)| format!(", half below {half} us, 99% below {most} us"));
    format!(
        "{} requests, {} bytes to the device, {} to the guest, {}{} interrupts{}",
        counts.requests,
        counts.bytes_to_device,
        counts.bytes_to_guest,
        kicks.unwrap_or_default(),
        counts.interrupts,
        times.unwrap_or_default(),
    )
}

fn registers(text: &mut String, device: &RegistersInfo) {
    let line = device
        .line
        .map(|line| format!(", interrupt line {line}"))
        .unwrap_or_default();
    let _ = writeln!(
        text,
        "\nDevice   {}: registers, {} {:#x} to {:#x}{line}",
        device.id,
        device.space,
        device.start,
        device.end.saturating_sub(1),
    );
    detail(text, "host", "vmm");
    detail(text, "plugin", &plugin(&device.plugin));
}

/// A line a reason, a column a vCPU; reasons that never came are left out.
fn exits(text: &mut String, vcpus: &[VcpuInfo]) {
    let summed = vcpus.len() > COLUMNS;
    let heads: Vec<String> = if summed {
        vec!["all vCPUs".into()]
    } else {
        let heads = vcpus.iter().map(|vcpu| format!("vCPU {}", vcpu.index));
        heads.collect()
    };
    let mut table = |title: &str, names: &[(&str, &str)], ours: bool| {
        let _ = write!(text, "\n{title:<27}");
        for head in &heads {
            let _ = write!(text, "{head:>13}");
        }
        text.push('\n');
        for (name, meaning) in names {
            let of = |vcpu: &VcpuInfo| {
                let counters = if ours { &vcpu.exits } else { &vcpu.counters };
                counters.get(*name).copied().unwrap_or(0)
            };
            let mut counts: Vec<u64> = vcpus.iter().map(of).collect();
            if summed {
                let sum = counts
                    .iter()
                    .fold(0, |sum: u64, count| sum.wrapping_add(*count));
                counts = vec![sum];
            }
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            let _ = write!(text, "  {name:<25}");
            for count in counts {
                let _ = write!(text, "{count:>13}");
            }
            let _ = writeln!(text, "  {meaning}");
        }
    };
    table("Exits to the VMM", meanings::OURS, true);
    if vcpus.iter().any(|vcpu| !vcpu.counters.is_empty()) {
        table("Counted by KVM", meanings::KVMS, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a VM with a disk, a plugin's device and registers told it, shortened.
    const RECORDED: &str = include_str!("text.json");

    #[test]
    fn everything_recorded_is_told() {
        let info: Info = serde_json::from_str(RECORDED).unwrap();
        let text = text(&info);
        for expected in [
            "KVM      kvm_pvm, GenuineIntel, nested: this host is a VM itself\n",
            "vCPU     0: running, thread 4243\n",
            "vCPU     1: halted, thread 4244\n",
            "Console  ttyS0 at /run/user/0/outboard/web/ttyS0.sock\n",
            "Console  console0 on /dev/pts/3\n",
            "Daemon   of ttyS0, process 4250\n",
            "  0x0000000000 to 0x0003ffffff  RAM\n",
            "  0x00c0000000 to 0x00c0001fff  disk0: BAR 0\n",
            "\nDevice   disk0 at 0000:00:08.0, block, connected\n",
            "  host      process outboard-block, process 4251\n",
            "  driver    running\n",
            "  features  seg-max flush event-idx version-1\n",
            "  not taken ring-reset\n",
            "  queue 0   256 descriptors, interrupt 1, available 7, used 5, 2 in flight\n",
            "            5 requests, 80 bytes to the device, 20485 to the guest, 6 kicks, 4 interrupts, half below 8 us",
            "  queue 1   not in use, up to 256 descriptors\n",
            "\nDevice   rng at 0000:00:09.0, rng, lost, asked to go\n",
            "  host      socket /run/rng.sock\n",
            "  socket    /run/rng.sock\n",
            "  plugin    entropy of outboard-entropy 0.1.0, in /lib/libentropy.so\n",
            "  features  none\n",
            "  queue 0   64 descriptors, no interrupt, available 9, used 10, which makes no sense\n",
            "\nDevice   nic: registers, ports 0x300 to 0x31f, interrupt line 5\n",
            "Exits to the VMM                  vCPU 0       vCPU 1\n",
            "  port-write                         120            0  a device's port was written\n",
            "Counted by KVM                    vCPU 0       vCPU 1\n",
            "  halt_exits                           3           40  the guest had nothing to do: HLT\n",
        ] {
            assert!(text.contains(expected), "{expected}is not in:\n{text}");
        }
        // What never came, and what is no event.
        for unexpected in ["msr", "blocking", "halt_wait_ns"] {
            assert!(!text.contains(unexpected), "{unexpected} is in:\n{text}");
        }
    }

    #[test]
    fn many_vcpus_are_summed() {
        let mut info: Info = serde_json::from_str(RECORDED).unwrap();
        let vcpu = info.vcpus[0].clone();
        info.vcpus = vec![vcpu; 5];
        let text = text(&info);
        assert!(
            text.contains("  port-write                         600"),
            "{text}"
        );
        assert!(
            text.contains("Exits to the VMM               all vCPUs\n"),
            "{text}"
        );
    }
}
