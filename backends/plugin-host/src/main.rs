//! `outboard-plugin-host`: a virtio device of a plugin, served to any VMM over vhost-user.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use outboard_device::abi::host::{Kind, Plugin, PluginDevice};
use outboard_device::abi::options::from_keyvals;
use outboard_device::abi::raw::OUTBOARD_NEEDS_NET;
use outboard_device::daemon::{self, Reach};

/// Serves a virtio device of a plugin to a virtual machine, over vhost-user
#[derive(Parser)]
#[command(
    version,
    after_help = "\
`outboard plugin inspect FILE` lists a plugin's devices and their options.

Example:
  outboard-plugin-host --plugin ./libramdisk.so,size=64M \\
      --socket /tmp/ramdisk.sock"
)]
struct Cli {
    /// The plugin; after commas, device=NAME where it has several, and the device's options,
    /// option=value; a comma in a value is written twice
    #[arg(long, value_name = "FILE[,KEYS]")]
    plugin: String,
    #[command(flatten)]
    endpoint: daemon::Endpoint,
    #[command(flatten)]
    log: daemon::LogArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    daemon::init_logging(&cli.log);
    // Before the plugin, which may start threads.
    if let Err(error) = daemon::hold_signals() {
        return daemon::exit(Err(error));
    }
    match make(&cli.plugin) {
        Ok((device, reach)) => daemon::exit(daemon::serve_with(&cli.endpoint, device, reach)),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn make(plugin: &str) -> Result<(PluginDevice, Reach), String> {
    let (path, keys) = plugin.split_once(',').unwrap_or((plugin, ""));
    let mut given: BTreeMap<String, String> = from_keyvals(keys)?;
    let name = given.remove("device");
    let plugin = Plugin::load(&PathBuf::from(path)).map_err(|error| error.to_string())?;
    let device = plugin
        .device(name.as_deref())
        .map_err(|error| error.to_string())?;
    if device.kind == Kind::Registers {
        return Err(format!(
            "'{}' of {path} is a device of registers: the guest's vCPU waits for each access, which vhost-user \
             cannot carry; run it in the VMM, with host=vmm",
            device.name
        ));
    }
    let reach = Reach {
        net: plugin.needs & OUTBOARD_NEEDS_NET != 0,
        // Version 1 of the table has no word for either, and what plugins were promised holds.
        files: true,
        io_uring: true,
    };
    let device = plugin
        .create(device, &given)
        .map_err(|error| error.to_string())?;
    Ok((device, reach))
}
