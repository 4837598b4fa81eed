//! Outboard: a KVM virtual machine monitor whose every device runs outside it.
//!
//! The VMM keeps what only it can do: vCPUs, guest memory, and the wiring of notifications. Each
//! virtio device is one connected stream that speaks vhost-user, whatever is behind it.
//!
//! [`config`] describes a VM; [`vm`] assembles one and runs it. In the order in which a guest meets
//! them: [`arch`] and [`image`] put a kernel into [`memory`], [`kvm`] runs it, its accesses go by
//! the [`bus`] to the [`chipset`] and to [`pci`], virtio devices appear there by [`transport`], and
//! [`frontend`] and [`supervisor`] join them to their backends. [`logs`] keeps what they say. Other
//! processes find a VM by the [`registry`] and steer it by the [`api`].

mod apart;
pub mod api;
pub mod arch;
pub mod bus;
pub mod chipset;
pub mod config;
pub mod definitions;
pub mod doctor;
pub mod frontend;
mod held;
pub mod history;
pub mod image;
mod inherited;
pub mod kvm;
pub mod logs;
pub mod memory;
pub mod monitor;
mod own_folder;
pub mod pci;
mod places;
pub mod plugin;
pub mod registry;
pub mod stderr;
pub mod supervisor;
pub mod transport;
pub mod vm;
