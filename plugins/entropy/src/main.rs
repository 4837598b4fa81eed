//! `outboard-entropy`: the same device as a daemon of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    outboard_device::daemon::main::<outboard_entropy::Entropy>()
}
