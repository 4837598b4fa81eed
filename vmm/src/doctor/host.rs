//! The host around KVM: huge pages, `io_uring`, tap, locked memory, and our daemons.

use std::fs::{self, OpenOptions};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::Finding;
use crate::supervisor::locate;

/// Locked memory that `io_uring`'s registered buffers want of a process: 64 MiB.
const MEMLOCK_WANTED: u64 = 64 << 20;

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![hugepages(), io_uring(), tap(), memlock()];
    let daemons = [
        "outboard-block",
        "outboard-net",
        "outboard-console",
        "outboard-plugin-host",
    ];
    findings.extend(daemons.map(daemon));
    findings
}

fn hugepages() -> Finding {
    let count = |name: &str| -> u64 {
        fs::read_to_string("/proc/meminfo")
            .unwrap_or_default()
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or(0)
    };
    match (count("HugePages_Free:"), count("HugePages_Total:")) {
        (_, 0) => Finding::warn(
            "hugepages",
            "none are set aside; --memory SIZE,hugepages=on will be refused",
            "echo 512 > /proc/sys/vm/nr_hugepages",
        ),
        (free, total) => Finding::pass("hugepages", format!("{free} of {total} free")),
    }
}

fn io_uring() -> Finding {
    match fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .as_deref()
        .map(str::trim)
    {
        Ok("2") => Finding::warn(
            "io_uring",
            "kernel.io_uring_disabled is 2: nobody may use it",
            "sysctl kernel.io_uring_disabled=0",
        ),
        Ok("1") if !nix::unistd::geteuid().is_root() => Finding::warn(
            "io_uring",
            "kernel.io_uring_disabled is 1: only kernel.io_uring_group may use it",
            "sysctl kernel.io_uring_disabled=0, or join that group",
        ),
        Ok(_) => Finding::pass("io_uring", "allowed"),
        // The knob came with Linux 6.6; before it, nothing short of seccomp says no.
        Err(_) => Finding::pass("io_uring", "no knob forbids it"),
    }
}

fn tap() -> Finding {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    match opened {
        Err(error) => Finding::warn(
            "tap",
            format!("/dev/net/tun: {error}"),
            "modprobe tun, and give yourself the device (or let root make the tap: ip tuntap add tap0 mode tap user $USER)",
        ),
        Ok(_) if nix::unistd::geteuid().is_root() => {
            Finding::pass("tap", "/dev/net/tun opens, and root may make taps")
        }
        Ok(_) => Finding::pass(
            "tap",
            "/dev/net/tun opens; taps that root made for you can be used",
        ),
    }
}

fn memlock() -> Finding {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((RLIM_INFINITY, _)) => Finding::pass("memlock", "unlimited"),
        Ok((soft, _)) if soft >= MEMLOCK_WANTED => {
            Finding::pass("memlock", format!("{} MiB", soft >> 20))
        }
        Ok((soft, _)) => Finding::warn(
            "memlock",
            format!(
                "{} KiB: older kernels count io_uring's rings against it",
                soft >> 10
            ),
            "ulimit -l 65536, or LimitMEMLOCK=64M in a unit",
        ),
        Err(error) => Finding::warn("memlock", error.to_string(), "ulimit -l 65536"),
    }
}

fn daemon(program: &'static str) -> Finding {
    match locate(program) {
        Ok(path) => Finding::pass(program, path.display().to_string()),
        Err(error) => Finding::warn(program, error.to_string(), "make install PREFIX=/usr/local"),
    }
}
