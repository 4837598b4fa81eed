//! `outboard iso`: what is on an ISO image.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use outboard::image::boot_menu;
use outboard::image::menu::{Entry, Menu};
use owo_colors::OwoColorize;
use serde::Serialize;

use super::say::{self, Output};

const EXAMPLES: &str = "\
Reads the boot menu that the image's own boot loader would show: isolinux's or syslinux's, else \
GRUB's. Listed is what starts a Linux kernel; * marks what starts when nobody chooses. An entry is \
asked for by its name, its title or its number.

Example:
  outboard iso ls debian.iso
  outboard run --cdrom debian.iso --boot-entry install";

/// Looks at ISO images.
#[derive(Args)]
pub(super) struct Iso {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the entries of the image's boot menu
    #[command(after_help = EXAMPLES)]
    Ls {
        /// The ISO image
        image: PathBuf,
        /// For people, or for programs
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

impl Iso {
    pub(super) fn execute(self) -> ExitCode {
        let Verb::Ls { image, output } = self.verb;
        let menu = match boot_menu(&image) {
            Ok(menu) => menu,
            Err(error) => {
                super::complain(&error);
                return ExitCode::FAILURE;
            }
        };
        let text = |_: &[Listed<'_>]| list(&menu, std::io::stdout().is_terminal());
        match output.of(listed(&menu).as_slice(), text) {
            Ok(text) => say::answer(&text, ExitCode::SUCCESS),
            Err(error) => {
                super::complain(&error);
                ExitCode::FAILURE
            }
        }
    }
}

/// An entry, for programs.
#[derive(Serialize)]
struct Listed<'a> {
    number: usize,
    name: Option<&'a str>,
    title: &'a str,
    menus: &'a [String],
    kernel: &'a str,
    initrds: &'a [String],
    cmdline: &'a str,
    cut: bool,
    default: bool,
}

fn listed(menu: &Menu) -> Vec<Listed<'_>> {
    let entries = menu.entries.iter().enumerate();
    let entries = entries.map(|(at, entry)| Listed {
        number: at + 1,
        name: entry.name.as_deref(),
        title: &entry.title,
        menus: &entry.menus,
        kernel: &entry.kernel,
        initrds: &entry.initrds,
        cmdline: &entry.cmdline,
        cut: entry.cut,
        default: at == menu.default,
    });
    entries.collect()
}

/// Two lines an entry: what it is called, and what it starts.
fn list(menu: &Menu, colour: bool) -> String {
    let name = |entry: &Entry| entry.name.clone().unwrap_or_else(|| "-".into());
    let names = menu.entries.iter().map(|entry| name(entry).chars().count());
    let width = names.max().unwrap_or(0);
    let mut text = format!("{}\n", menu.file);
    for (at, entry) in menu.entries.iter().enumerate() {
        let mark = if at == menu.default { '*' } else { ' ' };
        let mut head = format!(
            "{mark}{:>3}  {:<width$}  {}",
            at + 1,
            name(entry),
            entry.path()
        );
        let initrds = entry
            .initrds
            .iter()
            .fold(String::new(), |all, path| all + " + " + path);
        let cut = if entry.cut {
            " ... (too long: cut here, and not started)"
        } else {
            ""
        };
        let mut starts = format!("      {}{initrds}: {}{cut}", entry.kernel, entry.cmdline);
        if colour {
            if at == menu.default {
                head = head.green().bold().to_string();
            }
            starts = starts.dimmed().to_string();
        }
        let _ = writeln!(text, "{}\n{}", head.trim_end(), starts.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_marked() {
        let entry = |name: Option<&str>, title: &str| Entry {
            name: name.map(Into::into),
            title: title.into(),
            kernel: "/vmlinuz".into(),
            initrds: vec!["/a".into(), "/b".into()],
            ..Entry::default()
        };
        let mut menu = Menu {
            file: "/isolinux.cfg".into(),
            entries: vec![entry(Some("linux"), "Linux"), entry(None, "Rescue")],
            default: 1,
        };
        let lines = [
            "/isolinux.cfg",
            "   1  linux  Linux",
            "      /vmlinuz + /a + /b:",
            "*  2  -      Rescue",
            "      /vmlinuz + /a + /b:",
        ];
        assert_eq!(list(&menu, false).lines().collect::<Vec<_>>(), lines);
        assert!(list(&menu, true).contains("\x1b["));
        let flags: Vec<_> = listed(&menu).iter().map(|entry| entry.default).collect();
        assert_eq!(flags, [false, true]);
        menu.entries[0].cut = true;
        assert_eq!(list(&menu, false).matches("too long").count(), 1);
    }
}
