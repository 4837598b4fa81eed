//! What a page tells that `--help` does not: how the program ends, where its files are, and which
//! pages are beside this one.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::notes::exit_codes;
use crate::cli::ENDS;

/// Of verbs that do not stay with a VM.
const ENDS_AT_ONCE: [(&str, &str); 3] = [
    ("0", "it is done"),
    ("1", "it could not be done, and standard error says why"),
    ("2", "the command line is wrong"),
];

/// Whose page tells of files.
const WITH_FILES: &[&str] = &[
    "", "run", "vmm", "define", "undefine", "show", "edit", "start", "list", "log",
];

/// What lies where; docs/files.md has it as a table.
const FILES: &[(&str, &str)] = &[
    (
        "$XDG_CONFIG_HOME/outboard/NAME.toml",
        "The definition of a VM. Without the variable /etc/outboard for root, ~/.config/outboard for \
         others.",
    ),
    (
        "$XDG_STATE_HOME/outboard/NAME.json, NAME.log",
        "How a VM that was started by its name has ended, and what it said on standard \
         error. Without the variable /var/lib/outboard for root, ~/.local/state/outboard for others. \
         They go with the definition.",
    ),
    (
        "$XDG_STATE_HOME/outboard/NAME/",
        "The logs of a VM, its daemons and its guest. Without the variable /var/log/outboard for \
         root, ~/.local/state/outboard for others; --log-dir chooses another folder, or off. They stay.",
    ),
    (
        "$XDG_RUNTIME_DIR/outboard/NAME/",
        "The sockets of a VM that runs. Without the variable /run/outboard for root, \
         $TMPDIR/outboard-UID or /tmp/outboard-UID for others. It goes with the VM.",
    ),
];

/// Pages that belong together.
const GROUPS: &[&[&str]] = &[
    &["define", "undefine", "show", "edit", "start", "list"],
    &["list", "info", "top", "log", "console"],
    &["shutdown", "reboot", "destroy", "suspend", "resume"],
    &["attach", "detach", "info"],
    &["run", "define", "start", "doctor"],
    &["run", "image-kernel", "iso-ls"],
    &["plugin-inspect", "device-new", "run"],
    &["vmm", "run"],
];

/// `run` of `outboard-run`; nothing of `outboard`.
fn verb(page: &str) -> &str {
    page.strip_prefix("outboard-").unwrap_or_default()
}

pub(super) fn exit_status(roff: &mut Roff, page: &str) {
    roff.control("SH", ["EXIT STATUS"]);
    if ["run", "vmm"].contains(&verb(page)) {
        exit_codes(
            roff,
            ENDS.lines().filter_map(|line| line.trim().split_once("  ")),
        );
    } else {
        exit_codes(roff, ENDS_AT_ONCE.into_iter());
    }
}

pub(super) fn files(roff: &mut Roff, page: &str) {
    if !WITH_FILES.contains(&verb(page)) {
        return;
    }
    roff.control("SH", ["FILES"]);
    for (path, what) in FILES {
        roff.control("TP", []).text([italic(*path)]);
        roff.text([roman(*what)]);
    }
}

pub(super) fn see_also(roff: &mut Roff, page: &str) {
    let verb = verb(page);
    let mut others: Vec<&str> = Vec::new();
    let near = GROUPS.iter().filter(|group| group.contains(&verb));
    for other in near.copied().flatten() {
        if *other != verb && !others.contains(other) {
            others.push(other);
        }
    }
    let all = if verb.is_empty() {
        vec![
            "outboard-run".to_owned(),
            "outboard-define".into(),
            "outboard-doctor".into(),
        ]
    } else {
        let others = others.iter().map(|other| format!("outboard-{other}"));
        std::iter::once("outboard".to_owned())
            .chain(others)
            .collect()
    };
    roff.control("SH", ["SEE ALSO"]);
    let mut line: Vec<Inline> = Vec::new();
    for (index, page) in all.into_iter().enumerate() {
        line.extend((index > 0).then(|| roman(", ")));
        line.extend([bold(page), roman("(1)")]);
    }
    roff.text(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    #[test]
    fn pages_that_are_named_are_there() {
        fn pages(command: &Command, all: &mut Vec<String>) {
            all.push(verb(super::super::name(command)).to_owned());
            super::super::shown(command).for_each(|verb| pages(verb, all));
        }
        let mut all = Vec::new();
        pages(&super::super::whole(), &mut all);
        let named = GROUPS.iter().copied().flatten().chain(WITH_FILES);
        for page in named {
            assert!(all.iter().any(|there| there == page), "{page}");
        }
    }
}
