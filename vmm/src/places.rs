//! Where this user's files are: by the XDG base directory specification, or, for root, in the
//! system's own folders.

use std::env;
use std::path::PathBuf;

/// One kind of files.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Definitions of VMs, which people edit.
    Definitions,
    /// How VMs ended.
    History,
    /// What VMs and their daemons say.
    Logs,
}

impl Place {
    /// The folder; `None` for a user who has no home. It may not be there yet.
    pub(crate) fn folder(self) -> Option<PathBuf> {
        let root = nix::unistd::geteuid().is_root();
        self.of(root, |variable| env::var_os(variable).map(PathBuf::from))
    }

    fn of(self, root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
        let (name, at_home, system) = match self {
            Self::Definitions => ("XDG_CONFIG_HOME", ".config", "/etc"),
            Self::History => ("XDG_STATE_HOME", ".local/state", "/var/lib"),
            Self::Logs => ("XDG_STATE_HOME", ".local/state", "/var/log"),
        };
        // As the specification has it, a relative path is none.
        let folder = |name| variable(name).filter(|path| path.is_absolute());
        let base = folder(name).or_else(|| {
            if root {
                Some(system.into())
            } else {
                folder("HOME").map(|home| home.join(at_home))
            }
        });
        base.map(|base| base.join("outboard"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_users_or_the_systems() {
        let at = |place: Place, root, variables: &[(&str, &str)]| {
            let value = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| PathBuf::from(value))
            };
            place.of(root, value).map(|path| path.display().to_string())
        };
        let (home, state) = (("HOME", "/home/a"), ("XDG_STATE_HOME", "/s"));
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(at(Place::Logs, true, &[home]), some("/var/log/outboard"));
        assert_eq!(at(Place::Logs, true, &[home, state]), some("/s/outboard"));
        assert_eq!(at(Place::History, true, &[home]), some("/var/lib/outboard"));
        assert_eq!(
            at(Place::Definitions, true, &[state]),
            some("/etc/outboard")
        );
        let hidden = some("/home/a/.local/state/outboard");
        assert_eq!(at(Place::Logs, false, &[home]), hidden);
        assert_eq!(
            at(Place::History, false, &[home, ("XDG_STATE_HOME", "s")]),
            hidden
        );
        let definitions = at(Place::Definitions, false, &[home]);
        assert_eq!(definitions, some("/home/a/.config/outboard"));
        assert_eq!(at(Place::Logs, false, &[]), None);
    }
}
