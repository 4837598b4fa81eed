//! Which of two kernel releases is the newer, by their names: `6.1.0-9-amd64` before `6.1.0-10-amd64`.

use std::cmp::Ordering;

/// A run of digits, or a run of anything else.
fn split(release: &str) -> (&str, bool, &str) {
    let digits = release.starts_with(|c: char| c.is_ascii_digit());
    let end = release
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(release.len());
    let (run, rest) = release.split_at(end);
    (run, digits, rest)
}

/// A run that makes what it stands in older than what lacks it.
fn is_before_release(rest: &str) -> bool {
    rest.starts_with('~') || rest.starts_with("-rc") || rest.starts_with("_rc")
}

/// Compares numbers as numbers and everything else as text; `-rc1` and `~` come before nothing at all.
pub(super) fn compare(mut left: &str, mut right: &str) -> Ordering {
    loop {
        match (is_before_release(left), is_before_release(right)) {
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            _ => {}
        }
        if left.is_empty() || right.is_empty() {
            return left.len().cmp(&right.len());
        }
        let (left_run, left_digits, left_rest) = split(left);
        let (right_run, right_digits, right_rest) = split(right);
        let order = if left_digits && right_digits {
            // However long: without leading zeroes the longer number is the greater.
            let (a, b) = (
                left_run.trim_start_matches('0'),
                right_run.trim_start_matches('0'),
            );
            a.len().cmp(&b.len()).then(a.cmp(b))
        } else {
            left_run.cmp(right_run)
        };
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_as_people_read_them() {
        let ascending = [
            "4.19.0-27-amd64",
            "5.10.0-rc3-amd64",
            "5.10.0-1-amd64",
            "6.1.0-9-amd64",
            "6.1.0-10-amd64",
            "6.1.0-10-amd64-dbg",
            "6.12.5-200.fc41.x86_64",
            "6.13.0~rc1",
            "6.13.0",
            "20991231999999999999999999999.1",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
            assert_eq!(compare(pair[0], pair[0]), Ordering::Equal);
        }
    }
}
