//! Thin wrappers of KVM: the VM, its vCPUs, and the two eventfds of a queue.

mod chips;
mod error;
mod exits;
mod fault;
#[cfg(test)]
mod guest_test;
mod info;
mod ioeventfd;
mod irqfd;
mod kick;
mod line;
pub mod meanings;
mod routes;
mod run;
mod state;
mod stats;
mod system;
mod vcpu;
mod vcpus;
mod vm;

pub use error::KvmError;
pub use fault::Fault;
pub use info::{Activity, VcpuInfo};
pub use ioeventfd::{Address, IoEventFd};
pub use irqfd::IrqFd;
pub use line::IrqLine;
pub use routes::{Gsi, MsiMessage, Routes};
pub use run::{Platform, Stop};
pub use system::{missing_capabilities, open};
pub use vcpus::{OnStop, Vcpus};
pub use vm::Vm;
