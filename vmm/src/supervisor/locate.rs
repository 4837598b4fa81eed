//! Where our own daemons are looked for.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// A daemon that is nowhere, or is none that can be run.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// No file.
    #[error(
        "Program '{name}' is not found; looked for it {}; install it beside outboard or in PATH",
        places.join(", ")
    )]
    Nowhere {
        /// The program's name.
        name: String,
        /// The places searched, in order, each with its preposition.
        places: Vec<String>,
    },
    /// There is one, and it cannot be run.
    #[error("Program {} cannot be run: {what}", path.display())]
    NoProgram {
        /// Where it is; the first of several.
        path: PathBuf,
        /// What is against it, with a remedy.
        what: &'static str,
    },
}

impl NotFound {
    /// What is at `path` and does not [run](runs), if anything is.
    fn at(path: &Path) -> Option<Self> {
        let what = match path.metadata() {
            Ok(found) if found.is_dir() => "it is a directory; give the program's own path",
            Ok(found) if found.is_file() => {
                "permission denied, it is not executable by this user, or where it lies (noexec); chmod a+rx it"
            }
            Ok(_) => "it is no regular file",
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                "permission denied to a folder that it is in; let this user look into it"
            }
            Err(_) => return None,
        };
        let path = path.to_owned();
        Some(Self::NoProgram { path, what })
    }
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
    let mut passed_over = None;
    if name.contains('/') {
        let program = PathBuf::from(name);
        if runs(&program) {
            return Ok(program);
        }
        return Err(NotFound::at(&program).unwrap_or_else(|| NotFound::Nowhere {
            name: name.into(),
            places: vec!["under exactly that path".into()],
        }));
    }
    let libexec = beside
        .and_then(Path::parent)
        .map(|up| up.join("libexec/outboard"));
    for folder in [beside, libexec.as_deref()].into_iter().flatten() {
        let program = folder.join(name);
        if runs(&program) {
            return Ok(program);
        }
        passed_over = passed_over.or_else(|| NotFound::at(&program).filter(|_| program.is_file()));
        places.push(format!("in {}", folder.display()));
    }
    let path = path.unwrap_or_default();
    let found = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| runs(program));
    places.push(format!("in PATH ({})", OsStr::display(&path)));
    found.ok_or_else(|| {
        passed_over.unwrap_or(NotFound::Nowhere {
            name: name.into(),
            places,
        })
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
    fn what_is_there_and_cannot_be_executed_is_not_called_missing() {
        let root = tempfile::tempdir().unwrap();
        let program = install(root.path());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o644)).unwrap();
        let path = program.to_str().unwrap();
        let beside = locate_from("outboard-x", Some(root.path()), None);
        for why in [locate_from(path, None, None), beside] {
            let why = why.unwrap_err().to_string();
            for part in [path, "permission denied", "chmod"] {
                assert!(why.contains(part), "{part} in {why}");
            }
        }
        let why = locate_from(root.path().to_str().unwrap(), None, None);
        assert!(why.unwrap_err().to_string().contains("is a directory"));
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
