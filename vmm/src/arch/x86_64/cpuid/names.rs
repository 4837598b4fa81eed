//! Finding a feature by what a person wrote.

use super::features::all;

/// Other spellings, as QEMU takes them.
const ALIASES: [(&str, &str); 8] = [
    ("sse3", "pni"),
    ("sse4-1", "sse4.1"),
    ("sse4-2", "sse4.2"),
    ("i64", "lm"),
    ("xd", "nx"),
    ("ffxsr", "fxsr-opt"),
    ("kvm-clock", "kvmclock"),
    ("avx512vpopcntdq", "avx512-vpopcntdq"),
];

/// How many letters a near match may be off.
const NEAR: usize = 2;

/// The name as the table has it.
pub(super) fn known(written: &str) -> Option<&'static str> {
    let written = written.to_ascii_lowercase().replace('_', "-");
    let written = ALIASES
        .iter()
        .find(|(alias, _)| *alias == written)
        .map_or(&*written, |alias| alias.1);
    all().find(|name| *name == written)
}

/// Up to three names that look like what was written, the nearest first.
pub(super) fn near(written: &str) -> Vec<&'static str> {
    let written = written.to_ascii_lowercase().replace('_', "-");
    let mut near: Vec<_> = all()
        .map(|name| (distance(&written, name), name))
        .filter(|(distance, name)| *distance <= NEAR.min(name.len().saturating_sub(1)))
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().map(|(_, name)| name).take(3).collect()
}

/// How many letters must be put in, left out, changed or swapped with a neighbour to get from one
/// word to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let changed = rows[i][j] + usize::from(a != b);
            let mut best = changed.min(row[j] + 1).min(rows[i][j + 1] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_spelling() {
        assert_eq!(known("smap"), Some("smap"));
        assert_eq!(known("SSE4_1"), Some("sse4.1"));
        assert_eq!(known("tsc_deadline"), Some("tsc-deadline"));
        assert_eq!(known("smpa"), None);
        assert_eq!(known(""), None);
    }

    #[test]
    fn near_names_are_the_nearest() {
        assert_eq!(near("smpa").first(), Some(&"smap"));
        assert!(near("smaep").contains(&"smep"));
        assert_eq!(near("avx512g"), ["avx512f", "avx512bw", "avx512cd"]);
        assert!(near("completely-else").is_empty());
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
