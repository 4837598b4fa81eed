//! The menus of isolinux and syslinux: lines of a keyword and what belongs to it
//! (syslinux's doc/syslinux.txt, doc/menu.txt).

use std::rc::Rc;

use super::{
    DEEPEST, Entry, LONGEST, MOST_ENTRIES, MOST_INITRDS, Reading, absolute, cut, folder_of,
};

/// Where isolinux looks for its menu, by name first.
pub(super) fn places() -> impl Iterator<Item = String> {
    let folders = [
        "/boot/isolinux",
        "/isolinux",
        "/boot/syslinux",
        "/syslinux",
        "",
    ];
    ["isolinux.cfg", "syslinux.cfg"]
        .into_iter()
        .flat_map(move |name| folders.map(|folder| format!("{folder}/{name}")))
}

/// What a kernel's suffix may not be: other programs and boot sectors that isolinux can start.
const NO_KERNELS: [&str; 8] = [".c32", ".com", ".cbt", ".bin", ".bs", ".bss", ".0", ".img"];
/// It starts the label that its words name for each boot loader.
const WHICH: &str = "whichsys.c32";
/// The most labels, whatever they start.
const MOST_LABELS: usize = 4 * MOST_ENTRIES;
/// How much is looked at of an `append` that many labels may inherit: a command line and initrds.
const LONGEST_APPEND: usize = 2 * LONGEST;

/// Reads a menu: its entries, and which of them is the default. A menu may be but the way to another, by
/// CONFIG: of those on the way, the last that has entries.
pub(super) fn read(reading: &Reading, path: &str, text: &str) -> (Vec<Entry>, Option<usize>) {
    let mut found = (Vec::new(), None);
    let mut next = Some(text.to_owned());
    for _ in 0..=DEEPEST {
        let Some(text) = next else {
            break;
        };
        let (labels, chosen) = labels(reading, folder_of(path), &text);
        next = match chosen.and_then(|n| labels.get(n)) {
            Some(Label {
                starts: Starts::Config(path),
                ..
            }) => reading.text(path),
            _ => None,
        };
        let here = entries(labels, chosen);
        if !here.0.is_empty() {
            found = here;
        }
    }
    found
}

/// The labels of a menu, and which of them is the default.
fn labels(reading: &Reading, folder: &str, text: &str) -> (Vec<Label>, Option<usize>) {
    let mut parser = Parser {
        reading,
        folder,
        labels: Vec::new(),
        entries: 0,
        open: None,
        menus: vec![Menu::default()],
        default: None,
        on_timeout: None,
        in_help: false,
    };
    parser.lines(text, 0);
    parser.close();
    let chosen = parser.chosen();
    (parser.labels, chosen)
}

fn entries(labels: Vec<Label>, chosen: Option<usize>) -> (Vec<Entry>, Option<usize>) {
    let mut entries = Vec::new();
    let mut default = None;
    for (number, label) in labels.into_iter().enumerate() {
        if let Starts::Linux(entry) = label.starts
            && entries.len() < MOST_ENTRIES
        {
            if chosen == Some(number) {
                default = Some(entries.len());
            }
            entries.push(entry);
        }
    }
    (entries, default)
}

struct Parser<'a> {
    reading: &'a Reading<'a>,
    folder: &'a str,
    labels: Vec<Label>,
    /// How many of them start Linux.
    entries: usize,
    /// The label whose lines these are.
    open: Option<Open>,
    /// From the outermost to the one whose lines these are; never empty.
    menus: Vec<Menu>,
    default: Option<String>,
    on_timeout: Option<String>,
    in_help: bool,
}

/// A menu, or what is said before all labels.
#[derive(Clone, Default)]
struct Menu {
    title: String,
    append: Option<Rc<str>>,
    /// A label that says it is its menu's default.
    default: Option<usize>,
}

struct Label {
    name: String,
    starts: Starts,
    /// It lies in the first menu.
    outermost: bool,
}

enum Starts {
    Linux(Entry),
    /// Another menu, by its path.
    Config(String),
    /// Another label.
    Label(String),
    /// Something else.
    Other,
}

/// A label, as far as it is read.
#[derive(Default)]
struct Open {
    name: String,
    title: Option<String>,
    kernel: Option<String>,
    /// The keyword says that the kernel is something else.
    other: bool,
    initrd: Option<String>,
    append: Option<Rc<str>>,
    config: Option<String>,
    is_default: bool,
}

