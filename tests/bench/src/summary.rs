//! Many records as few rows: the median of each figure over the rounds, and how they compare.

use crate::case::Case;
use crate::figures::Figures;
use crate::record::Record;
use crate::stats::Interval;
use crate::table::{Table, percent, short};

/// One subject in one case.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done.
    pub case: Case,
    /// By whom.
    pub subject: String,
    /// The figures of each round, in order.
    pub rounds: Vec<Figures>,
    /// Requests a second.
    pub rate: Interval,
    /// How often the first subject does what this one does once, round by round; of the others only.
    pub ratio: Option<Interval>,
    /// The share of the machine that others took, in the median round.
    pub noise: f64,
}

impl Row {
    /// The median of a figure over the rounds.
    pub fn median(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        Some(Interval::of(self.rounds.iter().filter_map(figure))?.median)
    }
}

/// The subjects, in the order in which they first appear.
pub fn subjects(records: &[Record]) -> Vec<&str> {
    let mut names = Vec::new();
    for record in records {
        if !names.contains(&record.subject.as_str()) {
            names.push(&record.subject);
        }
    }
    names
}

/// A row for each subject in each case, cases in the order in which they first appear.
pub fn rows(records: &[Record]) -> Vec<Row> {
    let subjects = subjects(records);
    let mut cases: Vec<&Case> = Vec::new();
    for record in records {
        if !cases.contains(&&record.case) {
            cases.push(&record.case);
        }
    }
    let mut rows = Vec::new();
    for case in cases {
        let of = |subject: &str| -> Vec<&Record> {
            let mine = records.iter();
            mine.filter(|r| r.case == *case && r.subject == subject)
                .collect()
        };
        let first = subjects
            .first()
            .map(|subject| of(subject))
            .unwrap_or_default();
        for (n, subject) in subjects.iter().enumerate() {
            let records = of(subject);
            let Some(rate) = Interval::of(records.iter().map(|r| r.figures.rate)) else {
                continue;
            };
            let pairs = records.iter().filter_map(|record| {
                let first = first.iter().find(|first| first.round == record.round)?;
                (record.figures.rate > 0.0).then(|| first.figures.rate / record.figures.rate)
            });
            rows.push(Row {
                case: case.clone(),
                subject: (*subject).to_owned(),
                rate,
                ratio: if n == 0 { None } else { Interval::of(pairs) },
                noise: Interval::of(records.iter().map(|r| r.noise.sum()))
                    .map_or(0.0, |noise| noise.median),
                rounds: records
                    .into_iter()
                    .map(|record| record.figures.clone())
                    .collect(),
            });
        }
    }
    rows
}

/// The rows for people. Of one subject alone there is no ratio.
pub fn table(rows: &[Row]) -> Table {
    let compared = rows.iter().any(|row| row.ratio.is_some());
    let mut heading = vec![
        "case",
        "subject",
        "req/s",
        "rounds",
        "MB/s",
        "mean us",
        "p50",
        "p99",
        "driver us",
        "backend us",
        "kicks",
        "calls",
        "noise",
    ];
    let reference = rows
        .first()
        .map_or(String::new(), |row| format!("{} is", row.subject));
    if compared {
        heading.push(&reference);
    }
    let mut table = Table::new(2, heading);
    let mut last = None;
    for row in rows {
        let median =
            |figure: fn(&Figures) -> Option<f64>| row.median(figure).map_or("-".into(), short);
        let case = if last == Some(&row.case) {
            String::new()
        } else {
            row.case.to_string()
        };
        last = Some(&row.case);
        let lowest = row
            .rounds
            .iter()
            .map(|f| f.rate)
            .fold(f64::INFINITY, f64::min);
        let highest = row.rounds.iter().map(|f| f.rate).fold(0.0, f64::max);
        let mut cells = vec![
            case,
            row.subject.clone(),
            short(row.rate.median),
            format!("{}..{}", short(lowest), short(highest)),
            median(|f| Some(f.bandwidth / 1e6)),
            median(|f| Some(f.latency?.mean)),
            median(|f| Some(f.latency?.p50)),
            median(|f| Some(f.latency?.p99)),
            median(|f| f.driver_cpu),
            median(|f| f.backend_cpu),
            median(|f| Some(f.kicks)),
            median(|f| Some(f.calls)),
            percent(row.noise),
        ];
        if compared {
            cells.push(row.ratio.map_or(String::new(), |ratio| {
                format!(
                    "x{} [{}, {}]",
                    short(ratio.median),
                    short(ratio.low),
                    short(ratio.high)
                )
            }));
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::affinity::Affinity;
    use crate::case::{Path, Sweep};
    use crate::machine::{Machine, Noise};

    pub(crate) fn record(subject: &str, round: u32, rate: f64) -> Record {
        Record {
            subject: subject.into(),
            command: String::new(),
            round,
            at: 0,
            case: Sweep::default().cases(Path::Null).swap_remove(0),
            affinity: Affinity::default(),
            figures: Figures {
                seconds: 1.0,
                requests: 1,
                rate,
                bandwidth: 0.0,
                latency: None,
                driver_cpu: Some(0.0),
                backend_cpu: None,
                kicks: 0.0,
                calls: 0.0,
            },
            noise: Noise {
                others: 0.1,
                stolen: 0.0,
            },
            machine: Machine::here(),
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine was twice as slow in the second round: the ratio does not care.
        let records = [
            record("ours", 1, 300.0),
            record("theirs", 1, 100.0),
            record("theirs", 2, 50.0),
            record("ours", 2, 150.0),
        ];
        let rows = rows(&records);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].rate.median, rows[0].ratio), (225.0, None));
        let ratio = rows[1].ratio.unwrap();
        assert_eq!((ratio.median, ratio.low, ratio.high), (3.0, 3.0, 3.0));
        let lines = table(&rows).lines();
        assert!(
            lines[0].ends_with("ours is") && lines[2].ends_with("x3.00 [3.00, 3.00]"),
            "{lines:?}"
        );
    }
}
