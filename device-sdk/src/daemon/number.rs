//! Numbers on a command line.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A parser for clap: a whole number of this range. Whoever writes anything else is told the range.
pub fn number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok();
        let number = number.filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            format!("write a whole number from {least} to {most}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_of_the_range_is_told_the_range() {
        let queues = number(1..=64u16);
        assert_eq!((queues("1"), queues("64")), (Ok(1), Ok(64)));
        for text in ["0", "65", "65536", "-1", "many", "1.5", ""] {
            let why = queues(text).unwrap_err();
            assert_eq!(why, "write a whole number from 1 to 64", "{text}");
        }
    }
}
