//! `outboard plugin`: what a plugin offers, and whether it loads here.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use outboard::plugin::inspect::{inspect, inspect_here};
use outboard::plugin::{Inspected, InspectedDevice, InspectedKind, InspectedOption};

/// Look at device plugins
#[derive(Args)]
pub(super) struct Plugin {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Loading a plugin runs its code; it is loaded into a process of its own, which may end with it. Ends
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
        /// Print JSON
        #[arg(long)]
        json: bool,
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
            Verb::Inspect { file, json } => match inspect(&file) {
                Ok(plugin) if json => print_json(&plugin),
                Ok(plugin) => {
                    print(&plugin);
                    ExitCode::SUCCESS
                }
                Err(why) => {
                    eprintln!("outboard: {why}");
                    ExitCode::FAILURE
                }
            },
            // Read by `inspect`: an answer on standard output, whatever it is.
            Verb::InspectHere { file } => match inspect_here(&file) {
                Ok(plugin) => print_json(&plugin),
                Err(why) => {
                    println!("{why}");
                    ExitCode::FAILURE
                }
            },
        }
    }
}

fn print_json(plugin: &Inspected) -> ExitCode {
    match serde_json::to_string_pretty(plugin) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            super::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn print(plugin: &Inspected) {
    println!(
        "{} {}, for version 1.{} of the plugin ABI; it loads here",
        plugin.name, plugin.version, plugin.abi_minor
    );
    if plugin.needs_net {
        println!("It asks outboard-plugin-host for the network.");
    }
    for device in &plugin.devices {
        println!("\n{}: {} ({})", device.name, device.summary, kind(device));
        for option in &device.options {
            println!("  {:<24} {}", usage(option), help(option));
        }
    }
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
