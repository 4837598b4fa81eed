//! The people's ends: one a file.

mod attach;
mod discard;
mod file;
mod pty;
mod stdio;
mod terminal;
mod threads;

pub use attach::Attach;
pub use discard::Discard;
pub use file::File;
pub use pty::Pty;
pub use stdio::{Stdio, WayOut};
pub use terminal::RawMode;

use std::path::PathBuf;

/// Why an end cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// A file, a socket or a pty cannot be had.
    #[error("{what} {} cannot be used; see that its folder is there and may be written, or choose another path", path.display())]
    Path {
        /// What it was to be.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// No socket can have this path.
    #[error("the socket {} cannot be had; choose a shorter path, or set XDG_RUNTIME_DIR", path.display())]
    Long {
        /// Where.
        path: PathBuf,
        /// How long it is, and may be.
        #[source]
        source: std::io::Error,
    },
    /// It would wait for a reader.
    #[error(
        "the file {} is a FIFO, which may have no reader; name a regular file, or use socket=PATH or pty",
        .0.display()
    )]
    Fifo(PathBuf),
    /// Another console serves this socket.
    #[error("the socket {} is served by another process; choose another path", .0.display())]
    Live(PathBuf),
    /// The terminal refuses.
    #[error("the terminal cannot be set to raw mode")]
    Terminal(#[source] std::io::Error),
}
