//! What to spawn, and what it inherits.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// A daemon to be spawned: a program, its arguments, and the file descriptors it inherits.
///
/// An inherited descriptor keeps its number, so the number can be written into the arguments
/// here. The child gets these descriptors, standard input, output and error, and no other.
#[derive(Debug)]
pub struct Command {
    pub(super) id: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) inherited: Vec<OwnedFd>,
    pub(super) variables: Vec<(&'static str, String)>,
    pub(super) terminal: bool,
}

impl Command {
    /// `id` is the device's, for messages and logs. The program is a path; see [`super::locate()`].
    pub fn new(id: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            program: program.into(),
            args: Vec::new(),
            inherited: Vec::new(),
            variables: Vec::new(),
            terminal: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Lets the child inherit `fd` and adds its number as an argument: `.arg("--fd").fd(stream)`.
    #[must_use]
    pub fn fd(self, fd: impl Into<OwnedFd>) -> Self {
        self.fd_as("", fd)
    }

    /// The same with something before the number: `.fd_as("--fd=", stream)`.
    #[must_use]
    pub fn fd_as(mut self, before: &str, fd: impl Into<OwnedFd>) -> Self {
        let fd = fd.into();
        self.args.push(format!("{before}{}", fd.as_raw_fd()).into());
        self.inherited.push(fd);
        self
    }

    /// Lets the child inherit `fd`, and puts its number into its environment.
    #[must_use]
    pub fn fd_in(mut self, variable: &'static str, fd: impl Into<OwnedFd>) -> Self {
        let fd = fd.into();
        self.variables.push((variable, fd.as_raw_fd().to_string()));
        self.inherited.push(fd);
        self
    }

    /// Lets the child inherit `fd`, and writes its number for every `place` in the arguments so far.
    #[must_use]
    pub fn fd_in_place_of(mut self, place: &str, fd: impl Into<OwnedFd>) -> Self {
        let fd = fd.into();
        let number = fd.as_raw_fd().to_string();
        for arg in &mut self.args {
            // What is no text has no place for it.
            if let Some(text) = arg.to_str().filter(|text| text.contains(place)) {
                *arg = text.replace(place, &number).into();
            }
        }
        self.inherited.push(fd);
        self
    }

    /// The child owns the terminal: it gets the VMM's standard input and output and stays in its
    /// process group. Any other child has /dev/null to read and a group of its own, so that
    /// Ctrl-C at the terminal does not reach it.
    #[must_use]
    pub fn terminal(mut self, owns: bool) -> Self {
        self.terminal = owns;
        self
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn inherited_numbers(&self) -> Vec<RawFd> {
        self.inherited.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        self.args
            .iter()
            .try_for_each(|arg| write!(f, " {}", arg.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_inherited_descriptors_stand_in_the_arguments() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let (x, y) = (a.as_raw_fd(), b.as_raw_fd());
        let command = Command::new("disk0", "/bin/daemon")
            .arg("--fd")
            .fd(a)
            .fd_as("--other=", b);
        assert_eq!(
            command.to_string(),
            format!("/bin/daemon --fd {x} --other={y}")
        );
        assert_eq!(command.inherited_numbers(), [x, y]);
    }

    #[test]
    fn a_number_stands_where_its_place_was() {
        let (fd, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = fd.as_raw_fd();
        let command = Command::new("fs0", "/bin/d")
            .args(["a,fd={fd},b", "{fd}", "c"])
            .fd_in_place_of("{fd}", fd);
        assert_eq!(
            command.to_string(),
            format!("/bin/d a,fd={number},b {number} c")
        );
        assert_eq!(command.inherited_numbers(), [number]);
    }
}
