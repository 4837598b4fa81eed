//! Where the logs of a VM are kept.

use std::path::Path;

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
    let asked_for = asked.map(|base| base.join(name));
    Some(LogConfig {
        folder: asked_for.or_else(|| crate::logs::folder(name))?,
        asked: asked.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_ones_own_or_none() {
        let config = log_config(Some(Path::new("/logs")), "vm").unwrap();
        assert_eq!(config.folder, Path::new("/logs/vm"));
        assert!(config.asked);
        assert_eq!(log_config(Some(Path::new("off")), "vm"), None);
    }
}
