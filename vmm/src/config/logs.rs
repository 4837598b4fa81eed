//! Where the logs of a VM are kept.

use std::env;
use std::path::{Path, PathBuf};

use super::LogConfig;

/// Whether `--log-dir` says that none are kept. A folder of this name is `./off`.
pub(super) fn is_off(dir: &Path) -> bool {
    dir == Path::new("off")
}

/// The VM's folder in the one that was asked for, else in the usual one, if there is one.
pub(super) fn log_config(asked: Option<&Path>, name: &str) -> Option<LogConfig> {
    if asked.is_some_and(is_off) {
        return None;
    }
    let root = nix::unistd::geteuid().is_root();
    let base = asked
        .map(Path::to_owned)
        .or_else(|| usual(root, |variable| env::var_os(variable).map(PathBuf::from)))?;
    Some(LogConfig {
        folder: base.join(name),
        asked: asked.is_some(),
    })
}

/// `$XDG_STATE_HOME/outboard`, else `/var/log/outboard` for root, else `~/.local/state/outboard`.
fn usual(root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // As the XDG base directory specification has it, a relative path is none.
    let folder = |name| variable(name).filter(|path| path.is_absolute());
    if let Some(state) = folder("XDG_STATE_HOME") {
        return Some(state.join("outboard"));
    }
    if root {
        return Some("/var/log/outboard".into());
    }
    folder("HOME").map(|home| home.join(".local/state/outboard"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_place_is_the_users_or_the_systems() {
        let place = |root, variables: &[(&str, &str)]| {
            let value = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| PathBuf::from(value))
            };
            let place = usual(root, value);
            place.map(|path| path.display().to_string())
        };
        let (home, state) = (("HOME", "/home/a"), ("XDG_STATE_HOME", "/s"));
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(place(true, &[home]), some("/var/log/outboard"));
        assert_eq!(place(true, &[home, state]), some("/s/outboard"));
        let hidden = "/home/a/.local/state/outboard";
        assert_eq!(place(false, &[home]), some(hidden));
        assert_eq!(place(false, &[home, ("XDG_STATE_HOME", "s")]), some(hidden));
        assert_eq!(place(false, &[]), None);
    }

    #[test]
    fn a_folder_of_ones_own_or_none() {
        let config = log_config(Some(Path::new("/logs")), "vm").unwrap();
        assert_eq!(config.folder, Path::new("/logs/vm"));
        assert!(config.asked);
        assert_eq!(log_config(Some(Path::new("off")), "vm"), None);
    }
}
