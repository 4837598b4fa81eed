//! How kicks and interrupts fall with load, and that it costs no latency where there is none: the same backend
//! with `EVENT_IDX` and with flags, over the depth.

use crate::case::{Case, Switch};
use crate::summary::Row;
use crate::table::{Table, short};

/// One backend, and cases that differ in nothing but depth and `EVENT_IDX`.
#[derive(Debug)]
pub struct Family<'a> {
    /// The backend's name.
    pub subject: &'a str,
    /// One of the cases.
    pub case: &'a Case,
    /// With `EVENT_IDX`, by depth.
    pub on: Vec<&'a Row>,
    /// With flags, by depth.
    pub off: Vec<&'a Row>,
}

impl Family<'_> {
    /// Its name, as far as cases share it.
    pub fn title(&self) -> String {
        let case = Case {
            event_idx: Switch::On,
            ..self.case.clone()
        };
        let depth = format!(", depth {}", case.depth);
        format!("{}, {}", self.subject, case.to_string().replace(&depth, ""))
    }
}

/// The families that were measured both ways at several depths.
pub fn families(rows: &[Row]) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for row in rows {
        let alike = |family: &&mut Family<'_>| {
            family.subject == row.subject
                && row.case
                    == Case {
                        depth: row.case.depth,
                        event_idx: row.case.event_idx,
                        ..family.case.clone()
                    }
        };
        let at = families.iter_mut().find(alike);
        let family = match at {
            Some(family) => family,
            None => families.push_mut(Family {
                subject: &row.subject,
                case: &row.case,
                on: Vec::new(),
                off: Vec::new(),
            }),
        };
        match row.case.event_idx {
            Switch::On => family.on.push(row),
            Switch::Off => family.off.push(row),
        }
    }
    families.retain(|family| family.on.len() > 1 && family.off.len() > 1);
    for family in &mut families {
        family.on.sort_by_key(|row| row.case.depth);
        family.off.sort_by_key(|row| row.case.depth);
    }
    families
}

/// A line for each depth of each family.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(
        1,
        [
            "case",
            "depth",
            "kicks",
            "calls",
            "p50 us",
            "kicks by flags",
            "calls by flags",
            "p50 us by flags",
        ],
    );
    for family in families(rows) {
        let mut title = family.title();
        for row in &family.on {
            let depth = row.case.depth;
            let flags = family.off.iter().find(|row| row.case.depth == depth);
            let mut cells = vec![std::mem::take(&mut title), depth.to_string()];
            for row in [Some(row), flags] {
                cells.extend(figures(row.copied()));
            }
            table.row(cells);
        }
    }
    table
}

/// Kicks and calls a request, and the median latency.
fn figures(row: Option<&Row>) -> [String; 3] {
    let figure = |of: fn(&crate::figures::Figures) -> Option<f64>| {
        row.and_then(|row| row.median(of))
            .map_or_else(|| "-".to_owned(), short)
    };
    [
        figure(|f| Some(f.kicks)),
        figure(|f| Some(f.calls)),
        figure(|f| Some(f.latency?.p50)),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::figures::Latency;
    use crate::record::Record;
    use crate::summary;

    /// A backend that was measured both ways at three depths.
    pub(crate) fn records() -> Vec<Record> {
        let mut records = Vec::new();
        for (switch, kicks) in [(Switch::On, 0.1), (Switch::Off, 0.8)] {
            for depth in [1, 8, 64] {
                let mut record = summary::tests::record("ours", 1, 1000.0);
                record.case.depth = depth;
                record.case.event_idx = switch;
                record.figures.kicks = kicks / f64::from(depth);
                record.figures.latency = Some(Latency {
                    mean: 2.0,
                    p50: f64::from(depth),
                    p99: 3.0,
                    p999: 4.0,
                    max: 5.0,
                });
                records.push(record);
            }
        }
        records
    }

    #[test]
    fn both_ways_are_side_by_side_at_each_depth() {
        let mut records = records();
        let rows = summary::rows(&records);
        let lines = table(&rows).lines();
        assert_eq!(lines.len(), 4, "{lines:?}");
        let cells: Vec<_> = lines[2].split_whitespace().collect();
        assert_eq!(cells, ["8", "0.013", "0", "8.00", "0.100", "0", "8.00"]);
        assert!(lines[1].starts_with("ours, null "), "{lines:?}");
        // One way alone says nothing about the other.
        records.truncate(3);
        assert_eq!(table(&summary::rows(&records)).lines().len(), 1);
    }
}
