//! `outboard list` and `outboard info`: what runs.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use outboard::config::Size;
use outboard::definitions::Definitions;
use outboard::history;
use outboard::registry;
use outboard::vm::Info;
use serde::Serialize;

use super::info_text;
use super::manage::{Error, Named, Output, finish};

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

/// One that has no more to tell: it is defined and does not run, or does not answer.
#[derive(Serialize)]
struct Off {
    name: String,
    state: &'static str,
    reason: String,
}

impl List {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run())
    }

    fn run(self) -> Result<(), Error> {
        let (running, mut off) = ask(registry::running()?);
        if self.all {
            let on = running.iter().map(|vm| &vm.name);
            let on: Vec<_> = on.chain(off.iter().map(|vm| &vm.name)).cloned().collect();
            off.extend(self::off(&on)?);
        }
        if self.output == Output::Json {
            let values = running.iter().map(serde_json::to_value);
            let all = values.chain(off.iter().map(serde_json::to_value));
            let all = all.collect::<Result<Vec<_>, _>>()?;
            println!("{}", serde_json::to_string_pretty(&all)?);
            return Ok(());
        }
        let names = running
            .iter()
            .map(|vm| &vm.name)
            .chain(off.iter().map(|vm| &vm.name));
        let width = names.map(String::len).max().unwrap_or(0).max(4);
        println!(
            " {:<7} {:<width$} {:<9} {:>5} {:>7}  Devices",
            "Id", "Name", "State", "vCPUs", "Memory"
        );
        println!("{}", "-".repeat(width + 50));
        for vm in running {
            let devices: Vec<_> = vm.devices.iter().map(|device| device.id.as_str()).collect();
            println!(
                " {:<7} {:<width$} {:<9} {:>5} {:>7}  {}",
                vm.pid,
                vm.name,
                vm.state.word(),
                vm.cpus,
                Size(vm.memory).to_string(),
                devices.join(" ")
            );
        }
        for vm in off {
            println!(
                " {:<7} {:<width$} {:<9} {}",
                "-", vm.name, vm.state, vm.reason
            );
        }
        Ok(())
    }
}

/// What they say of themselves, all asked at once; and those that say nothing.
fn ask(vms: Vec<registry::Running>) -> (Vec<Info>, Vec<Off>) {
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
                Ok(Ok(info)) => running.push(info),
                // One that ends meanwhile is none to list; another's folder is locked by it.
                Ok(Err((name, error))) if registry::find(&name).is_ok() => silent.push(Off {
                    name,
                    state: "no answer",
                    reason: error.to_string(),
                }),
                _ => {}
            }
        }
    });
    (running, silent)
}

fn off(running: &[String]) -> Result<Vec<Off>, Error> {
    let names = Definitions::ours()?.names()?;
    let off = names.into_iter().filter(|name| !running.contains(name));
    Ok(off
        .map(|name| {
            let last = history::last(&name);
            let reason = last.map_or_else(|| "never started".into(), |last| last.reason().into());
            let state = "shut off";
            Off {
                name,
                state,
                reason,
            }
        })
        .collect())
}

/// Tells what a running VM is and has.
#[derive(Args)]
pub(super) struct Tell {
    #[command(flatten)]
    vm: Named,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Tell {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run())
    }

    fn run(self) -> Result<(), Error> {
        let info: Info = registry::find(&self.vm.name)?
            .client()
            .get("outboard.info")?;
        if self.output == Output::Json {
            println!("{}", serde_json::to_string_pretty(&info)?);
            return Ok(());
        }
        print!("{}", info_text::text(&info));
        Ok(())
    }
}
