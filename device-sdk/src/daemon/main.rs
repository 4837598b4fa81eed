//! The whole `main` of a daemon whose device is made from options.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Arg, Args, Command, FromArgMatches};

use super::{Endpoint, LogArgs, exit, hold_signals, init_logging, report, serve};
use crate::abi::export::{FromOptions, OptionSpec, Options};
use crate::abi::options;
use crate::device::{Device, DeviceError};

/// Serves the device that the command line describes: `--socket` or `--fd`, and an argument for each
/// option the device declares. All there is to a daemon's `main`:
///
/// ```ignore
/// fn main() -> std::process::ExitCode {
///     outboard_device::daemon::main::<MyDevice>()
/// }
/// ```
pub fn main<D: Device + FromOptions>() -> ExitCode {
    let schema: Vec<_> = D::OPTIONS.iter().map(OptionSpec::schema).collect();
    let mut command = LogArgs::augment_args(Endpoint::augment_args(
        Command::new(D::NAME).about(D::SUMMARY),
    ));
    for option in &schema {
        // They live as long as the command line, which is the process.
        let name: &'static str = option.name.clone().leak();
        let mut help = option.help.clone();
        if let Some(default) = &option.default {
            help = format!("{help} [default: {default}]");
        }
        command = command.arg(
            Arg::new(name)
                .long(name)
                .value_name(option.kind.metavar())
                .help(help),
        );
    }
    let matches = command.get_matches();
    let parsed = Endpoint::from_arg_matches(&matches)
        .and_then(|endpoint| Ok((endpoint, LogArgs::from_arg_matches(&matches)?)));
    let (endpoint, log) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    init_logging(&log);
    let given: BTreeMap<String, String> = schema
        .iter()
        .filter_map(|option| {
            let value = matches.get_one::<String>(&option.name)?;
            Some((option.name.clone(), value.clone()))
        })
        .collect();
    if let Err(error) = hold_signals() {
        return exit(Err(error));
    }
    let made = options::check(&schema, &given)
        .map_err(DeviceError::other)
        .and_then(|values| D::from_options(&Options::new(D::OPTIONS, &values)));
    match made {
        Ok(device) => exit(serve(&endpoint, device)),
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}
