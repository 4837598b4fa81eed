//! The boot menu of an ISO image, as its own boot loader reads it: which kernels, initrds and command
//! lines it offers, and which of them it starts when nobody chooses.
//!
//! | file | idea |
//! |---|---|
//! | `isolinux.rs` | isolinux's and syslinux's: lines of keywords |
//! | `grub/` | GRUB's: a shell script, whose commands are understood or do nothing |
//!
//! Menus are somebody else's text: no command of theirs is run, and how much is read of them, how deep
//! and how often, is limited.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod grub;
mod isolinux;

use std::cell::Cell;

/// The most files of one menu that are read or asked for, and the most bytes in them.
const MOST_FILES: u32 = 256;
const MOST_BYTES: usize = 1 << 20;
/// Files that include files, menus in menus.
const DEEPEST: usize = 16;
/// The most entries of a menu.
const MOST_ENTRIES: usize = 1000;
/// The longest text of an entry, and of its menus' titles and its initrds' paths together: longer than any
/// command line that Linux takes.
const LONGEST: usize = 4 << 10;
/// The most initrds of an entry.
const MOST_INITRDS: usize = 64;

/// The files of an image, by paths that count from its root.
pub trait Files {
    /// A text; `None` if it is not there, or is too long for a menu.
    fn read(&self, path: &str) -> Option<String>;
    /// Whether there is such a file.
    fn has(&self, path: &str) -> bool;
}

/// One way to start the image's Linux. Its texts hold no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What the menu calls it for the machine's sake: isolinux's label, GRUB's id.
    pub name: Option<String>,
    /// What a person reads.
    pub title: String,
    /// The titles of the menus it lies in, from the outermost; none for the first menu's.
    pub menus: Vec<String>,
    /// The kernel's path, from the root of the image.
    pub kernel: String,
    /// The initrds' paths; they make up one.
    pub initrds: Vec<String>,
    /// The kernel's command line, less what is for the boot loader.
    pub cmdline: String,
    /// Some of it was beyond the limits of an entry, and is left out: it does not start what its author meant.
    pub cut: bool,
}

/// A boot menu. There is at least one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    /// Its path in the image.
    pub file: String,
    /// What it offers, in order.
    pub entries: Vec<Entry>,
    /// Which of them is started when nobody chooses.
    pub default: usize,
}

/// There is no menu, or one without Linux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoMenu {
    /// No file of a boot loader that is known.
    None,
    /// The first menu there is.
    NoEntries(String),
}

impl Menu {
    /// Reads the menu that a PC's BIOS would come to: isolinux's or syslinux's, else GRUB's.
    ///
    /// # Errors
    /// There is none, or none that has a kernel.
    pub fn read(files: &dyn Files) -> Result<Self, NoMenu> {
        let mut empty = None;
        let known = isolinux::places().map(|path| (path, isolinux::read as Reader));
        let known = known.chain(grub::PLACES.iter().map(|path| {
            let read: Reader = grub::read;
            ((*path).to_owned(), read)
        }));
        for (path, read) in known {
            let reading = Reading::new(files);
            let Some(text) = reading.text(&path) else {
                continue;
            };
            let (entries, default) = read(&reading, &path, &text);
            if !entries.is_empty() {
                return Ok(Self {
                    default: default.filter(|n| *n < entries.len()).unwrap_or(0),
                    file: path,
                    entries,
                });
            }
            empty.get_or_insert(path);
        }
        Err(empty.map_or(NoMenu::None, NoMenu::NoEntries))
    }

    /// The entry of this name, title, path of titles or number, counted from 1; the first to match. Without a
    /// name, the default.
    pub fn entry(&self, name: Option<&str>) -> Option<&Entry> {
        let Some(name) = name else {
            return self.entries.get(self.default);
        };
        let number = || name.parse::<usize>().ok()?.checked_sub(1);
        let named = |entry: &&Entry| entry.name.as_deref() == Some(name);
        let titled = |entry: &&Entry| entry.title == name || entry.path() == name;
        let entries = &self.entries;
        (entries.iter().find(named))
            .or_else(|| entries.iter().find(titled))
            .or_else(|| entries.get(number()?))
    }
}

impl Entry {
    /// Its title behind those of its menus: `Advanced options > Rescue mode`.
    pub fn path(&self) -> String {
        let titles = self.menus.iter().chain([&self.title]);
        titles.map(String::as_str).collect::<Vec<_>>().join(" > ")
    }

    /// Within the limits of an entry, whichever menu it comes from: a line of one is inherited by a thousand
    /// labels, or said by a loop.
    fn limited(mut self) -> Self {
        let names = self.name.iter_mut();
        for text in names.chain([&mut self.title, &mut self.kernel, &mut self.cmdline]) {
            let len = text.len();
            text.truncate(cut(text, LONGEST).len());
            self.cut |= text.len() < len;
        }
        self.cut |= self.initrds.len() > MOST_INITRDS;
        self.initrds.truncate(MOST_INITRDS);
        for texts in [&mut self.menus, &mut self.initrds] {
            let (count, mut left) = (texts.len(), LONGEST);
            texts.retain(|text| {
                let fits = left.checked_sub(text.len());
                left = fits.unwrap_or(0);
                fits.is_some()
            });
            self.cut |= texts.len() < count;
        }
        self
    }

    /// What to ask for it by.
    pub fn word(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.title)
    }
}

type Reader = fn(&Reading, &str, &str) -> (Vec<Entry>, Option<usize>);

/// What is left of the limits of one menu.
struct Reading<'a> {
    files: &'a dyn Files,
    count: Cell<u32>,
    bytes: Cell<usize>,
}

impl<'a> Reading<'a> {
    fn new(files: &'a dyn Files) -> Self {
        Self {
            files,
            count: Cell::new(MOST_FILES),
            bytes: Cell::new(MOST_BYTES),
        }
    }

    /// The text of a file without control characters, as long as the limits are kept.
    fn text(&self, path: &str) -> Option<String> {
        self.count.set(self.count.get().checked_sub(1)?);
        let text = self.files.read(path)?;
        self.bytes.set(self.bytes.get().checked_sub(text.len())?);
        let clean = |c: char| match c {
            '\n' => c,
            c if c.is_control() => ' ',
            c => c,
        };
        Some(text.replace("\r\n", "\n").chars().map(clean).collect())
    }

    fn has(&self, path: &str) -> bool {
        let left = self.count.get().checked_sub(1);
        left.is_some_and(|left| {
            self.count.set(left);
            self.files.has(path)
        })
    }
}

/// The first bytes of a text, no more than `most`.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// The folder that a file lies in, with a slash at its end.
fn folder_of(path: &str) -> &str {
    path.rfind('/')
        .map_or("/", |at| path.get(..=at).unwrap_or("/"))
}

/// A path as it counts from the root, without `.`, `..` and double slashes.
fn absolute(folder: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{folder}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests;
