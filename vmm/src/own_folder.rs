//! A folder of this user's own, in a place where others may have put one of that name before.

use std::fs::symlink_metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;

/// Makes sure that nobody else can put anything into `path`, or something else in its place: it
/// and the folder it is in, which is ours too, are no links, belong to us and are open to nobody else.
///
/// # Errors
/// One is not so; the text names it and says what to do.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    path.parent().into_iter().chain([path]).try_for_each(level)
}

/// The same of one folder alone.
///
/// # Errors
/// It is not so.
pub(crate) fn level(path: &Path) -> io::Result<()> {
    let found = symlink_metadata(path)?;
    let refuse = |what: &str| {
        let path = path.display();
        Err(io::Error::other(format!("{path} {what}")))
    };
    let (owner, us) = (found.uid(), geteuid().as_raw());
    if !found.is_dir() {
        refuse("is no folder, or a link to one; remove it")
    } else if owner != us {
        refuse(&format!(
            "belongs to user {owner}, not to {us}; have it removed"
        ))
    } else if found.mode() & 0o077 != 0 {
        let mode = found.mode() & 0o777;
        refuse(&format!(
            "is open to other users (mode {mode:o}); run: chmod 700 {}",
            path.display()
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{DirBuilder, Permissions, set_permissions};
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn a_folder_is_ours_at_every_level_or_refused() {
        let base = tempfile::tempdir().unwrap();
        let (outer, inner) = (
            base.path().join("outboard"),
            base.path().join("outboard/vm"),
        );
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&inner)
            .unwrap();
        check(&inner).unwrap();
        for folder in [&outer, &inner] {
            set_permissions(folder, Permissions::from_mode(0o770)).unwrap();
            let why = check(&inner).unwrap_err().to_string();
            let remedy = format!("chmod 700 {}", folder.display());
            assert!(why.ends_with(&remedy), "{why}");
            set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
        }
        if geteuid().is_root() {
            for folder in [&outer, &inner] {
                chown(folder, Some(65534), None).unwrap();
                let why = check(&inner).unwrap_err().to_string();
                assert!(why.contains("belongs to user 65534"), "{why}");
                chown(folder, Some(0), None).unwrap();
            }
        }
        let link = base.path().join("link");
        symlink(&outer, &link).unwrap();
        let why = check(&link.join("vm")).unwrap_err().to_string();
        assert!(why.contains("/link is no folder"), "{why}");
        check(&inner).unwrap();
    }
}
