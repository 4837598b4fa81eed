//! Sweeping up after a VMM that was killed.
//!
//! A VMM keeps the folder of its VM locked while it runs, and removes its own sockets first when it
//! ends. One that is killed cannot, so the last of its daemons to go does, or whoever looks next.

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(5);

/// Removes the sockets in `folder` and links to others, and the folder if it is then empty, unless somebody has it locked.
/// True if nobody had.
///
/// Where somebody has, and there are sockets, it is tried again for `patience`: the kernel closes the
/// files of a killed VMM one after the other, and the lock may be the last. Blocks so long at most.
pub fn sweep(folder: &Path, patience: Duration) -> bool {
    let begin = Instant::now();
    let Ok(file) = File::open(folder) else {
        return false;
    };
    loop {
        match file.try_lock() {
            Ok(()) => {
                for socket in sockets(folder) {
                    let _ = std::fs::remove_file(socket);
                }
                let _ = std::fs::remove_dir(folder);
                return true;
            }
            Err(TryLockError::WouldBlock)
                if begin.elapsed() < patience && !sockets(folder).is_empty() =>
            {
                std::thread::sleep(LOOK);
            }
            Err(_) => return false,
        }
    }
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let kind = entry.file_type();
            kind.is_ok_and(|kind| kind.is_socket() || kind.is_symlink())
        })
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_killed_vms_folder_goes_and_a_living_ones_stays() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("vm");
        std::fs::create_dir(&folder).unwrap();
        drop(UnixListener::bind(folder.join("disk0.sock")).unwrap());
        symlink("/elsewhere/api.sock", folder.join("api.sock")).unwrap();
        let lock = File::open(&folder).unwrap();
        lock.lock().unwrap();
        assert!(!sweep(&folder, Duration::ZERO));
        assert!(folder.join("disk0.sock").exists());
        std::thread::scope(|scope| {
            let swept = scope.spawn(|| sweep(&folder, Duration::from_secs(20)));
            std::thread::sleep(Duration::from_millis(50));
            drop(lock);
            assert!(swept.join().unwrap());
        });
        assert!(!folder.exists());
        assert!(!sweep(&folder, Duration::ZERO));
    }
}
