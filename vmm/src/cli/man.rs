//! `outboard man`: manual pages, one for each verb, of what `--help` prints.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};

use super::Cli;
use super::manage::{Error, finish};

const EXAMPLES: &str = "\
Example:
  outboard man --out /usr/local/share/man/man1";

/// Writes manual pages: outboard(1), and one for each verb.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Man {
    /// The folder; it is made if it is missing, and files of the same names are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Man {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run().map(|()| String::new()))
    }

    fn run(self) -> Result<(), Error> {
        std::fs::create_dir_all(&self.out)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &self.out))
            .map_err(|source| Error::Man {
                folder: self.out,
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_that_is_shown_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("man1");
        Man { out: out.clone() }.run().unwrap();
        let command = Cli::command();
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let mut count = 0;
        for verb in verbs {
            let page = out.join(format!("outboard-{}.1", verb.get_name()));
            let page = std::fs::read_to_string(page).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
            count += 1;
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let out = file.path().join("man1");
        let error = Man { out: out.clone() }.run().unwrap_err();
        assert!(matches!(&error, Error::Man { folder, .. } if *folder == out));
    }
}
