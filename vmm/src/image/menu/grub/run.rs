//! What a GRUB script makes of its menu. Commands that set variables, read files and add items are
//! understood, others succeed and do nothing.

use std::collections::HashMap;

use super::super::{DEEPEST, Entry, LONGEST, MOST_ENTRIES, Reading, absolute, cut, folder_of};
use super::script::{Block, Command, parse};
use super::words::{Part, Word};

/// The most work for one menu, and as much again for its items: a step is a word of a command, before and
/// after its variables are put in, a turn of a loop, and so much text that is copied.
pub(super) const MOST_STEPS: usize = 200_000;
pub(super) const STEP: usize = 64;
/// The most variables, the longest of their names, and the longest command.
const MOST_VARIABLES: usize = 250;
const LONGEST_NAME: usize = 64;
const LONGEST_COMMAND: usize = 64 << 10;
/// What a BIOS machine's GRUB says of itself.
const KNOWN: [(&str, &str); 8] = [
    ("grub_platform", "pc"),
    ("grub_cpu", "i386"),
    ("root", "cd0"),
    ("menuentry_id_option", "--id"),
    ("feature_menuentry_id", "y"),
    ("feature_default_font_path", "y"),
    ("feature_all_video_module", "y"),
    ("feature_platform_search_hint", "y"),
];

/// Something that a person can choose.
#[derive(Debug, Default)]
pub(super) struct Item {
    pub(super) id: Option<String>,
    pub(super) title: String,
    /// What it starts, if that is Linux.
    pub(super) entry: Option<Entry>,
    /// The items of the menu that it opens.
    pub(super) items: Vec<Item>,
}

/// Runs a script: the items of its menu, and what it says of the default.
pub(super) fn menu(reading: &Reading, path: &str, text: &str) -> (Vec<Item>, String) {
    let mut shell = Shell::new(reading, folder_of(path).trim_end_matches('/'));
    let mut scope = Scope::default();
    shell.run(&parse(text), &mut scope, 0);
    let default = shell.value("default").to_owned();
    // A script that went on for ever has its items none the less.
    shell.steps = MOST_STEPS;
    let items = shell.open(scope, &[], 0);
    (items, default)
}

pub(super) struct Shell<'a> {
    reading: &'a Reading<'a>,
    variables: HashMap<String, String>,
    functions: HashMap<String, Block>,
    /// What is left of the work.
    pub(super) steps: usize,
    items: usize,
}

/// What one menu's commands leave behind: items, not opened yet, or a kernel.
#[derive(Default)]
pub(super) struct Scope {
    items: Vec<Closed>,
    kernel: Option<Entry>,
    /// The arguments of the function that runs.
    arguments: Vec<String>,
}

struct Closed {
    id: Option<String>,
    title: String,
    is_menu: bool,
    body: Block,
}

