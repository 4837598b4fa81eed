//! What stands below the options in `--help`, as sections of a page.
//!
//! There a line that is not indented is a paragraph or, with a colon at its end, the heading of the
//! indented lines that follow.

use clap::Command;
use clap_mangen::roff::{Roff, bold, roman};

/// A verb's notes, in parts.
#[derive(Default)]
pub(super) struct Notes {
    paragraphs: Vec<String>,
    lists: Vec<List>,
}

/// Lines below a heading.
struct List {
    heading: String,
    lines: Vec<String>,
}

impl Notes {
    pub(super) fn of(command: &Command) -> Self {
        let text = command.get_after_help().map(ToString::to_string);
        let mut notes = Self::default();
        for line in text.as_deref().unwrap_or_default().lines() {
            if let Some(indented) = line.strip_prefix("  ") {
                if let Some(list) = notes.lists.last_mut() {
                    list.lines.push(indented.to_owned());
                }
            } else if let Some(heading) = line.strip_suffix(':') {
                notes.lists.push(List {
                    heading: heading.to_owned(),
                    lines: Vec::new(),
                });
            } else if !line.is_empty() {
                notes.paragraphs.push(line.to_owned());
            }
        }
        notes
    }

    /// Adds what is not below a heading.
    pub(super) fn describe(&self, roff: &mut Roff) {
        for paragraph in &self.paragraphs {
            roff.control("PP", []).text([roman(paragraph.as_str())]);
        }
    }

    /// Whether the numbers that it ends with are among them.
    pub(super) fn tell_exit_status(&self) -> bool {
        self.lists.iter().any(List::tells_exit_status)
    }

    /// Adds what is.
    pub(super) fn sections(&self, roff: &mut Roff) {
        let (keys, others): (Vec<_>, Vec<_>) =
            self.lists.iter().partition(|list| list.tells_keys());
        if !keys.is_empty() {
            roff.control("SH", ["KEYS"]);
        }
        for list in keys {
            // A control line takes its words as they are.
            let heading = list.heading.replace('-', "\\-");
            roff.control("SS", [heading.as_str()]);
            roff.text(list.lines.iter().map(roman).collect::<Vec<_>>());
        }
        for list in others {
            list.section(roff);
        }
    }
}

impl List {
    fn tells_keys(&self) -> bool {
        self.heading.starts_with("Keys of ")
    }

    fn tells_exit_status(&self) -> bool {
        self.heading == "Exit codes"
    }

    fn section(&self, roff: &mut Roff) {
        if self.tells_exit_status() {
            roff.control("SH", ["EXIT STATUS"]);
            let lines = self.lines.iter();
            let codes = lines.filter_map(|line| line.split_once("  "));
            return exit_codes(roff, codes);
        }
        let heading = if self.heading.starts_with("Example") {
            "EXAMPLES".to_owned()
        } else {
            self.heading.to_uppercase()
        };
        roff.control("SH", [heading.as_str()]);
        roff.control("nf", []);
        for line in &self.lines {
            roff.text([roman(line.as_str())]);
        }
        roff.control("fi", []);
    }
}

/// A code, and what it means.
pub(super) fn exit_codes<'a>(roff: &mut Roff, codes: impl Iterator<Item = (&'a str, &'a str)>) {
    for (code, meaning) in codes {
        roff.control("TP", []).text([bold(code)]);
        roff.text([roman(meaning.trim_start())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a line of an example may be that is not broken by a terminal's edge, in a manual page either.
    const WIDTH: usize = 74;

    fn every(command: &Command, look: &mut impl FnMut(&str, &str)) {
        let text = command.get_after_help().map(ToString::to_string);
        look(command.get_name(), text.as_deref().unwrap_or_default());
        for verb in command.get_subcommands() {
            every(verb, look);
        }
    }

    #[test]
    fn notes_are_paragraphs_of_one_line_and_lists() {
        let mut count = 0;
        every(&super::super::whole(), &mut |verb, text| {
            let mut before = "";
            let mut heading = "";
            for line in text.lines() {
                if line.starts_with(' ') {
                    assert!(!heading.is_empty(), "{verb}: '{line}' has no heading");
                    let example = heading.starts_with("Example");
                    assert!(
                        !example || line.len() <= WIDTH,
                        "{verb}: {line} is too long"
                    );
                    count += usize::from(example);
                } else if !line.is_empty() {
                    // clap fills a paragraph to the terminal's width, and keeps the ends of its lines.
                    assert!(before.is_empty(), "{verb}: '{line}' is broken by hand");
                    heading = line.strip_suffix(':').unwrap_or_default();
                }
                before = line;
            }
        });
        assert!(count > 20, "{count}");
    }
}
