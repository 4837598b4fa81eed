//! Where the bytes of a console go.

use std::fmt;
use std::path::PathBuf;

/// One end of `--serial` or `--console`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// This terminal; standard input and output when they are none.
    Tty,
    /// A pseudo-terminal, whose name is printed at start.
    Pty,
    /// A Unix socket that people attach to and leave; `None` is one in the VM's runtime folder.
    Socket(Option<PathBuf>),
    /// A file that is appended to.
    File(PathBuf),
    /// Nowhere: output is dropped and there is no input.
    Off,
}

impl std::str::FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "tty" => Ok(Self::Tty),
            None if text == "pty" => Ok(Self::Pty),
            None if text == "socket" => Ok(Self::Socket(None)),
            None if text == "off" => Ok(Self::Off),
            None if text == "file" => Err("'file' needs a path; write file=PATH".into()),
            Some(("socket", path)) if !path.is_empty() => Ok(Self::Socket(Some(path.into()))),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(format!(
                "'{text}' is not a place for a console; write tty, pty, socket, socket=PATH, file=PATH or off"
            )),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tty => f.write_str("tty"),
            Self::Pty => f.write_str("pty"),
            Self::Socket(None) => f.write_str("socket"),
            Self::Socket(Some(path)) => write!(f, "socket={}", path.display()),
            Self::File(path) => write!(f, "file={}", path.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written() {
        for text in ["tty", "pty", "socket", "socket=/tmp/a", "file=log", "off"] {
            assert_eq!(
                text.parse::<Port>().map(|port| port.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in ["", "file", "file=", "socket=", "screen"] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
    }
}
