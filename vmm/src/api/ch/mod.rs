//! Cloud Hypervisor's JSON, as its `OpenAPI` document (version 0.3.0) and its sources have it.
//!
//! | file | idea |
//! |---|---|
//! | `fixed.rs` | values of which only Cloud Hypervisor's default is possible here |
//! | `config.rs` | a VM, in its words |
//! | `devices.rs` | devices, in its words and in ours |
//! | `describe.rs` | a VM, from its words to ours and back |
//! | `info.rs` | what `vm.info` answers |

mod config;
mod describe;
mod devices;
mod fixed;
mod info;

pub(super) use config::VmConfig;
pub(super) use devices::{
    Described, DiskConfig, FsConfig, GenericVhostUserConfig, NetConfig, none,
};
pub(super) use info::VmInfo;
