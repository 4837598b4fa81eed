//! `outboard-rust-vmm-echo`: the same device as a daemon of its own.

use std::process::ExitCode;

use outboard_rust_vmm::Adapted;

fn main() -> ExitCode {
    outboard_device::daemon::main::<Adapted<outboard_rust_vmm_echo::Echo>>()
}
