//! The same as a daemon of its own.

fn main() -> std::process::ExitCode {
    outboard_device::daemon::main::<outboard_rust_vmm::Adapted<outboard_vhost_device_sound::Sound>>(
    )
}
