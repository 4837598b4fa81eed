//! Thin wrappers of KVM: the VM, its vCPUs, and the two eventfds of a queue.

mod error;
mod ioeventfd;
mod irqfd;
mod line;
mod routes;
mod system;
mod vm;

pub use error::KvmError;
pub use ioeventfd::{Address, IoEventFd};
pub use irqfd::IrqFd;
pub use line::IrqLine;
pub use routes::{Gsi, MsiMessage, Routes};
pub use system::{missing_capabilities, open};
pub use vm::Vm;
