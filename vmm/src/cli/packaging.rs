//! `outboard completions` and `outboard man`: what a package installs beside the programs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::manage::{Error, finish};

const COMPLETIONS: &str = "\
Examples:
  outboard completions bash >/etc/bash_completion.d/outboard
  outboard completions zsh >\"${fpath[1]}/_outboard\"
  outboard completions fish >~/.config/fish/completions/outboard.fish";

/// Prints what makes a shell complete the words of this command.
#[derive(Args)]
#[command(after_help = COMPLETIONS)]
pub(super) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(self) -> ExitCode {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "outboard", &mut text);
        finish(Ok(String::from_utf8_lossy(&text).into_owned()))
    }
}

const MAN: &str = "\
Example:
  outboard man --out /usr/local/share/man/man1";

/// Writes manual pages: outboard(1), and one for each verb.
#[derive(Args)]
#[command(after_help = MAN)]
pub(super) struct Man {
    /// The folder; it is made if it is missing, and files of the same names are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Man {
    pub(super) fn execute(self) -> ExitCode {
        let failed = |error| {
            Error::Usage(format!(
                "The manual pages cannot be written to {}: {error}",
                self.out.display()
            ))
        };
        let written = std::fs::create_dir_all(&self.out)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &self.out));
        finish(written.map(|()| String::new()).map_err(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_that_is_shown_has_a_page_and_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(Cli::command(), folder.path()).unwrap();
        let mut completions = Vec::new();
        clap_complete::generate(
            Shell::Bash,
            &mut Cli::command(),
            "outboard",
            &mut completions,
        );
        let completions = String::from_utf8(completions).unwrap();
        let command = Cli::command();
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let mut count = 0;
        for verb in verbs {
            let page = folder
                .path()
                .join(format!("outboard-{}.1", verb.get_name()));
            let page = std::fs::read_to_string(page).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
            assert!(completions.contains(verb.get_name()));
            count += 1;
        }
        assert!(count > 20, "{count}");
    }
}