impl Parser<'_> {
    fn lines(&mut self, text: &str, depth: usize) {
        for line in text.lines() {
            let (keyword, rest) = word(line);
            let keyword = keyword.to_ascii_lowercase();
            if self.in_help {
                self.in_help = keyword != "endtext";
                continue;
            }
            match keyword.as_str() {
                "include" => self.include(rest, depth),
                "label" => {
                    self.close();
                    self.open = Some(Open {
                        name: word(rest).0.to_owned(),
                        ..Open::default()
                    });
                }
                "default" => self.default = Some(rest.to_owned()),
                "ontimeout" => self.on_timeout = Some(rest.to_owned()),
                "text" => self.in_help = word(rest).0.eq_ignore_ascii_case("help"),
                "append" => match &mut self.open {
                    Some(label) => label.append = Some(rest.into()),
                    None => self.menu().append = Some(rest.into()),
                },
                "menu" => self.menu_line(rest, depth),
                _ => self.label_line(&keyword, rest),
            }
        }
    }

    /// A file that is not there is passed over, as isolinux does.
    fn include(&mut self, rest: &str, depth: usize) {
        let path = absolute(self.folder, word(rest).0);
        if depth < DEEPEST
            && let Some(text) = self.reading.text(&path)
        {
            self.lines(&text, depth.saturating_add(1));
        }
    }

    fn menu_line(&mut self, rest: &str, depth: usize) {
        let (keyword, rest) = word(rest);
        match keyword.to_ascii_lowercase().as_str() {
            "include" => self.include(rest, depth),
            "label" => match &mut self.open {
                Some(label) => label.title = Some(without_hotkey(rest)),
                None => self.menu().title = without_hotkey(rest),
            },
            "title" if self.menu().title.is_empty() => self.menu().title = without_hotkey(rest),
            "default" => {
                if let Some(label) = &mut self.open {
                    label.is_default = true;
                }
            }
            "begin" => {
                self.close();
                if self.menus.len() < DEEPEST {
                    let append = self.menu().append.clone();
                    self.menus.push(Menu {
                        append,
                        title: without_hotkey(rest),
                        ..Menu::default()
                    });
                }
            }
            "end" => {
                self.close();
                if self.menus.len() > 1 {
                    self.menus.pop();
                }
            }
            _ => {}
        }
    }

    fn label_line(&mut self, keyword: &str, rest: &str) {
        let Some(label) = &mut self.open else {
            return;
        };
        match keyword {
            "kernel" | "linux" => label.kernel = Some(rest.to_owned()),
            "com32" | "boot" | "bss" | "pxe" | "fdimage" | "comboot" | "localboot" => {
                label.kernel = Some(rest.to_owned());
                label.other = true;
            }
            "initrd" => label.initrd = Some(rest.to_owned()),
            "config" => label.config = Some(absolute(self.folder, word(rest).0)),
            _ => {}
        }
    }

    /// The innermost menu.
    fn menu(&mut self) -> &mut Menu {
        if self.menus.is_empty() {
            self.menus.push(Menu::default());
        }
        let last = self.menus.len().saturating_sub(1);
        #[allow(clippy::indexing_slicing)] // there is one
        &mut self.menus[last]
    }

    /// The label has come to its end.
    fn close(&mut self) {
        let Some(label) = self.open.take() else {
            return;
        };
        if self.labels.len() >= MOST_LABELS {
            return;
        }
        let append = (label.append.clone())
            .or_else(|| self.menu().append.clone())
            .filter(|append| append.trim() != "-");
        let starts = self.starts(&label, append.as_deref().unwrap_or_default());
        if matches!(starts, Starts::Linux(_)) {
            self.entries = self.entries.saturating_add(1);
        }
        if label.is_default {
            self.menu().default = Some(self.labels.len());
        }
        self.labels.push(Label {
            name: label.name,
            starts,
            outermost: self.menus.len() == 1,
        });
    }

    fn starts(&self, label: &Open, append: &str) -> Starts {
        let whole = append.len();
        let append = cut(append, LONGEST_APPEND);
        if let Some(path) = &label.config {
            return Starts::Config(path.clone());
        }
        // Without a kernel the label's name is one.
        let (kernel, options) = word(label.kernel.as_deref().unwrap_or(&label.name));
        if kernel.ends_with(WHICH) {
            let mut words = append
                .split_whitespace()
                .skip_while(|word| *word != "-iso-");
            return words
                .nth(1)
                .map_or(Starts::Other, |name| Starts::Label(name.to_owned()));
        }
        let full = self.entries >= MOST_ENTRIES;
        if full || label.other || label.kernel.is_none() || !is_kernel(kernel) {
            return Starts::Other;
        }
        let titles = self.menus.iter().skip(1).map(|menu| menu.title.as_str());
        // One too long stays too long, and is no long work.
        let menus = titles.map(|title| cut(title, LONGEST.saturating_add(1)).to_owned());
        let mut entry = self.linux(kernel, &format!("{options} {append}"));
        if let Some(initrd) = &label.initrd {
            entry.initrds = self.initrds(initrd);
        }
        let entry = Entry {
            title: label.title.clone().unwrap_or_else(|| label.name.clone()),
            name: Some(label.name.clone()),
            menus: menus.collect(),
            cut: append.len() < whole,
            ..entry
        };
        Starts::Linux(entry.limited())
    }

    fn linux(&self, kernel: &str, options: &str) -> Entry {
        let (initrds, words): (Vec<&str>, Vec<&str>) = options
            .split_whitespace()
            .partition(|word| word.starts_with("initrd="));
        let initrd = initrds.last().and_then(|word| word.strip_prefix("initrd="));
        Entry {
            kernel: absolute(self.folder, kernel),
            initrds: self.initrds(initrd.unwrap_or_default()),
            cmdline: words.join(" "),
            ..Entry::default()
        }
    }

    fn initrds(&self, names: &str) -> Vec<String> {
        names
            .split([',', ' '])
            .filter(|name| !name.is_empty())
            .take(MOST_INITRDS.saturating_add(1))
            .map(|name| absolute(self.folder, name))
            .collect()
    }

    /// The label that starts when nobody chooses. It may be one that `default` makes of a kernel's
    /// path and options.
    fn chosen(&mut self) -> Option<usize> {
        let default = self.default.clone().unwrap_or_default();
        let (name, options) = word(&default);
        let (name, options) = (name.to_owned(), options.to_owned());
        if let Some(found) = self.find(&name) {
            if let Some(Label {
                starts: Starts::Linux(entry),
                ..
            }) = self.labels.get_mut(found)
            {
                let both = [entry.cmdline.as_str(), &options];
                entry.cmdline = both.join(" ").trim().into();
                *entry = std::mem::take(entry).limited();
            }
            return self.followed(found);
        }
        let path = absolute(self.folder, &name);
        if !name.is_empty() && is_kernel(&name) && self.reading.has(&path) {
            let entry = Entry {
                title: name.clone(),
                name: Some(name.clone()),
                ..self.linux(&name, &options)
            };
            self.labels.push(Label {
                starts: Starts::Linux(entry.limited()),
                name,
                outermost: true,
            });
            return self.labels.len().checked_sub(1);
        }
        // The name of a menu program, most likely: what that would start.
        let timeout = self.on_timeout.clone().unwrap_or_default();
        let first = |starts: fn(&Starts) -> bool| {
            let mut labels = self.labels.iter();
            labels.position(|label| label.outermost && starts(&label.starts))
        };
        (self.menus.first().and_then(|menu| menu.default))
            .or_else(|| self.find(word(&timeout).0))
            .or_else(|| first(|starts| matches!(starts, Starts::Linux(_))))
            .or_else(|| first(|starts| matches!(starts, Starts::Config(_))))
            .and_then(|found| self.followed(found))
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.labels.iter().position(|label| label.name == name)
    }

    /// The label that a label leads to.
    fn followed(&self, mut number: usize) -> Option<usize> {
        for _ in 0..DEEPEST {
            match &self.labels.get(number)?.starts {
                Starts::Label(name) => number = self.find(name)?,
                _ => return Some(number),
            }
        }
        None
    }
}

/// The first word, and what follows it.
fn word(line: &str) -> (&str, &str) {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim_start())
}

/// A title without the sign before the letter that chooses it.
fn without_hotkey(title: &str) -> String {
    title.replacen('^', "", 1)
}

fn is_kernel(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    !NO_KERNELS.iter().any(|suffix| path.ends_with(suffix))
}
