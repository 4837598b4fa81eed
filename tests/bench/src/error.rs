//! Why something could not be measured.

use std::io;
use std::path::PathBuf;

use outboard_device::driver::DriverError;

/// What went wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver or the backend failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The backend's process ended, or never listened.
    #[error("the backend {command:?} {what}{words}")]
    Backend {
        /// Its command line.
        command: String,
        /// What it did.
        what: String,
        /// What it last said, on lines of their own.
        words: String,
    },
    /// The case does not fit the backend.
    #[error("{0}")]
    Unfit(String),
    /// A file could not be used.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something the tool itself needs failed.
    #[error("cannot {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A line of a file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Results that nobody has seen.
    #[error("standard output does not take the results")]
    Unshown(#[source] &'static io::Error),
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The system refused.
    pub fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }

    /// The system refused, by number.
    pub fn errno(doing: &'static str) -> impl FnOnce(nix::Error) -> Self {
        move |source| Self::System {
            doing,
            source: source.into(),
        }
    }

    /// A file could not be used.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

/// The result of a measurement.
pub type Result<T> = std::result::Result<T, Error>;
