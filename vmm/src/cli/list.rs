//! `outboard list`: the VMs there are, and how those that do not run have ended.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use outboard::config::Size;
use outboard::definitions::Definitions;
use outboard::history;
use outboard::registry;
use outboard::vm::Info;
use serde::Serialize;

use super::manage::{Error, finish};
use super::say::Output;

/// How long a VM may take to tell of itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lists the VMs of this user that run.
#[derive(Args)]
pub(super) struct List {
    /// Those too that are defined and do not run, and how they ended
    #[arg(long)]
    all: bool,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// One VM. What only a running one has is `None` for the others, and the reason for a running one.
#[derive(Serialize)]
struct Listed {
    name: String,
    /// `created`, `running` or `paused`; `no answer`, or `shut off`.
    state: &'static str,
    /// The VMM's process.
    pid: Option<u32>,
    cpus: Option<u32>,
    /// Bytes.
    memory: Option<u64>,
    devices: Option<Vec<String>>,
    /// Why it does not run, or cannot be asked.
    reason: Option<String>,
}

impl Listed {
    fn running(info: Info) -> Self {
        let devices = info.devices.into_iter().map(|device| device.id);
        Self {
            name: info.name,
            state: info.state.word(),
            pid: Some(info.pid),
            cpus: Some(info.cpus),
            memory: Some(info.memory),
            devices: Some(devices.collect()),
            reason: None,
        }
    }

    fn other(name: String, state: &'static str, reason: String) -> Self {
        Self {
            name,
            state,
            pid: None,
            cpus: None,
            memory: None,
            devices: None,
            reason: Some(reason),
        }
    }
}

impl List {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run())
    }

    fn run(self) -> Result<String, Error> {
        let mut all = ask(registry::running()?);
        if self.all {
            let off = off(&all)?;
            all.extend(off);
        }
        Ok(self.output.of(all.as_slice(), table)?)
    }
}

fn table(all: &[Listed]) -> String {
    let names = all.iter().map(|vm| vm.name.len());
    let width = names.max().unwrap_or(0).max(4);
    let mut text = format!(
        " {:<7} {:<width$} {:<9} {:>5} {:>7}  Devices\n{}\n",
        "Id",
        "Name",
        "State",
        "vCPUs",
        "Memory",
        "-".repeat(width + 50)
    );
    for vm in all {
        let (name, state) = (&vm.name, vm.state);
        let line = match (vm.pid, vm.cpus, vm.memory) {
            (Some(pid), Some(cpus), Some(memory)) => format!(
                " {pid:<7} {name:<width$} {state:<9} {cpus:>5} {:>7}  {}",
                Size(memory).to_string(),
                vm.devices.as_deref().unwrap_or_default().join(" ")
            ),
            _ => format!(
                " {:<7} {name:<width$} {state:<9} {}",
                "-",
                on_a_line(vm.reason.as_deref().unwrap_or_default())
            ),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// A reason that quotes a daemon's last words: its beginning and the last of them, which tells the
/// cause as a rule. `outboard log` has the rest.
fn on_a_line(reason: &str) -> String {
    let mut lines = reason.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    match (lines.next_back(), lines.next()) {
        (None, _) => first.to_owned(),
        (Some(last), None) => format!("{first} {last}"),
        (Some(last), Some(_)) => format!("{first} ... {last}"),
    }
}

/// What they say of themselves, all asked at once; and those that say nothing.
fn ask(vms: Vec<registry::Running>) -> Vec<Listed> {
    let ask = |vm: &registry::Running| {
        let client = vm.client().patient_for(PATIENCE);
        client.get::<Info>("outboard.info")
    };
    let (mut running, mut silent) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let spawn =
            |vm: registry::Running| scope.spawn(move || ask(&vm).map_err(|error| (vm.name, error)));
        let asked: Vec<_> = vms.into_iter().map(spawn).collect();
        for thread in asked {
            match thread.join() {
                Ok(Ok(info)) => running.push(Listed::running(info)),
                // One that ends meanwhile is none to list; another's folder is locked by it.
                Ok(Err((name, error))) if registry::find(&name).is_ok() => {
                    silent.push(Listed::other(name, "no answer", error.to_string()));
                }
                _ => {}
            }
        }
    });
    running.append(&mut silent);
    running
}

/// Those that are defined and are not among `listed`.
fn off(listed: &[Listed]) -> Result<Vec<Listed>, Error> {
    let names = Definitions::ours()?.names()?;
    let is_listed = |name: &String| listed.iter().any(|vm| vm.name == *name);
    let off = names.into_iter().filter(|name| !is_listed(name));
    Ok(off
        .map(|name| {
            let last = history::last(&name);
            let reason = last.map_or_else(|| "never started".into(), |last| last.reason().into());
            Listed::other(name, "shut off", reason)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_has_one_line_whatever_its_end_has_to_say() {
        let reason =
            "failed: outboard-block ended, its last words:\n    WARN slow\n    error: no file";
        let all = [
            Listed::other("web".into(), "shut off", reason.into()),
            Listed::other("db".into(), "shut off", "never started".into()),
        ];
        let table = table(&all);
        assert_eq!(table.lines().count(), 4, "{table}");
        let parts = ["its last words: ... error: no file", "never started"];
        assert!(parts.iter().all(|part| table.contains(part)), "{table}");
        assert_eq!(on_a_line("a:\n  b"), "a: b");
    }
}
