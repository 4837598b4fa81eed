//! Where our own daemons are looked for.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// A daemon that is nowhere.
#[derive(Debug, thiserror::Error)]
#[error("Program '{name}' is not found; looked for it {}; install it beside outboard or in PATH", places.join(", "))]
pub struct NotFound {
    /// The program's name.
    pub name: String,
    /// The places searched, in order, each with its preposition.
    pub places: Vec<String>,
}

/// Finds a program: as given when `name` has a slash, else beside the running binary, then in
/// `../libexec/outboard` from there, then in PATH.
pub fn locate(name: &str) -> Result<PathBuf, NotFound> {
    let own = std::env::current_exe().ok();
    locate_from(
        name,
        own.as_deref().and_then(Path::parent),
        std::env::var_os("PATH"),
    )
}

fn locate_from(
    name: &str,
    beside: Option<&Path>,
    path: Option<OsString>,
) -> Result<PathBuf, NotFound> {
    let mut places = Vec::new();
    if name.contains('/') {
        let program = PathBuf::from(name);
        if runs(&program) {
            return Ok(program);
        }
        return Err(NotFound {
            name: name.into(),
            places: vec!["under exactly that path".into()],
        });
    }
    let libexec = beside
        .and_then(Path::parent)
        .map(|up| up.join("libexec/outboard"));
    for folder in [beside, libexec.as_deref()].into_iter().flatten() {
        let program = folder.join(name);
        if runs(&program) {
            return Ok(program);
        }
        places.push(format!("in {}", folder.display()));
    }
    let path = path.unwrap_or_default();
    let found = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| runs(program));
    places.push(format!("in PATH ({})", OsStr::display(&path)));
    found.ok_or(NotFound {
        name: name.into(),
        places,
    })
}

fn runs(program: &Path) -> bool {
    program.is_file() && access(program, AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn install(folder: &Path) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        let program = folder.join("outboard-x");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    #[test]
    fn the_nearest_program_wins() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        let other = root.path().join("other");
        let search = || {
            locate_from(
                "outboard-x",
                Some(&bin),
                Some(other.clone().into_os_string()),
            )
            .unwrap()
        };
        let in_path = install(&other);
        assert_eq!(search(), in_path);
        let libexec = install(&root.path().join("libexec/outboard"));
        assert_eq!(search(), libexec);
        let beside = install(&bin);
        assert_eq!(search(), beside);
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(search(), libexec, "what cannot be executed is passed over");
    }

    #[test]
    fn a_missing_one_is_named_with_the_places_searched() {
        let why = locate_from(
            "outboard-x",
            Some(Path::new("/opt/o/bin")),
            Some("/usr/bin".into()),
        )
        .unwrap_err();
        let why = why.to_string();
        for part in [
            "outboard-x",
            "/opt/o/bin",
            "/opt/o/libexec/outboard",
            "/usr/bin",
        ] {
            assert!(why.contains(part), "{part} in {why}");
        }
        let why = locate_from("./no/such", None, None)
            .unwrap_err()
            .to_string();
        assert!(why.contains("./no/such"), "{why}");
    }
}
