//! What cannot be measured here, and why: said with every comparison.

use std::fs;
use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::case::{Case, Path as Device, Wait};
use crate::floor::{dpdk_is_installed, fio_is_installed};
use crate::machine::Machine;

/// A sentence for each limit.
pub fn limits(cases: &[Case], file: Option<&Path>, direct: bool) -> Vec<String> {
    let mut limits = Vec::new();
    let mut say = |text: &str| limits.push(text.to_owned());
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtual_machine = info
        .lines()
        .any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    if virtual_machine {
        say(
            "This is a virtual machine with neighbours: absolute figures move, compare within one run. \
             A wake-up across CPUs costs an exit to its hypervisor.",
        );
    }
    match Machine::here().cpus {
        1 => say(
            "One CPU: driver and backend share it, and a side that polls keeps the other from running.",
        ),
        2 => {
            say(
                "Two CPUs: with driver and backend on one each, several queues share what one has.",
            );
        }
        _ => {}
    }
    let block = cases.iter().any(|case| case.path == Device::Block);
    if block && !fio_is_installed() {
        say("No fio here, so no floor of plain I/O on the same file: install the package fio.");
    }
    if cases.iter().any(|case| case.path == Device::Switch) && !dpdk_is_installed() {
        say("No dpdk-testpmd here to compare a switch with: install the package dpdk-dev.");
    }
    if let Some(file) = file {
        let tmpfs = statfs(file).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC);
        if tmpfs && direct {
            say("The file is on a tmpfs: there is no disk below it, O_DIRECT or not.");
        } else if tmpfs {
            say("The file is on a tmpfs: these are figures of cached data.");
        } else if !direct {
            say(
                "Without --direct the page cache answers what it holds: these are not the disk's figures.",
            );
        }
    }
    if cases.iter().any(|case| case.wait == Wait::Sleep) {
        say(
            "A driver without a VM wakes up by an eventfd: a guest pays an interrupt, and an exit for a kick.",
        );
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Sweep;

    #[test]
    fn what_is_on_a_tmpfs_is_no_disk() {
        let cases = Sweep::default().cases(Device::Block);
        let said = limits(&cases, Some(Path::new("/dev/shm")), true);
        assert!(said.iter().any(|line| line.contains("tmpfs")), "{said:?}");
        let said = limits(&cases, Some(Path::new("/proc")), false);
        assert!(!said.iter().any(|line| line.contains("tmpfs")), "{said:?}");
    }
}
