//! Behind which port an address is.
//!
//! Guests are hostile, and a frame's source address is what the guest says. So:
//! - An address that a port was given (`mac=`) is that port's for ever.
//! - Each port has so many learned addresses and no more: a guest that makes them up fills its own share,
//!   and frames to addresses beyond it are flooded, which costs the one who sends them. The hash is keyed,
//!   so that nobody can choose addresses that collide.
//! - A learned address is at *home* where it was first heard. It moves to another port only after it
//!   has been silent for a while; until then frames that claim it elsewhere are dropped. Its home
//!   gets it back with the first frame, and for good when it is not heard there for the ageing time,
//!   or its guest goes, the address is anybody's again.
//!
//! A guest that is heard now and then cannot be robbed of its traffic for longer than its own silence.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Addresses learned for one port at most.
pub const SHARE: usize = 1024;

/// How long an address has to be silent before it is heard elsewhere, in seconds; the ageing time
/// where that is shorter.
const HOLD: u32 = 5;

/// What was thought of a frame's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It belongs there, now if not before.
    Here,
    /// It does, but there is no room to remember it.
    Unlearned,
    /// It is another port's.
    Claimed,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where it was first heard, and when last there.
    home: usize,
    home_seen: u32,
    /// Where it is now, and when last heard.
    port: usize,
    seen: u32,
    /// Given, and not learned.
    fixed: bool,
}

/// The addresses of all ports. Times are seconds since any moment, and never go back.
#[derive(Debug)]
pub struct Table {
    entries: HashMap<u64, Entry, Keys>,
    /// How many learned entries are at home at each port.
    learned: Vec<usize>,
    ageing: u32,
    swept: u32,
}

impl Table {
    /// For so many ports; what is not heard for `ageing` seconds is forgotten.
    pub fn new(ports: usize, ageing: u32) -> Self {
        Self {
            entries: HashMap::with_hasher(Keys::default()),
            learned: vec![0; ports],
            ageing,
            swept: 0,
        }
    }

    /// This address is this port's, and nobody else's.
    pub fn fix(&mut self, address: [u8; 6], port: usize) {
        let entry = Entry {
            home: port,
            home_seen: 0,
            port,
            seen: 0,
            fixed: true,
        };
        self.entries.insert(number(address), entry);
    }

    /// A frame from `address`, which is no group's, came from `port` at this time.
    pub fn hear(&mut self, address: [u8; 6], port: usize, now: u32) -> Heard {
        let ageing = self.ageing;
        let Some(entry) = self.entries.get_mut(&number(address)) else {
            return self.learn(address, port, now);
        };
        if entry.fixed {
            return if entry.home == port {
                Heard::Here
            } else {
                Heard::Claimed
            };
        }
        if entry.home == port {
            // Also when it was elsewhere meanwhile.
            (entry.home_seen, entry.port, entry.seen) = (now, port, now);
            return Heard::Here;
        }
        if now.saturating_sub(entry.home_seen) > ageing {
            self.forget(address);
            return self.learn(address, port, now);
        }
        if entry.port == port || now.saturating_sub(entry.seen) >= HOLD.min(ageing) {
            (entry.port, entry.seen) = (port, now);
            return Heard::Here;
        }
        Heard::Claimed
    }

    /// Where frames to this address go.
    pub fn find(&self, address: [u8; 6], now: u32) -> Option<usize> {
        let entry = self.entries.get(&number(address))?;
        let fresh = entry.fixed || now.saturating_sub(entry.seen) <= self.ageing;
        fresh.then_some(entry.port)
    }

    /// The port's guest has gone, and what was learned of it with it.
    pub fn leave(&mut self, port: usize) {
        self.entries
            .retain(|_, entry| entry.fixed || entry.home != port);
        for entry in self.entries.values_mut() {
            if entry.port == port {
                (entry.port, entry.seen) = (entry.home, entry.home_seen);
            }
        }
        if let Some(learned) = self.learned.get_mut(port) {
            *learned = 0;
        }
    }

    fn learn(&mut self, address: [u8; 6], port: usize, now: u32) -> Heard {
        if self.learned.get(port).is_none_or(|n| *n >= SHARE) {
            self.sweep(now);
        }
        let Some(learned) = self.learned.get_mut(port).filter(|n| **n < SHARE) else {
            return Heard::Unlearned;
        };
        *learned = learned.saturating_add(1);
        let entry = Entry {
            home: port,
            home_seen: now,
            port,
            seen: now,
            fixed: false,
        };
        self.entries.insert(number(address), entry);
        Heard::Here
    }

