//! What passed a port, and what was dropped there and why.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// One number. Only the switch's thread counts; anybody may read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts so many more.
    #[inline]
    pub fn add(&self, more: u64) {
        // One writer: a plain sum, not a locked one.
        let sum = self.get().wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// The count until now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Frames dropped, by reason.
        #[derive(Debug, Default)]
        pub struct Drops {
            $($(#[$doc])* pub $name: Count,)*
        }

        impl Drops {
            /// Each reason's word and count.
            pub fn each(&self) -> Vec<(&'static str, u64)> {
                vec![$(($word, self.$name.get()),)*]
            }
        }
    };
}

drops! {
    /// From the guest: no whole header, too short or too long for Ethernet, or from a group address.
    malformed = "malformed",
    /// From the guest: its source address is another port's.
    claimed = "claimed",
    /// From the guest: for a port that is isolated from it.
    isolated = "isolated",
    /// From the guest: for an address behind the same port.
    local = "local",
    /// From the guest: no other port is there to take it.
    nowhere = "nowhere",
    /// For the guest: it had no buffer posted.
    no_buffer = "no-buffer",
    /// For the guest: longer than the buffers that a frame may fill.
    too_long = "too-long",
}

/// The counters of one port.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames from the guest, dropped ones among them.
    pub from_frames: Count,
    /// Their bytes, without virtio's header.
    pub from_bytes: Count,
    /// Frames in the guest's buffers.
    pub to_frames: Count,
    /// Their bytes, without virtio's header.
    pub to_bytes: Count,
    /// Frames from the guest that went to every port.
    pub flooded: Count,
    /// Frames from addresses for which the port had no room left in the table.
    pub unlearned: Count,
    /// What did not get on.
    pub drops: Drops,
}

impl Counters {
    /// One line of JSON. `name` holds letters, digits, `-`, `_` and `.` only.
    pub fn to_json(&self, name: &str) -> String {
        let drops: Vec<_> = self
            .drops
            .each()
            .iter()
            .map(|(word, count)| format!("\"{word}\":{count}"))
            .collect();
        format!(
            "{{\"port\":\"{name}\",\
             \"from-guest\":{{\"frames\":{},\"bytes\":{}}},\
             \"to-guest\":{{\"frames\":{},\"bytes\":{}}},\
             \"flooded\":{},\"unlearned\":{},\"dropped\":{{{}}}}}",
            self.from_frames.get(),
            self.from_bytes.get(),
            self.to_frames.get(),
            self.to_bytes.get(),
            self.flooded.get(),
            self.unlearned.get(),
            drops.join(","),
        )
    }
}

impl fmt::Display for Counters {
    /// In words; of drops and the like only those that were.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames ({} bytes) from the guest, {} frames ({} bytes) to it",
            self.from_frames.get(),
            self.from_bytes.get(),
            self.to_frames.get(),
            self.to_bytes.get(),
        )?;
        for (word, count) in [
            ("flooded", self.flooded.get()),
            ("unlearned", self.unlearned.get()),
        ] {
            if count != 0 {
                write!(f, "; {count} {word}")?;
            }
        }
        let mut drops = self.drops.each();
        drops.retain(|(_, count)| *count != 0);
        for (n, (word, count)) in drops.iter().enumerate() {
            let before = if n == 0 { "; dropped:" } else { "," };
            write!(f, "{before} {count} {word}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_in_words_and_in_json() {
        let counters = Counters::default();
        counters.from_frames.add(2);
        counters.from_bytes.add(120);
        counters.drops.no_buffer.add(3);
        counters.drops.claimed.add(1);
        let words = counters.to_string();
        assert!(words.starts_with("2 frames (120 bytes) from the guest, 0 frames"));
        assert!(
            words.ends_with("; dropped: 1 claimed, 3 no-buffer"),
            "{words}"
        );
        assert_eq!(
            counters.to_json("a"),
            "{\"port\":\"a\",\"from-guest\":{\"frames\":2,\"bytes\":120},\
             \"to-guest\":{\"frames\":0,\"bytes\":0},\"flooded\":0,\"unlearned\":0,\
             \"dropped\":{\"malformed\":0,\"claimed\":1,\"isolated\":0,\"local\":0,\
             \"nowhere\":0,\"no-buffer\":3,\"too-long\":0}}"
        );
    }
}
