//! A verb with its options and their values, in one line that breaks between them only.

use clap::{Arg, ArgAction, Command};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// Adds it; what every verb takes is left out.
pub(super) fn add(roff: &mut Roff, command: &Command) {
    let name = command.get_bin_name();
    let mut line = vec![bold(name.unwrap_or_else(|| command.get_name()))];
    let shown: Vec<_> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !arg.is_global_set() && !tells(arg))
        .collect();
    let choices: Vec<Vec<_>> = command
        .get_groups()
        .filter(|group| group.is_required_set())
        .map(|group| {
            let ids: Vec<_> = group.get_args().collect();
            let chosen = shown.iter().filter(|arg| ids.contains(&arg.get_id()));
            chosen.copied().collect()
        })
        .collect();
    let alone = |arg: &&&Arg| {
        !choices
            .iter()
            .flatten()
            .any(|of| of.get_id() == arg.get_id())
    };
    let (last, options): (Vec<_>, Vec<_>) = shown
        .iter()
        .filter(alone)
        .partition(|arg| arg.is_positional());
    for arg in options {
        one(&mut line, arg);
    }
    for choice in &choices {
        line.push(roman(" {"));
        for (index, arg) in choice.iter().enumerate() {
            line.extend((index > 0).then(|| roman(" | ")));
            line.extend(words(arg));
        }
        line.push(roman("}"));
    }
    for arg in last {
        one(&mut line, arg);
    }
    if command.has_subcommands() {
        line.extend([roman(" "), italic("COMMAND"), roman(" ...")]);
    }
    // Neither hyphens nor wide gaps.
    roff.control("nh", []).control("ad", ["l"]);
    roff.text(line);
    roff.control("ad", ["b"]).control("hy", []);
}

/// Whether it only has something printed: help, or a version.
fn tells(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

fn one(line: &mut Vec<Inline>, arg: &Arg) {
    let required = arg.is_required_set();
    line.push(roman(if required { " " } else { " [" }));
    line.extend(words(arg));
    line.extend((!required).then(|| roman("]")));
    if matches!(arg.get_action(), ArgAction::Append | ArgAction::Count) {
        line.push(roman("..."));
    }
}

/// `--disk KEYS`, `FILE`.
fn words(arg: &Arg) -> Vec<Inline> {
    let flag = match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => Some(format!("--{long}")),
        (None, short) => short.map(|short| format!("-{short}")),
    };
    let mut words: Vec<_> = flag.map(bold).into_iter().collect();
    let takes = arg.get_num_args().unwrap_or_default();
    if !takes.takes_values() {
        return words;
    }
    if !words.is_empty() {
        words.push(roman(UNBROKEN));
    }
    let value = arg.get_value_names().unwrap_or_default().join(" ");
    let optional = takes.min_values() == 0 && !arg.is_positional();
    words.extend(optional.then(|| roman("[")));
    words.push(italic(value));
    words.extend(optional.then(|| roman("]")));
    words
}

/// A space at which no line ends.
const UNBROKEN: &str = "\u{a0}";
