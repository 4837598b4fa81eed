//! Which pages of an image in memory are there, as far as is known.
//!
//! To look at a page of a hole through a mapping is to make one: a guest that reads its sparse disk
//! would fill the host's memory with zeroes. So only pages are looked at that are known to be there. It
//! is a hint, and no more: a page that is gone in spite of it costs memory, or is made good by a
//! system call.
#![allow(unsafe_code)] // For words that begin as zeroes.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};

use super::PAGE;

/// Pages that are asked for together: the bits of a word.
pub(super) const GROUP: u64 = 64;

/// What is known, for all threads.
#[derive(Debug)]
pub(super) struct Presence {
    /// A bit a page: it is there.
    there: Box<[AtomicU64]>,
    /// A bit a group: it has been asked for. Who is not there then comes by our own writes only.
    asked: Box<[AtomicU64]>,
}

impl Presence {
    /// Of `pages` pages nothing is known. Takes memory as things become known.
    pub(super) fn new(pages: u64) -> Self {
        let groups = pages.div_ceil(GROUP);
        Self {
            there: zeroed(groups),
            asked: zeroed(groups.div_ceil(GROUP)),
        }
    }

    /// Whether all pages that hold some of `len` bytes from `offset`, of which there is one, are known
    /// to be there. `ask` is called, once for each group, with its number, and gives its pages' bits.
    pub(super) fn knows(&self, offset: u64, len: u64, ask: impl Fn(u64) -> u64) -> bool {
        groups(offset, len).all(|(group, pages)| {
            let Some(there) = word(&self.there, group) else {
                return false;
            };
            if there.load(Ordering::Relaxed) & pages == pages {
                return true;
            }
            let Some(asked) = word(&self.asked, group / GROUP) else {
                return false;
            };
            let bit = 1u64.rotate_left((group % GROUP) as u32);
            if asked.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
                return false;
            }
            let found = ask(group);
            let before = there.fetch_or(found, Ordering::Relaxed);
            (before | found) & pages == pages
        })
    }

    /// All pages that hold some of these bytes are there: they were written to.
    pub(super) fn learn(&self, offset: u64, len: u64) {
        for (group, pages) in groups(offset, len) {
            if let Some(there) = word(&self.there, group) {
                there.fetch_or(pages, Ordering::Relaxed);
            }
        }
    }

    /// Pages that hold some of these bytes may be gone.
    pub(super) fn forget(&self, offset: u64, len: u64) {
        for (group, pages) in groups(offset, len) {
            let Some(there) = word(&self.there, group) else {
                return;
            };
            there.fetch_and(!pages, Ordering::Relaxed);
        }
    }
}

/// Not one by one: zeroes that nobody has touched take no memory.
fn zeroed(count: u64) -> Box<[AtomicU64]> {
    let words = Box::new_zeroed_slice(usize::try_from(count).unwrap_or(0));
    // SAFETY: all zeroes is an atomic integer of value 0.
    unsafe { words.assume_init() }
}

fn word(words: &[AtomicU64], index: u64) -> Option<&AtomicU64> {
    words.get(usize::try_from(index).ok()?)
}

/// The groups that hold some of these bytes, with the bits of the pages that do.
fn groups(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let first = offset / PAGE;
    let last = offset.saturating_add(len.saturating_sub(1)) / PAGE;
    let mut next = (len > 0).then_some(first);
    iter::from_fn(move || {
        let page = next?;
        let group = page / GROUP;
        let end = last.min(group.saturating_mul(GROUP).saturating_add(GROUP - 1));
        next = end.checked_add(1).filter(|page| *page <= last);
        let above = u64::MAX.checked_shl((page % GROUP) as u32)?;
        let below = u64::MAX.checked_shr((GROUP - 1).saturating_sub(end % GROUP) as u32)?;
        Some((group, above & below))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects)]

    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PAGES: u64 = 300;

    fn pages(offset: u64, len: u64) -> impl Iterator<Item = u64> {
        (offset / PAGE..PAGES).take_while(move |page| page * PAGE < offset + len)
    }

    proptest! {
        /// What is known is what was found, and learnt, and not forgotten since; nobody is asked twice.
        #[test]
        fn it_is_a_set_of_pages(
            found in prop::collection::btree_set(0..PAGES, 0..300),
            steps in prop::collection::vec(
                (0..3u8, 0..PAGES * PAGE - 1, 1..100 * PAGE), 1..60),
        ) {
            let presence = Presence::new(PAGES);
            let asked = RefCell::new(BTreeSet::new());
            let mut known = BTreeSet::new();
            for (step, offset, len) in steps {
                let len = len.min(PAGES * PAGE - offset);
                match step {
                    0 => {
                        let ask = |group: u64| {
                            prop_assert!(asked.borrow_mut().insert(group));
                            Ok((0..64).filter(|bit| found.contains(&(group * 64 + bit)))
                                .fold(0, |bits, bit| bits | 1 << bit))
                        };
                        let before = asked.borrow().clone();
                        let knows = presence.knows(offset, len, |group| ask(group).unwrap());
                        for group in asked.borrow().difference(&before) {
                            known.extend(found.range(group * 64..(group + 1) * 64));
                        }
                        prop_assert_eq!(knows, pages(offset, len).all(|page| known.contains(&page)));
                    }
                    1 => {
                        presence.learn(offset, len);
                        known.extend(pages(offset, len));
                    }
                    _ => {
                        presence.forget(offset, len);
                        known.retain(|page| !pages(offset, len).any(|gone| gone == *page));
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_known_behind_the_end() {
        let presence = Presence::new(65);
        assert!(presence.knows(0, 65 * PAGE, |_| u64::MAX));
        for (offset, len) in [
            (128 * PAGE, 1),
            (0, 129 * PAGE),
            (u64::MAX, 1),
            (u64::MAX - 5, u64::MAX),
        ] {
            assert!(!presence.knows(offset, len, |_| u64::MAX));
            presence.learn(offset, len);
            presence.forget(offset, len);
        }
    }
}
