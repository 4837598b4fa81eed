//! GRUB's menus: a script in a small shell (GRUB's manual, "Writing full configuration files directly").
//!
//! | file | idea |
//! |---|---|
//! | `words.rs` | text to words, with their quotes and variables |
//! | `script.rs` | words to commands |
//! | `run.rs` | commands to the items of a menu |

mod run;
mod script;
mod words;

use super::{Entry, Reading};
use run::Item;

/// Where GRUB's menu is, on a BIOS machine first.
pub(super) const PLACES: [&str; 5] = [
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/grub/grub.cfg",
    "/EFI/BOOT/grub.cfg",
    "/boot/grub/loopback.cfg",
];

/// Reads a menu: its entries, and which of them is the default.
pub(super) fn read(reading: &Reading, path: &str, text: &str) -> (Vec<Entry>, Option<usize>) {
    let (items, default) = run::menu(reading, path, text);
    let chosen = find(&items, &default)
        .and_then(|item| first(std::slice::from_ref(item)))
        .or_else(|| first(&items));
    let mut entries = Vec::new();
    let mut number = None;
    collect(&items, &mut |entry| {
        if chosen.is_some_and(|chosen| std::ptr::eq(chosen, entry)) {
            number = Some(entries.len());
        }
        entries.push(entry.clone());
    });
    (entries, number)
}

/// The item that `default` names: a number, an id or a title, with `>` between those of menus in menus.
fn find<'a>(items: &'a [Item], default: &str) -> Option<&'a Item> {
    let (name, rest) = match default.split_once('>') {
        Some((name, rest)) => (name.trim(), Some(rest)),
        None => (default.trim(), None),
    };
    let named = || {
        let called = |item: &&Item| item.id.as_deref() == Some(name) || item.title == name;
        items.iter().find(called)
    };
    let number = name.parse::<usize>().ok();
    let item = number.and_then(|n| items.get(n)).or_else(named)?;
    match rest {
        Some(rest) => find(&item.items, rest),
        None => Some(item),
    }
}

/// The first that starts Linux.
fn first(items: &[Item]) -> Option<&Entry> {
    let mut items = items.iter();
    items.find_map(|item| item.entry.as_ref().or_else(|| first(&item.items)))
}

fn collect<'a>(items: &'a [Item], each: &mut dyn FnMut(&'a Entry)) {
    for item in items {
        item.entry.iter().for_each(&mut *each);
        collect(&item.items, each);
    }
}

#[cfg(test)]
mod tests;
