//! Whether a path can be a Unix socket's.

use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The longest, in bytes: `sun_path` holds 108, the last of them zero (unix(7)).
pub const MAX: usize = 107;

/// Checks the length of a path before a socket is made there, or looked for. The system's own words
/// about it name neither the path's length nor the limit.
///
/// # Errors
/// It is too long, which the text says in the place of a cause; of the kind
/// [`InvalidFilename`](ErrorKind::InvalidFilename).
pub fn check(path: &Path) -> io::Result<()> {
    let length = path.as_os_str().as_bytes().len();
    if length <= MAX {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::InvalidFilename,
        format!("the path is {length} bytes long, and a socket's may have {MAX}"),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_limit_is_the_systems() {
        let folder = tempfile::tempdir().unwrap();
        let of = |length: usize| {
            let left = length - folder.path().as_os_str().len() - 1;
            folder.path().join("s".repeat(left))
        };
        check(&of(MAX)).unwrap();
        UnixListener::bind(of(MAX)).unwrap();
        let why = check(&of(MAX + 1)).unwrap_err().to_string();
        assert!(why.contains("108 bytes") && why.contains("107"), "{why}");
        UnixListener::bind(of(MAX + 1)).unwrap_err();
    }
}
