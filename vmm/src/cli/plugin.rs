//! `outboard plugin`: what a plugin offers, and whether it loads here.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use outboard::plugin::inspect::{inspect, inspect_here};
use outboard::plugin::{Inspected, InspectedDevice, InspectedKind, InspectedOption};

use super::manage::{Error, finish};
use super::say::{self, Output};

/// Look at device plugins
#[derive(Args)]
pub(super) struct Plugin {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Loading a plugin runs its code; it is loaded into a process of its own, which may end with it. Ends \
with 1 when the plugin does not load here.

Example:
  outboard plugin inspect ./libramdisk.so";

#[derive(Subcommand)]
enum Verb {
    /// Say what a plugin offers, or why it does not load here
    #[command(after_help = EXAMPLES)]
    Inspect {
        /// The shared library
        file: PathBuf,
        /// For people, or for programs
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// The same in this process, as JSON
    #[command(hide = true)]
    InspectHere {
        /// The shared library
        file: PathBuf,
    },
}

impl Plugin {
    pub(super) fn execute(self) -> ExitCode {
        match self.verb {
            Verb::Inspect { file, output } => finish(match inspect(&file) {
                Ok(plugin) => output.of(&plugin, text).map_err(Error::from),
                Err(why) => Err(Error::Usage(why)),
            }),
            // Read by `inspect`: an answer on standard output, whatever it is.
            Verb::InspectHere { file } => match inspect_here(&file) {
                Ok(plugin) => finish(Output::Json.of(&plugin, text).map_err(Error::from)),
                Err(why) => say::answer(&format!("{why}\n"), ExitCode::FAILURE),
            },
        }
    }
}

fn text(plugin: &Inspected) -> String {
    let mut text = format!(
        "{} {}, for version 1.{} of the plugin ABI; it loads here\n",
        plugin.name, plugin.version, plugin.abi_minor
    );
    if plugin.needs_net {
        text.push_str("It asks outboard-plugin-host for the network.\n");
    }
    for device in &plugin.devices {
        let head = format!("\n{}: {} ({})\n", device.name, device.summary, kind(device));
        text.push_str(&head);
        for option in &device.options {
            let line = format!("  {:<24} {}\n", usage(option), help(option));
            text.push_str(&line);
        }
    }
    text
}

fn kind(device: &InspectedDevice) -> String {
    match device.kind {
        InspectedKind::Virtio(id) => format!("virtio device {id}; host=process or vmm"),
        InspectedKind::Registers => "registers; host=vmm".into(),
    }
}

fn usage(option: &InspectedOption) -> String {
    format!("{}={}", option.name, option.value)
}

fn help(option: &InspectedOption) -> String {
    match (&option.default, option.required) {
        (_, true) => format!("{} (required)", option.help),
        (Some(default), false) => format!("{} [default: {default}]", option.help),
        (None, false) => option.help.clone(),
    }
}
