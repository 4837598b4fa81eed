//! Text tables, for a terminal and for Markdown.

/// Rows under a heading; names are aligned left, figures right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// How many columns are names.
    names: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this heading, whose first columns, so many, are names.
    pub fn new<S: Into<String>>(names: usize, heading: impl IntoIterator<Item = S>) -> Self {
        Self {
            names,
            rows: vec![heading.into_iter().map(Into::into).collect()],
        }
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The same without the columns of these headings.
    #[must_use]
    pub fn without(&self, headings: &[&str]) -> Self {
        let heading = self.rows.first().map(Vec::as_slice).unwrap_or_default();
        let keep: Vec<bool> = heading
            .iter()
            .map(|name| !headings.contains(&name.as_str()))
            .collect();
        let rows = self.rows.iter().map(|row| {
            let cells = row.iter().zip(&keep).filter(|(_, keep)| **keep);
            cells.map(|(cell, _)| cell.clone()).collect()
        });
        Self {
            names: self.names,
            rows: rows.collect(),
        }
    }

    /// The same without the columns in which nothing is known of anybody.
    #[must_use]
    pub fn known(&self) -> Self {
        let heading = self.rows.first().map(Vec::as_slice).unwrap_or_default();
        let unknown = heading.iter().enumerate().filter(|(n, _)| {
            let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(*n));
            cells.all(|cell| cell == "-")
        });
        let unknown: Vec<&str> = unknown.map(|(_, name)| name.as_str()).collect();
        self.without(&unknown)
    }

    /// All rows, the heading first.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// In columns, for a terminal: one line a row.
    pub fn lines(&self) -> Vec<String> {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells: Vec<_> = cells
                .map(|(n, (cell, width))| self.pad(cell, *width, n))
                .collect();
            cells.join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }

    /// In Markdown.
    pub fn markdown(&self) -> String {
        let widths = self.widths();
        let mut lines = Vec::new();
        for (n, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate();
            let cells: Vec<_> = cells
                .map(|(n, (cell, width))| self.pad(cell, *width, n))
                .collect();
            lines.push(cells);
            if n == 0 {
                let rule = widths.iter().enumerate();
                let rule = rule.map(|(n, width)| {
                    if n < self.names {
                        "-".repeat(*width)
                    } else {
                        "-".repeat(width - 1) + ":"
                    }
                });
                lines.push(rule.collect());
            }
        }
        let lines = lines
            .into_iter()
            .map(|cells| format!("| {} |\n", cells.join(" | ")));
        lines.collect::<Vec<_>>().concat()
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(n));
            cells.map(|cell| cell.chars().count()).max()
        };
        (0..columns).map(|n| width(n).unwrap_or(0).max(3)).collect()
    }

    fn pad(&self, cell: &str, width: usize, column: usize) -> String {
        if column < self.names {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    }
}

/// A number with three digits that count: 0.123, 1.23, 12.3, 123, 1.23k, 12.3M.
pub fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 999.5e6 => (value / 1e9, "G"),
        v if v >= 999.5e3 => (value / 1e6, "M"),
        v if v >= 999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        0.0 => 0,
        _ => 3,
    };
    format!("{value:.digits$}{unit}")
}

/// A share of the whole: `7%`.
pub fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.0123, "0.012"),
            (1.0, "1.00"),
            (12.34, "12.3"),
            (123.4, "123"),
            (999.9, "1.00k"),
            (4_900_000.0, "4.90M"),
            (6.26e9, "6.26G"),
            (99_960.0, "100k"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(1, ["case", "rate"]);
        table.row(["null, depth 1", "2.1M"]);
        assert_eq!(
            table.lines(),
            ["case           rate", "null, depth 1  2.1M"]
        );
        assert_eq!(table.without(&["rate"]).lines(), ["case", "null, depth 1"]);
        assert_eq!(table.known().lines(), table.lines());
        let mut none = Table::new(1, ["case", "rate", "cost"]);
        none.row(["null, depth 1", "2.1M", "-"]);
        assert_eq!(none.known().lines(), table.lines());
        let text = "| case          | rate |\n| ------------- | ---: |\n| null, depth 1 | 2.1M |\n";
        assert_eq!(table.markdown(), text);
    }
}
