//! Sweeping up after a VM that was killed.
//!
//! A VMM keeps its folder locked and removes its own sockets first when it ends. One that is killed
//! cannot, so the last of its processes to go does.

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take to close the files of a killed VMM, of which the stream whose end we
/// have seen may be the first and the lock the last.
const DEATH: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(5);

/// Removes the sockets in the folder, and the folder, once nobody has it locked. Returns at once when
/// there is no socket, soon when somebody keeps the lock.
pub(crate) fn sweep(folder: &Path) {
    let Ok(file) = File::open(folder) else {
        return;
    };
    let begin = Instant::now();
    loop {
        let sockets = sockets(folder);
        if sockets.is_empty() {
            let _ = std::fs::remove_dir(folder);
            return;
        }
        match file.try_lock() {
            Ok(()) => sockets
                .iter()
                .for_each(|path| drop(std::fs::remove_file(path))),
            Err(TryLockError::WouldBlock) if begin.elapsed() < DEATH => std::thread::sleep(LOOK),
            Err(_) => return,
        }
    }
}

fn sockets(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_killed_vms_folder_goes_and_a_living_ones_stays() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("vm");
        std::fs::create_dir(&folder).unwrap();
        drop(UnixListener::bind(folder.join("api.sock")).unwrap());
        let lock = File::open(&folder).unwrap();
        lock.lock().unwrap();
        sweep(&folder);
        assert!(folder.join("api.sock").exists());
        std::thread::scope(|scope| {
            scope.spawn(|| sweep(&folder));
            std::thread::sleep(Duration::from_millis(50));
            drop(lock);
        });
        assert!(!folder.exists());
        sweep(&folder);
    }
}
