//! Columns for people.

use super::style::{Paint, Style};

/// Rows of cells. The first is the head.
pub(super) struct Table {
    style: Style,
    rows: Vec<Vec<(Paint, String)>>,
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    pub(super) fn new<const N: usize>(style: Style, head: [&str; N]) -> Self {
        let head = head.iter().map(|cell| (Paint::Bold, (*cell).to_owned())).collect();
        Self { style, rows: vec![head] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [(Paint, String); N]) {
        self.rows.push(cells.into());
    }

    /// All of it, without a line end after the last row. No row ends with spaces.
    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |cell: &(Paint, String)| cell.1.chars().count();
        let widest =
            |column| self.rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(widest).collect();
        let line = |row: &Vec<(Paint, String)>| {
            let mut line = String::new();
            for (column, (paint, text)) in row.iter().enumerate() {
                line.push_str(&self.style.paint(*paint, text).to_string());
                if column + 1 < row.len() {
                    line.push_str(&" ".repeat(widths[column] - text.chars().count()));
                    line.push_str(GAP);
                }
            }
            line
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// A cell without colour.
pub(super) fn plain(text: impl ToString) -> (Paint, String) {
    (Paint::Plain, text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::args::Color;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(Style::of_stdout(Color::Never), ["A", "NAME", "B"]);
        table.row([plain("ümläut"), plain("x"), plain("last")]);
        assert_eq!(table.text(), "A       NAME  B\nümläut  x     last");
    }
}
