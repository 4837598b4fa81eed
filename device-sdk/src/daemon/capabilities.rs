//! The capabilities of a daemon that root has started: none.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::unistd::geteuid;

/// The one that root needs to remove a file from a folder that is another user's (capabilities(7)).
const DAC_OVERRIDE: u32 = 1;
/// Two words of 32 capabilities (`_LINUX_CAPABILITY_VERSION_3`).
const VERSION: u32 = 0x2008_0522;

/// A socket of ours is to be removed at the end from a folder that is not ours.
static REMOVES: AtomicBool = AtomicBool::new(false);

/// Says that the file at `path` is to be removed at the end.
pub(super) fn will_remove(path: &Path) {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let ours = fs::metadata(folder).is_ok_and(|folder| folder.uid() == geteuid().as_raw());
    if !ours {
        REMOVES.store(true, Ordering::Relaxed);
    }
}

/// As `capget(2)` and `capset(2)` have them.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct Header {
    version: u32,
    /// 0: the calling thread.
    pid: libc::c_int,
}

/// Takes every capability from the calling thread and those that it starts, for good. Only what it
/// takes to remove a file that was [announced](will_remove) stays.
pub(super) fn give_up() -> io::Result<()> {
    let keep = if REMOVES.load(Ordering::Relaxed) {
        1 << DAC_OVERRIDE
    } else {
        0
    };
    // Fails before Linux 4.3, which has none of these.
    // SAFETY: prctl with integers.
    unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    // Until the kernel knows the number no more. Who may not do it cannot gain any, either: there are
    // no new privileges.
    // SAFETY: prctl with integers.
    let _ = (0..64).find(|number| unsafe { libc::prctl(libc::PR_CAPBSET_DROP, *number) } != 0);
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut words = [Words::default(); 2];
    // SAFETY: the header and two sets of words are what this version takes, and outlive the call.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    Errno::result(got)?;
    let permitted = words[0].permitted & keep;
    words = [Words::default(); 2];
    words[0] = Words {
        effective: permitted,
        permitted,
        inheritable: 0,
    };
    // SAFETY: as above; the call only reads.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    Errno::result(set)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: they are gone for good.
    #[test]
    fn nothing_is_left_that_root_may_do() {
        std::thread::spawn(|| {
            give_up().unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let sets: Vec<&str> = status
                .lines()
                .filter(|line| line.starts_with("Cap"))
                .collect();
            assert_eq!(sets.len(), 5, "{status}");
            let root = geteuid().is_root();
            for set in sets.iter().filter(|set| root || !set.starts_with("CapBnd")) {
                assert!(set.ends_with("\t0000000000000000"), "{set}");
            }
        })
        .join()
        .unwrap();
    }
}
