//! A VM, asked and steered by other processes: HTTP on a Unix socket, with Cloud Hypervisor's requests
//! and some of ours. What each means is said in `docs/api.md`.
//!
//! | file | idea |
//! |---|---|
//! | `server.rs` | the socket, served on a thread of its own |
//! | `connection.rs` | a connection whose bytes may bring descriptors |
//! | `asked.rs` | a request, whole: its body, and its descriptors |
//! | `routes.rs` | which request means what, and the OpenAPI document |
//! | `ch/` | Cloud Hypervisor's JSON |
//! | `metrics.rs` | what Prometheus reads |
//! | `client.rs` | the other side, for the verbs of the command line |

mod asked;
mod ch;
mod client;
mod connection;
mod metrics;
mod routes;
mod server;

pub use client::{Client, ClientError};
pub use server::{Place, Server};

/// The socket's name in the VM's folder.
pub const SOCKET: &str = "api.sock";
