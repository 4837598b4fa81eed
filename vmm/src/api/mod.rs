//! A VM, asked and steered by other processes: HTTP on a Unix socket in the VM's own folder.
//!
//! | file | idea |
//! |---|---|
//! | `server.rs` | the socket, served on a thread of its own while the VM lives |
//! | `routes.rs` | which request means what |
//! | `client.rs` | the other side, for the verbs of the command line |

mod client;
mod routes;
mod server;

pub use client::{Client, ClientError};
pub use server::Server;

/// The socket's name in the VM's folder.
pub const SOCKET: &str = "api.sock";