impl<'a> Shell<'a> {
    pub(super) fn new(reading: &'a Reading<'a>, prefix: &str) -> Self {
        let known = KNOWN.into_iter().chain([("prefix", prefix)]);
        let variables = known.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            reading,
            variables: variables.collect(),
            functions: HashMap::new(),
            steps: MOST_STEPS,
            items: 0,
        }
    }

    /// Takes so much from the work that is left; whether there was as much.
    fn work(&mut self, steps: usize, text: usize) -> bool {
        let steps = steps.saturating_add(text / STEP);
        let left = self.steps.checked_sub(steps);
        self.steps = left.unwrap_or(0);
        left.is_some()
    }

    /// What the items do when they are chosen, once the whole script has run.
    fn open(&mut self, scope: Scope, menus: &[String], depth: usize) -> Vec<Item> {
        let mut items = Vec::new();
        for closed in scope.items {
            let variables = self.variables.iter();
            let text = variables.fold(0usize, |all, (name, value)| {
                all.saturating_add(name.len()).saturating_add(value.len())
            });
            if !self.work(1, text) {
                break;
            }
            let before = self.variables.clone();
            let mut inner = Scope::default();
            self.run(&closed.body, &mut inner, depth);
            let entry = inner.kernel.take().map(|entry| {
                let entry = Entry {
                    name: closed.id.clone(),
                    title: closed.title.clone(),
                    menus: menus.to_vec(),
                    ..entry
                };
                entry.limited()
            });
            let mut below = Vec::new();
            if closed.is_menu && depth < DEEPEST {
                let menus = [menus, std::slice::from_ref(&closed.title)].concat();
                below = self.open(inner, &menus, depth.saturating_add(1));
            }
            items.push(Item {
                id: closed.id,
                title: closed.title,
                entry,
                items: below,
            });
            self.variables = before;
        }
        items
    }

    /// Runs commands; whether the last succeeded. `depth` counts files, functions and blocks.
    pub(super) fn run(&mut self, block: &Block, scope: &mut Scope, depth: usize) -> bool {
        let mut status = true;
        if depth > 4 * DEEPEST {
            return false;
        }
        let deeper = depth.saturating_add(1);
        for command in block.iter() {
            let cost = match command {
                Command::Simple(words, _) | Command::For(_, words, _) => {
                    words.iter().map(|word| word.parts.len()).sum()
                }
                _ => 0usize,
            };
            if !self.work(cost.saturating_add(1), 0) {
                return false;
            }
            match command {
                Command::Simple(words, body) => {
                    let Some(words) = self.expand(words, scope) else {
                        return false;
                    };
                    status = self.simple(&words, body.as_ref(), scope, deeper);
                }
                Command::If(branches) => {
                    status = true;
                    for (condition, body) in branches {
                        let holds = condition.as_ref();
                        if holds.is_none_or(|condition| self.run(condition, scope, deeper)) {
                            status = self.run(body, scope, deeper);
                            break;
                        }
                    }
                }
                Command::For(name, words, body) => {
                    for value in self.expand(words, scope).unwrap_or_default() {
                        if !self.work(1, 0) {
                            return false;
                        }
                        self.set(name, value);
                        status = self.run(body, scope, deeper);
                    }
                }
                Command::Function(name, body) => {
                    self.functions.insert(name.clone(), body.clone());
                }
            }
        }
        status
    }

    fn simple(
        &mut self,
        words: &[String],
        body: Option<&Block>,
        scope: &mut Scope,
        depth: usize,
    ) -> bool {
        let Some((name, arguments)) = words.split_first() else {
            return true;
        };
        if let Some(function) = self.functions.get(name).cloned() {
            let before = std::mem::replace(&mut scope.arguments, arguments.to_vec());
            let status = self.run(&function, scope, depth);
            scope.arguments = before;
            return status;
        }
        match name.as_str() {
            "menuentry" | "submenu" => {
                if let Some(body) = body
                    && self.items < MOST_ENTRIES
                {
                    self.items = self.items.saturating_add(1);
                    scope.items.push(closed(name == "submenu", arguments, body));
                }
                true
            }
            "set" => {
                for (name, value) in arguments.iter().filter_map(|word| word.split_once('=')) {
                    self.set(name, value.to_owned());
                }
                true
            }
            "unset" => {
                for name in arguments {
                    self.variables.remove(name);
                }
                true
            }
            "linux" | "linux16" | "linuxefi" => {
                scope.kernel = arguments.split_first().map(|(kernel, options)| Entry {
                    kernel: path(kernel),
                    cmdline: cmdline(options),
                    ..Entry::default()
                });
                true
            }
            "initrd" | "initrd16" | "initrdefi" => {
                if let Some(entry) = &mut scope.kernel {
                    entry.initrds = arguments.iter().map(|name| path(name)).collect();
                }
                true
            }
            "source" | "." | "configfile" | "normal" => arguments.first().is_some_and(|file| {
                let text = self.reading.text(&path(file));
                text.is_some_and(|text| self.run(&parse(&text), scope, depth))
            }),
            "search" => self.search(arguments),
            "[" | "test" => self.test(arguments),
            "false" | "keystatus" | "read" => false,
            _ => match name.split_once('=') {
                Some((name, value)) => {
                    self.set(name, value.to_owned());
                    true
                }
                None => true,
            },
        }
    }

    /// Whatever it looks for is on the image, unless it is a file that is not.
    fn search(&mut self, arguments: &[String]) -> bool {
        let mut words = arguments.iter();
        let (mut variable, mut by_file, mut file) = ("root", false, None);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--file" | "-f" => by_file = true,
                "--set" | "-s" => {}
                "--hint" => drop(words.next()),
                word if word.starts_with("--set=") => variable = word.get(6..).unwrap_or_default(),
                word if word.starts_with('-') => {}
                word => file = Some(word),
            }
        }
        if by_file && !file.is_some_and(|file| self.reading.has(&path(file))) {
            return false;
        }
        self.set(variable, "cd0".into());
        true
    }

    /// GRUB's `[`; with `-a` and `-o` from left to right.
    fn test(&self, words: &[String]) -> bool {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let words = words.strip_suffix(&["]"]).unwrap_or(&words);
        let mut any = false;
        for alternative in words.split(|word| *word == "-o") {
            any |= alternative
                .split(|word| *word == "-a")
                .all(|words| self.test_one(words));
        }
        any
    }

    fn test_one(&self, words: &[&str]) -> bool {
        let negations = words.iter().take_while(|word| **word == "!").count();
        let holds = self.holds(words.get(negations..).unwrap_or_default());
        holds ^ (negations % 2 == 1)
    }

    fn holds(&self, words: &[&str]) -> bool {
        match words {
            ["-e" | "-f" | "-s", file] => self.reading.has(&path(file)),
            ["-z", text] => text.is_empty(),
            ["-n", text] | [text] => !text.is_empty(),
            [left, "=" | "==", right] => left == right,
            [left, "!=", right] => left != right,
            [left, "-eq", right] => left.parse::<i64>().ok() == right.parse::<i64>().ok(),
            [left, "-ne", right] => left.parse::<i64>().ok() != right.parse::<i64>().ok(),
            _ => false,
        }
    }

    pub(super) fn value(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    fn set(&mut self, name: &str, value: String) {
        let known = self.variables.contains_key(name);
        let fits = name.len() <= LONGEST_NAME && value.len() <= LONGEST;
        if fits && (known || self.variables.len() < MOST_VARIABLES) {
            self.variables.insert(name.to_owned(), value);
        }
    }

    /// Puts in variables, and takes the work; `None` if too little was left.
    fn expand(&mut self, words: &[Word], scope: &Scope) -> Option<Vec<String>> {
        let (expanded, text) = self.expanded(words, scope);
        self.work(expanded.len(), text).then_some(expanded)
    }

    /// The values of those outside quotes are split into words. Nothing, where that would be too long. With
    /// it, how much text was copied.
    fn expanded(&self, words: &[Word], scope: &Scope) -> (Vec<String>, usize) {
        let (mut expanded, mut len) = (Vec::new(), 0usize);
        for word in words {
            let (mut text, mut is_word) = (String::new(), word.quoted);
            for part in &word.parts {
                let (value, whole) = match part {
                    Part::Text(part) => (part.clone(), true),
                    Part::Variable { name, quoted } => (self.variable(name, scope), *quoted),
                };
                len = len.saturating_add(value.len());
                if len > LONGEST_COMMAND {
                    return (Vec::new(), len);
                }
                is_word |= whole && !value.is_empty() || !value.trim().is_empty();
                if whole {
                    text.push_str(&value);
                    continue;
                }
                if value.starts_with(char::is_whitespace) && !text.is_empty() {
                    expanded.push(std::mem::take(&mut text));
                }
                for (number, piece) in value.split_whitespace().enumerate() {
                    if number > 0 {
                        expanded.push(std::mem::take(&mut text));
                    }
                    text.push_str(piece);
                }
            }
            if is_word {
                expanded.push(text);
            }
        }
        (expanded, len)
    }

    /// The value of a variable, or of an argument of the function that runs.
    fn variable(&self, name: &str, scope: &Scope) -> String {
        match name.parse::<usize>() {
            Ok(number) => {
                let argument = number.checked_sub(1).and_then(|n| scope.arguments.get(n));
                argument.cloned().unwrap_or_default()
            }
            Err(_) if name == "@" || name == "*" => scope.arguments.join(" "),
            Err(_) => self.value(name).to_owned(),
        }
    }
}

