//! What a vCPU tells of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a vCPU does, and has done so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuInfo {
    /// Its number, which is its APIC id.
    pub index: u32,
    /// The id of its thread in the host.
    pub thread: Option<i32>,
    /// What it does now.
    pub state: Activity,
    /// Why it came to the VMM, and how often, by our names.
    pub exits: BTreeMap<String, u64>,
    /// What KVM counts of it, by KVM's names. Empty on hosts before Linux 5.14.
    pub counters: BTreeMap<String, u64>,
}

/// What a vCPU does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// It is in the guest, or about to be.
    Running,
    /// It waits for an interrupt, or to be started by another one.
    Halted,
    /// The VMM keeps it out of the guest.
    Paused,
}

impl Activity {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Halted => "halted",
            Self::Paused => "paused",
        }
    }
}

/// Whether a vCPU that may run sleeps in KVM: by KVM's word, or as its thread looks where KVM says
/// nothing.
pub(super) fn is_blocked(counters: &BTreeMap<String, u64>, thread: i32) -> bool {
    if let Some(blocking) = counters.get("blocking") {
        return *blocking != 0;
    }
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    stat.is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('S'))
    })
}
