//! The ways in which a device can lose or mix up what was written, and how to tell them apart.

use std::fmt;

use super::stamp::{Content, Stamp};

/// What a device did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A write was acknowledged and is not there: the block holds what it held before.
    Dropped,
    /// Only some sectors of a write are there.
    Torn,
    /// Two blocks hold each other's data.
    Swapped,
    /// A write is in its place and also in another block's.
    Duplicated,
    /// A write is in another block's place and not in its own.
    Misplaced,
    /// A read gave what the block held before its last write; the next read gave the right data.
    Stale,
    /// A read gave something wrong of another kind; the next read gave the right data.
    Unstable,
    /// The block holds what nobody has written.
    Corrupt,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dropped => "dropped write",
            Self::Torn => "torn write",
            Self::Swapped => "swapped writes",
            Self::Duplicated => "duplicated write",
            Self::Misplaced => "misplaced write",
            Self::Stale => "stale read",
            Self::Unstable => "unstable read",
            Self::Corrupt => "corrupt block",
        })
    }
}

/// What was found of a block that should hold `expected`.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The last that was written and acknowledged.
    pub expected: Stamp,
    /// What the read gave.
    pub first: &'a Content,
    /// What a second read gave, with nothing else outstanding.
    pub again: &'a Content,
    /// If the block holds another's data: what that one holds, and what it should.
    pub other: Option<(&'a Content, Stamp)>,
}

impl Evidence<'_> {
    /// What it proves; `None` if nothing is wrong.
    pub fn verdict(&self) -> Option<Kind> {
        let right = Content::Whole(self.expected);
        let own_and_older = |stamp: &Stamp| {
            stamp.block == self.expected.block && stamp.generation < self.expected.generation
        };
        // What it held before its first write is not known, and is not ours.
        let fresh = self.expected.generation == 1;
        if *self.again == right {
            return match self.first {
                first if *first == right => None,
                Content::Whole(stamp) if own_and_older(stamp) => Some(Kind::Stale),
                Content::Garbage {
                    some_sound: false, ..
                } if fresh => Some(Kind::Stale),
                _ => Some(Kind::Unstable),
            };
        }
        Some(match self.again {
            Content::Whole(stamp) if own_and_older(stamp) => Kind::Dropped,
            Content::Whole(stamp) if stamp.block != self.expected.block => match self.other {
                Some((Content::Whole(there), _)) if there.block == self.expected.block => {
                    Kind::Swapped
                }
                Some((Content::Whole(there), should)) if *there == should => Kind::Duplicated,
                _ => Kind::Misplaced,
            },
            Content::Torn(_) => Kind::Torn,
            Content::Garbage { some_sound, .. } if fresh => {
                if *some_sound {
                    Kind::Torn
                } else {
                    Kind::Dropped
                }
            }
            Content::Whole(_) | Content::Garbage { .. } => Kind::Corrupt,
        })
    }
}

/// A fault that was found.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which kind.
    pub kind: Kind,
    /// What should be there.
    pub expected: Stamp,
    /// What was.
    pub found: Content,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { block, generation } = self.expected;
        write!(
            f,
            "{}: block {block} should hold generation {generation}, and holds ",
            self.kind
        )?;
        match &self.found {
            Content::Whole(stamp) if stamp.block == block => {
                write!(f, "generation {}", stamp.generation)
            }
            Content::Whole(stamp) => write!(
                f,
                "generation {} of block {}",
                stamp.generation, stamp.block
            ),
            Content::Garbage { sector, .. } => {
                write!(f, "in its sector {sector} what nobody has written")
            }
            Content::Torn(parts) => {
                for (n, (sectors, stamp)) in parts.iter().take(4).enumerate() {
                    let comma = if n == 0 { "" } else { ", " };
                    let (from, to) = (sectors.start(), sectors.end());
                    write!(
                        f,
                        "{comma}generation {} in its sectors {from} to {to}",
                        stamp.generation
                    )?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(block: u64, generation: u64) -> Content {
        Content::Whole(Stamp { block, generation })
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let expected = Stamp {
            block: 5,
            generation: 3,
        };
        let other = Stamp {
            block: 9,
            generation: 4,
        };
        let right = whole(5, 3);
        let torn = Content::Torn(vec![
            (0..=0, expected),
            (
                1..=7,
                Stamp {
                    generation: 2,
                    ..expected
                },
            ),
        ]);
        let garbage = Content::Garbage {
            sector: 0,
            some_sound: false,
        };
        let cases = [
            (right.clone(), right.clone(), None, None),
            (whole(5, 2), right.clone(), None, Some(Kind::Stale)),
            (garbage.clone(), right.clone(), None, Some(Kind::Unstable)),
            (whole(5, 2), whole(5, 2), None, Some(Kind::Dropped)),
            (torn.clone(), torn, None, Some(Kind::Torn)),
            (
                whole(9, 4),
                whole(9, 4),
                Some(whole(5, 3)),
                Some(Kind::Swapped),
            ),
            (
                whole(9, 4),
                whole(9, 4),
                Some(whole(9, 4)),
                Some(Kind::Duplicated),
            ),
            (
                whole(9, 4),
                whole(9, 4),
                Some(whole(9, 3)),
                Some(Kind::Misplaced),
            ),
            (garbage.clone(), garbage, None, Some(Kind::Corrupt)),
        ];
        for (first, again, there, kind) in cases {
            let evidence = Evidence {
                expected,
                first: &first,
                again: &again,
                other: there.as_ref().map(|content| (content, other)),
            };
            assert_eq!(evidence.verdict(), kind, "{evidence:?}");
        }
    }

    #[test]
    fn before_its_first_write_a_block_may_hold_anything() {
        let expected = Stamp {
            block: 5,
            generation: 1,
        };
        let right = Content::Whole(expected);
        let none = Content::Garbage {
            sector: 0,
            some_sound: false,
        };
        let half = Content::Garbage {
            sector: 4,
            some_sound: true,
        };
        for (first, again, kind) in [
            (&none, &none, Kind::Dropped),
            (&half, &half, Kind::Torn),
            (&none, &right, Kind::Stale),
        ] {
            let evidence = Evidence {
                expected,
                first,
                again,
                other: None,
            };
            assert_eq!(evidence.verdict(), Some(kind), "{evidence:?}");
        }
    }
}
