//! `outboard man`: manual pages, one for each verb, of what `--help` prints.
//!
//! | file | idea |
//! |---|---|
//! | `synopsis.rs` | a verb with its options and their values |
//! | `notes.rs` | what stands below the options in `--help`, as sections |
//! | `around.rs` | exit status, files, and the pages beside this one |

mod around;
mod notes;
mod synopsis;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_mangen::roff::{Roff, roman};

use super::Cli;
use super::manage::{Error, finish};
use notes::Notes;

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
        fs::create_dir_all(&self.out)
            .and_then(|()| write(&whole(), &self.out))
            .map_err(|source| Error::Man {
                folder: self.out,
                source,
            })
    }
}

/// Every verb, each knowing what it is called.
fn whole() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    let verbs = command.get_subcommands();
    verbs.filter(|verb| !verb.is_hide_set())
}

/// The page of a command, and those of its verbs.
fn write(command: &Command, out: &Path) -> io::Result<()> {
    fs::write(out.join(format!("{}.1", name(command))), page(command)?)?;
    shown(command).try_for_each(|verb| write(verb, out))
}

/// `outboard-image-kernel`.
fn name(command: &Command) -> &str {
    let name = command.get_display_name();
    name.unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> io::Result<String> {
    let name = name(command).to_owned();
    let notes = Notes::of(command);
    let made = clap_mangen::Man::new(command.clone().subcommand_help_heading("COMMANDS"))
        .title(name.to_uppercase())
        // An empty word would be left out, and the next be taken for the date.
        .date("\"\"")
        .source(concat!("outboard ", env!("CARGO_PKG_VERSION")))
        .manual("Outboard");
    let mut text = Vec::new();
    made.render_title(&mut text)?;
    made.render_name_section(&mut text)?;

    let mut own = Roff::new();
    own.control("SH", ["SYNOPSIS"]);
    synopsis::add(&mut own, command);
    own.control("SH", ["DESCRIPTION"]);
    if let Some(about) = command.get_about() {
        own.text([roman(format!("{about}."))]);
    }
    notes.describe(&mut own);
    own.to_writer(&mut text)?;

    made.render_options_section(&mut text)?;
    if shown(command).next().is_some() {
        made.render_subcommands_section(&mut text)?;
    }

    let mut own = Roff::new();
    notes.sections(&mut own);
    if !notes.tell_exit_status() {
        around::exit_status(&mut own, &name);
    }
    around::files(&mut own, &name);
    around::see_also(&mut own, &name);
    own.to_writer(&mut text)?;

    // Each part begins with the same definition, which one page needs once.
    let text = String::from_utf8_lossy(&text);
    let preamble = Roff::new().render();
    Ok(preamble.clone() + &text.replace(&preamble, ""))
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
        let mut count = 0;
        for verb in shown(&command) {
            let page = out.join(format!("outboard-{}.1", verb.get_name()));
            let page = fs::read_to_string(page).unwrap();
            for section in ["NAME", "SYNOPSIS", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
                assert!(page.contains(&format!(".SH {section}\n")), "{page}");
            }
            assert!(!page.contains("EXTRA"), "{page}");
            count += 1;
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn the_page_of_run_has_what_its_help_has() {
        let whole = whole();
        let run = page(whole.find_subcommand("run").unwrap()).unwrap();
        for line in [
            ".TH OUTBOARD-RUN 1 \"\" \"outboard ",
            "[\\fB\\-\\-disk\\fR\u{a0}\\fIKEYS\\fR]...",
            "[\\fB\\-\\-console\\fR\u{a0}[\\fIPORT\\fR]]",
            ".SH KEYS",
            ".SS \"Keys of \\-\\-disk\"",
            // A line of an example is one of the page.
            "outboard run \\-\\-cpus 2 \\-\\-cdrom TinyCore\\-current.iso\n",
            "the guest triple\\-faulted under",
            ".SH FILES",
            "\\fBoutboard\\fR(1)",
        ] {
            assert!(run.contains(line), "{line} is not in: {run}");
        }
        let examples = run.split(".SH EXAMPLES").nth(1).unwrap();
        assert!(examples.starts_with("\n.nf\n"), "{examples}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let out = file.path().join("man1");
        let error = Man { out: out.clone() }.run().unwrap_err();
        assert!(matches!(&error, Error::Man { folder, .. } if *folder == out));
    }
}