    fn forget(&mut self, address: [u8; 6]) {
        if let Some(entry) = self.entries.remove(&number(address))
            && let Some(learned) = self.learned.get_mut(entry.home)
        {
            *learned = learned.saturating_sub(1);
        }
    }

    /// Makes room of what is out of date. A guest can ask for it with each frame: it is done once a
    /// second at most.
    fn sweep(&mut self, now: u32) {
        if now == self.swept {
            return;
        }
        self.swept = now;
        let (ageing, learned) = (self.ageing, &mut self.learned);
        self.entries.retain(|_, entry| {
            let keep = entry.fixed || now.saturating_sub(entry.home_seen) <= ageing;
            if !keep && let Some(learned) = learned.get_mut(entry.home) {
                *learned = learned.saturating_sub(1);
            }
            keep
        });
    }
}

fn number(address: [u8; 6]) -> u64 {
    address
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A hash of one number under keys that nobody else knows: a folded multiplication.
#[derive(Clone, Debug)]
struct Keys([u64; 2]);

impl Default for Keys {
    fn default() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0), random.hash_one(1) | 1])
    }
}

impl BuildHasher for Keys {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        let [hash, factor] = self.0;
        Folded { hash, factor }
    }
}

#[derive(Debug)]
struct Folded {
    hash: u64,
    factor: u64,
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.hash ^ number).wrapping_mul(u128::from(self.factor));
        self.hash = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn made_up(n: usize) -> [u8; 6] {
        let [a, b, c, ..] = n.to_le_bytes();
        [2, 1, 0, a, b, c]
    }

    #[test]
    fn an_address_is_where_it_was_heard_until_it_ages() {
        let mut table = Table::new(2, 300);
        assert_eq!(table.find(A, 0), None);
        assert_eq!(table.hear(A, 1, 10), Heard::Here);
        assert_eq!(table.find(A, 310), Some(1));
        assert_eq!(table.find(A, 311), None);
        table.leave(1);
        assert_eq!(table.find(A, 11), None);
    }

    #[test]
    fn an_address_moves_after_a_silence_and_comes_home_at_once() {
        let mut table = Table::new(3, 300);
        table.hear(A, 0, 100);
        assert_eq!(table.hear(A, 1, 104), Heard::Claimed);
        assert_eq!(table.find(A, 104), Some(0));
        assert_eq!(table.hear(A, 1, 105), Heard::Here);
        assert_eq!(table.find(A, 105), Some(1));
        // Nor does a third one get it from the second.
        assert_eq!(table.hear(A, 2, 109), Heard::Claimed);
        assert_eq!(table.hear(A, 0, 109), Heard::Here);
        assert_eq!(table.find(A, 109), Some(0));
        assert_eq!(table.hear(A, 1, 110), Heard::Claimed);
        // A home that is silent for the ageing time is none any more.
        for now in (115..=420).step_by(5) {
            assert_eq!(table.hear(A, 1, now), Heard::Here);
        }
        assert_eq!(table.hear(A, 0, 421), Heard::Claimed);
    }

    #[test]
    fn a_guest_that_leaves_takes_its_addresses_and_gives_others_back() {
        let mut table = Table::new(2, 300);
        table.hear(A, 0, 0);
        table.hear(A, 1, 5);
        table.hear(made_up(1), 1, 5);
        table.leave(1);
        assert_eq!(table.find(A, 6), Some(0));
        assert_eq!(table.find(made_up(1), 6), None);
        assert_eq!(table.hear(made_up(1), 0, 6), Heard::Here);
    }

    #[test]
    fn a_given_address_is_nobody_elses() {
        let mut table = Table::new(2, 300);
        table.fix(A, 0);
        assert_eq!(table.hear(A, 1, 1000), Heard::Claimed);
        assert_eq!(table.find(A, 1000), Some(0));
        table.leave(0);
        assert_eq!(table.hear(A, 1, 2000), Heard::Claimed);
        assert_eq!(table.hear(A, 0, 2000), Heard::Here);
    }

    #[test]
    fn a_guest_that_makes_addresses_up_fills_its_own_share() {
        let mut table = Table::new(2, 300);
        for n in 0..SHARE {
            assert_eq!(table.hear(made_up(n), 0, 1), Heard::Here);
        }
        for n in SHARE..3 * SHARE {
            assert_eq!(table.hear(made_up(n), 0, 2), Heard::Unlearned);
        }
        assert_eq!(table.entries.len(), SHARE);
        assert_eq!(
            table.hear(A, 1, 3),
            Heard::Here,
            "the other's share is its own"
        );
        // What has aged makes room.
        assert_eq!(table.hear(made_up(SHARE), 0, 302), Heard::Here);
        assert_eq!(table.entries.len(), 2);
        assert_eq!(table.learned, [1, 1]);
    }
}
