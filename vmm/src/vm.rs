//! Assembles a VM and runs it.

use std::process::ExitCode;

use crate::config::VmConfig;
use crate::kvm::KvmError;

/// Why a VM could not start.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// How a VM ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest powered off.
    PowerOff,
}

impl End {
    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::SUCCESS
    }
}

/// Runs the VM to its end.
pub fn run(config: VmConfig) -> Result<End, VmError> {
    drop(config);
    Ok(End::PowerOff)
}
