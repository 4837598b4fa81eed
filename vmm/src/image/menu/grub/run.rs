//! What a GRUB script makes of its menu. Commands that set variables, read files and add items are
//! understood, others succeed and do nothing.

use std::collections::HashMap;

use super::super::{DEEPEST, Entry, MOST_ENTRIES, Reading, absolute, folder_of};
use super::script::{Block, Command, parse};
use super::words::{LONGEST, Part, Word};

/// The most words of commands that are run for one menu.
const MOST_STEPS: usize = 200_000;
/// The most variables, and the longest command.
const MOST_VARIABLES: usize = 250;
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
    let prefix = folder_of(path).trim_end_matches('/').to_owned();
    let known = KNOWN.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut shell = Shell {
        reading,
        variables: known.into(),
        functions: HashMap::new(),
        steps: MOST_STEPS,
        items: 0,
    };
    shell.variables.insert("prefix".into(), prefix);
    let mut scope = Scope::default();
    shell.run(&parse(text), &mut scope, 0);
    let default = shell.value("default").to_owned();
    // A script that went on for ever has its items none the less.
    shell.steps = MOST_STEPS;
    let items = shell.open(scope, &[], 0);
    (items, default)
}

struct Shell<'a> {
    reading: &'a Reading<'a>,
    variables: HashMap<String, String>,
    functions: HashMap<String, Block>,
    steps: usize,
    items: usize,
}

/// What one menu's commands leave behind: items, not opened yet, or a kernel.
#[derive(Default)]
struct Scope {
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

impl Shell<'_> {
    /// What the items do when they are chosen, once the whole script has run.
    fn open(&mut self, scope: Scope, menus: &[String], depth: usize) -> Vec<Item> {
        let mut items = Vec::new();
        for closed in scope.items {
            let before = self.variables.clone();
            let mut inner = Scope::default();
            self.run(&closed.body, &mut inner, depth);
            let entry = inner.kernel.take().map(|entry| Entry {
                name: closed.id.clone(),
                title: closed.title.clone(),
                menus: menus.to_vec(),
                ..entry
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
    fn run(&mut self, block: &Block, scope: &mut Scope, depth: usize) -> bool {
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
            let Some(left) = self.steps.checked_sub(cost.saturating_add(1)) else {
                self.steps = 0;
                return false;
            };
            self.steps = left;
            match command {
                Command::Simple(words, body) => {
                    let words = self.expand(words, scope);
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
                    for value in self.expand(words, scope) {
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
        match words {
            ["!", rest @ ..] => !self.test_one(rest),
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

    fn value(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    fn set(&mut self, name: &str, value: String) {
        let known = self.variables.contains_key(name);
        if value.len() <= LONGEST && (known || self.variables.len() < MOST_VARIABLES) {
            self.variables.insert(name.to_owned(), value);
        }
    }

    /// Puts in variables; the values of those outside quotes are split into words. Nothing, where that
    /// would be too long.
    fn expand(&self, words: &[Word], scope: &Scope) -> Vec<String> {
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
                    return Vec::new();
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
        expanded
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
    Closed {
        id,
        title: title.unwrap_or_default(),
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
