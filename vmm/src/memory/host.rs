//! What the host says it can give.

use std::fs;

/// Bytes the host can give without swapping: `MemAvailable` of `/proc/meminfo`. `None` where the
/// file cannot be read.
pub(super) fn available_memory() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Free huge pages of 2 MiB; 0 where the host has none at all.
pub(super) fn free_hugepages() -> u64 {
    fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// A field of `/proc/meminfo`, given in kibibytes, as bytes.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn meminfo_is_in_kibibytes() {
        let text = "MemTotal:  16 kB\nMemAvailable:    8123 kB\n";
        assert_eq!(super::field(text, "MemAvailable:"), Some(8123 * 1024));
        assert_eq!(super::field(text, "SwapFree:"), None);
    }
}