fn closed(is_menu: bool, arguments: &[String], body: &Block) -> Closed {
    let (mut id, mut title) = (None, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--id" => id = words.next().cloned(),
            "--class" | "--users" | "--hotkey" | "--source" => drop(words.next()),
            word => match word.strip_prefix("--id=") {
                Some(word) => id = Some(word.to_owned()),
                None if word.starts_with("--") => {}
                None => drop(title.get_or_insert_with(|| word.to_owned())),
            },
        }
    }
    // One too long stays too long, and is no long work.
    let short = |text: String| cut(&text, LONGEST.saturating_add(1)).to_owned();
    Closed {
        id: id.map(short),
        title: title.map(short).unwrap_or_default(),
        is_menu,
        body: body.clone(),
    }
}

/// A path without the device before it: every one is this image.
fn path(name: &str) -> String {
    let name = match name.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, name)) => name,
        None => name,
    };
    absolute("/", name)
}

/// Arguments as GRUB hands them over: quoted where they have blanks.
fn cmdline(options: &[String]) -> String {
    let quoted = |option: &String| {
        let escaped = option
            .replace('\\', r"\\")
            .replace('"', "\\\"")
            .replace('\'', "\\'");
        if option.contains(' ') {
            format!("\"{escaped}\"")
        } else {
            escaped
        }
    };
    options.iter().map(quoted).collect::<Vec<_>>().join(" ")
}
