//! What is on a terminal's screen after all that was written to it: as much of a terminal as
//! `outboard top` uses.
#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)] // a test fails by panicking

/// A screen of characters.
pub struct Grid {
    rows: usize,
    columns: usize,
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    /// Written to the other screen, which programs take to leave the first one as it was.
    pub other: bool,
    /// The cursor is seen.
    pub cursor: bool,
}

impl Grid {
    /// An empty one.
    pub fn new(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            cells: vec![vec![' '; columns]; rows],
            at: (0, 0),
            other: false,
            cursor: true,
        }
    }

    /// After `text`.
    pub fn after(rows: usize, columns: usize, text: &str) -> Self {
        let mut grid = Self::new(rows, columns);
        grid.write(text);
        grid
    }

    /// Writes text with its escape sequences; fails on those that it does not know.
    pub fn write(&mut self, text: &str) {
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['), "an escape sequence that is none");
                    let mut sequence = String::new();
                    let last = loop {
                        // Cut off: the rest is still to come.
                        let Some(next) = rest.next() else { return };
                        if next.is_ascii_alphabetic() {
                            break next;
                        }
                        sequence.push(next);
                    };
                    self.sequence(&sequence, last);
                }
                '\r' => self.at.1 = 0,
                '\n' => self.at.0 += 1,
                character => {
                    let (row, column) = self.at;
                    // What was written before the terminal became smaller is gone.
                    if let Some(cell) = self.cells.get_mut(row).and_then(|r| r.get_mut(column)) {
                        *cell = character;
                    }
                    self.at.1 += 1;
                }
            }
        }
    }

    fn sequence(&mut self, sequence: &str, last: char) {
        match (sequence, last) {
            ("?1049", 'h') => self.other = true,
            ("?1049", 'l') => self.other = false,
            ("?25", 'h') => self.cursor = true,
            ("?25", 'l') => self.cursor = false,
            // Colours and the like.
            (_, 'm') => {}
            ("2", 'J') => self.cells = vec![vec![' '; self.columns]; self.rows],
            (place, 'H') => {
                let mut numbers = place.split(';').map(|n| n.parse().unwrap_or(1));
                let mut next = || numbers.next().unwrap_or(1_usize).saturating_sub(1);
                self.at = (next(), next());
            }
            sequence => panic!("an escape sequence that is not known: {sequence:?}"),
        }
    }

    /// Its rows, without the blanks at their ends.
    pub fn rows(&self) -> Vec<String> {
        let rows = self.cells.iter();
        let text = rows.map(|row| row.iter().collect::<String>().trim_end().to_owned());
        text.collect()
    }

    /// Whether a row has this in it.
    pub fn shows(&self, text: &str) -> bool {
        self.rows().iter().any(|row| row.contains(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_where_it_was_put() {
        let grid = Grid::after(
            3,
            10,
            "\x1b[?1049h\x1b[2J\x1b[2;3Hab\x1b[1mc\x1b[0m\r\n-\x1b[?25l",
        );
        assert_eq!(grid.rows(), ["", "  abc", "-"]);
        assert!(grid.other && !grid.cursor && grid.shows("abc"));
        let grid = Grid::after(3, 10, "gone\x1b[2J\x1b[Hx\x1b[9;99Hbeyond\x1b[");
        assert_eq!(grid.rows(), ["x", "", ""]);
    }
}
