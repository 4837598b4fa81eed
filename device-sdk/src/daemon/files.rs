//! The files that a daemon can still reach once all it needs is open: none, by Landlock.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetStatus, Scope,
};

use super::Reach;

/// What is refused is known up to this version; kernels that know less refuse less.
const KNOWN: ABI = ABI::V6;

/// Keeps the calling thread, and those that it starts, from opening, making or running any file, from
/// TCP, and from signalling other processes. What is open stays so, and what the daemon has made can
/// still be found and removed. False where the kernel has no Landlock.
pub(super) fn close_off(reach: Reach) -> io::Result<bool> {
    let mut rules = Ruleset::default()
        .scope(Scope::from_all(KNOWN))
        .map_err(io::Error::other)?;
    if !reach.files {
        // A daemon sweeps up at its end: finds what it is to remove, and removes it.
        let sweeping = AccessFs::ReadDir | AccessFs::RemoveFile | AccessFs::RemoveDir;
        let files = AccessFs::from_all(KNOWN) & !sweeping;
        rules = rules.handle_access(files).map_err(io::Error::other)?;
    }
    if !reach.net {
        let net = AccessNet::from_all(KNOWN);
        rules = rules.handle_access(net).map_err(io::Error::other)?;
    }
    let restricted = rules.create().and_then(RulesetCreated::restrict_self);
    let restricted = restricted.map_err(io::Error::other)?;
    Ok(restricted.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write};

    use super::*;

    /// In a thread of its own, which it stays with.
    #[test]
    fn what_is_open_is_all_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let (image, made) = (folder.path().join("image"), folder.path().join("made"));
        fs::write(&image, "data").unwrap();
        let mut open = File::options().read(true).write(true).open(&image).unwrap();
        std::thread::spawn(move || {
            if !close_off(Reach::default()).unwrap() {
                // Not through the harness, which keeps the words of tests that pass to itself.
                let _ = writeln!(io::stderr(), "SKIPPED: this kernel has no Landlock");
                return;
            }
            let mut text = String::new();
            open.read_to_string(&mut text).unwrap();
            open.set_len(0).unwrap();
            assert_eq!(text, "data");
            for refused in [
                File::open(&image).unwrap_err(),
                File::open("/proc/self/status").unwrap_err(),
                File::create(&made).unwrap_err(),
                fs::create_dir(&made).unwrap_err(),
            ] {
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            }
            let left = fs::read_dir(image.parent().unwrap()).unwrap();
            assert_eq!(left.count(), 1);
            fs::remove_file(&image).unwrap();
        })
        .join()
        .unwrap();
    }
}
