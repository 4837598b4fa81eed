//! The advisory lock on an image, in the layout QEMU uses, so that each honours the other's.
//!
//! Single bytes of the file stand for permissions. A process holds a *shared* lock on byte
//! `100 + p` for each permission `p` it uses, and on byte `200 + p` for each it will not let
//! others use. It then asks whether anyone else holds the opposite byte. Nobody ever takes an
//! exclusive lock, so a question never disturbs another, and two that start at once may both be
//! refused but never both let in.
//!
//! The locks belong to the open file description: they last until the last descriptor for it is
//! closed, whatever else in this process opens and closes the same file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use tracing::warn;

use super::ImageError;

/// How often a lock that is held is tried again: a daemon that was killed holds its lock until the
/// kernel has ended its last writes.
const ATTEMPTS: u32 = 10;

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(30);

/// First byte of the permissions in use.
const USED_BASE: i64 = 100;
/// First byte of the permissions refused to others.
const REFUSED_BASE: i64 = 200;

/// Reading data that is right.
const PERM_CONSISTENT_READ: i64 = 0;
/// Changing data.
const PERM_WRITE: i64 = 1;
/// Changing the size.
const PERM_RESIZE: i64 = 3;

/// What the disk is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Others may read; nobody may write.
    Read,
    /// Nobody else may write, nor read what would change under them.
    Write,
}

/// Why a lock was not had.
#[derive(Debug)]
enum LockError {
    /// Another process uses the image in a way that excludes this one.
    Held {
        /// The other one writes; otherwise it reads and lets nobody write.
        by_writer: bool,
    },
    /// The file system keeps no such locks.
    Unsupported(io::Error),
}

/// Takes the lock for `access` on the image in `file`, which lies at `path`. It lasts as long as
/// the open file description. Where the file system keeps no locks there is a warning.
pub(super) fn take(file: &File, path: &Path, access: Access) -> Result<(), ImageError> {
    let mut left = ATTEMPTS;
    let locked = loop {
        match lock(file, access) {
            Err(LockError::Held { .. }) if left > 0 => left -= 1,
            other => break other,
        }
        std::thread::sleep(PAUSE);
    };
    match locked {
        Ok(()) => Ok(()),
        Err(LockError::Held { by_writer }) => Err(ImageError::Locked {
            path: path.to_owned(),
            by_writer,
            readonly: access == Access::Read,
        }),
        Err(LockError::Unsupported(error)) => {
            warn!(
                "Cannot lock disk image '{}' ({error}): make sure that nobody else writes to it",
                path.display()
            );
            Ok(())
        }
    }
}

/// Takes the lock at once or not at all.
fn lock(file: &File, access: Access) -> Result<(), LockError> {
    let used: &[i64] = match access {
        Access::Read => &[PERM_CONSISTENT_READ],
        Access::Write => &[PERM_CONSISTENT_READ, PERM_WRITE],
    };
    let refused = [PERM_WRITE, PERM_RESIZE];
    for byte in used
        .iter()
        .map(|p| USED_BASE + p)
        .chain(refused.iter().map(|p| REFUSED_BASE + p))
    {
        set_shared(file, byte)?;
    }
    for permission in refused {
        if held_by_others(file, USED_BASE + permission)? {
            return Err(LockError::Held { by_writer: true });
        }
    }
    for permission in used {
        if held_by_others(file, REFUSED_BASE + permission)? {
            return Err(LockError::Held { by_writer: false });
        }
    }
    Ok(())
}

/// Takes a shared lock on one byte. Someone's exclusive lock there counts as a writer's.
fn set_shared(file: &File, byte: i64) -> Result<(), LockError> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&one_byte(byte, libc::F_RDLCK))) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(LockError::Held { by_writer: true }),
        Err(errno) => Err(LockError::Unsupported(errno.into())),
    }
}

/// Whether another open file description holds any lock on the byte.
fn held_by_others(file: &File, byte: i64) -> Result<bool, LockError> {
    let mut answer = one_byte(byte, libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut answer))
        .map_err(|errno| LockError::Unsupported(errno.into()))?;
    Ok(i32::from(answer.l_type) != libc::F_UNLCK)
}

/// A lock request for one byte. `l_pid` must be 0 for this kind of lock (fcntl(2)).
fn one_byte(start: i64, kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(path: &Path, access: Access) -> File {
        File::options()
            .read(true)
            .write(access == Access::Write)
            .open(path)
            .unwrap()
    }

    /// Locks two descriptors of one file, and says how the second fared.
    fn second(first: Access, then: Access) -> Result<(), LockError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (a, b) = (open(file.path(), first), open(file.path(), then));
        lock(&a, first).unwrap();
        let outcome = lock(&b, then);
        drop(a);
        outcome
    }

    #[test]
    fn readers_share() {
        assert!(second(Access::Read, Access::Read).is_ok());
    }

    #[test]
    fn a_writer_is_alone() {
        let by_writer = |r| match r {
            Err(LockError::Held { by_writer }) => by_writer,
            other => panic!("{other:?}"),
        };
        assert!(by_writer(second(Access::Write, Access::Write)));
        assert!(by_writer(second(Access::Write, Access::Read)));
        assert!(!by_writer(second(Access::Read, Access::Write)));
    }

    #[test]
    fn the_lock_ends_with_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let a = open(file.path(), Access::Write);
        lock(&a, Access::Write).unwrap();
        drop(a);
        lock(&open(file.path(), Access::Write), Access::Write).unwrap();
    }

    #[test]
    fn a_program_that_shares_everything_is_honoured_all_the_same() {
        // Bytes 100 and 101 in use, nothing refused: a QEMU export that lets others write.
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = open(file.path(), Access::Write);
        for byte in [100, 101] {
            fcntl(
                &other,
                FcntlArg::F_OFD_SETLK(&one_byte(byte, libc::F_RDLCK)),
            )
            .unwrap();
        }
        let ours = open(file.path(), Access::Write);
        assert!(matches!(
            lock(&ours, Access::Write),
            Err(LockError::Held { by_writer: true })
        ));
    }
}
