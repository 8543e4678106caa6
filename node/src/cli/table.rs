//! Aligned tables, made to fit the terminal they are shown on.

use console::measure_text_width as width;

use super::text;

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// What stands between two columns.
const GAP: &str = "  ";
/// Text is not cut shorter than this to make a table fit.
const TEXT_MIN: usize = 8;

/// Rows under a heading, each column as wide as its longest cell.
pub struct Table {
    heads: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    optional: Vec<&'static str>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(heads: &[(&'static str, Align)]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
            optional: Vec::new(),
        }
    }

    /// Columns to leave out where there is no room, the first one first.
    pub fn optional(mut self, names: &[&'static str]) -> Self {
        self.optional = names.to_vec();
        self
    }

    /// Adds a row with one cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.heads.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// The table as lines, each indented by `indent` spaces. With `columns`, the width of a
    /// terminal, optional columns are left out and then texts are shortened until it fits.
    pub fn render(&self, indent: usize, columns: Option<usize>) -> String {
        let mut widths: Vec<usize> = self.heads.iter().map(|(head, _)| width(head)).collect();
        for row in &self.rows {
            for (max, cell) in widths.iter_mut().zip(row) {
                *max = (*max).max(width(cell));
            }
        }
        let shown = self.fit(
            &mut widths,
            columns.map(|columns| columns - indent.min(columns)),
        );
        let heads: Vec<String> = self
            .heads
            .iter()
            .map(|(head, _)| (*head).to_owned())
            .collect();
        let mut lines = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = " ".repeat(indent);
            for &index in &shown {
                let cell = text::shortened(&row[index], widths[index]);
                let gap = " ".repeat(widths[index].saturating_sub(width(&cell)));
                match self.heads[index].1 {
                    Align::Left => line.extend([cell.as_str(), &gap]),
                    Align::Right => line.extend([gap.as_str(), &cell]),
                }
                line.push_str(GAP);
            }
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        lines
    }

    /// The columns that are shown; narrows `widths` where that is not enough.
    fn fit(&self, widths: &mut [usize], columns: Option<usize>) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..self.heads.len()).collect();
        let Some(columns) = columns else { return shown };
        let total = |shown: &[usize], widths: &[usize]| {
            let cells: usize = shown.iter().map(|&index| widths[index]).sum();
            cells + GAP.len() * shown.len().saturating_sub(1)
        };
        for name in &self.optional {
            if total(&shown, widths) <= columns {
                break;
            }
            shown.retain(|&index| self.heads[index].0 != *name);
        }
        let texts = shown
            .iter()
            .filter(|&&index| self.heads[index].1 == Align::Left);
        if let Some(&widest) = texts.max_by_key(|&&index| widths[index]) {
            let excess = total(&shown, widths).saturating_sub(columns);
            let narrowed = widths[widest].saturating_sub(excess).max(TEXT_MIN);
            widths[widest] = widths[widest].min(narrowed);
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            ("DEVICE", Align::Left),
            ("KIND", Align::Left),
            ("TILES", Align::Right),
        ])
        .optional(&["KIND"]);
        table.row(vec!["Küche".to_owned(), "node".to_owned(), "7".to_owned()]);
        table.row(vec![
            "厨房 📱 of Ada".to_owned(),
            "browser".to_owned(),
            "1,234,567".to_owned(),
        ]);
        table
    }

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        assert_eq!(
            table().render(2, None),
            "  DEVICE          KIND         TILES\n\
             \u{20} Küche           node             7\n\
             \u{20} 厨房 📱 of Ada  browser  1,234,567\n"
        );
    }

    #[test]
    fn a_narrow_terminal_loses_columns_and_then_the_ends_of_names() {
        assert_eq!(table().render(2, Some(36)), table().render(2, None));
        assert_eq!(
            table().render(0, Some(30)),
            "DEVICE              TILES\nKüche                   7\n厨房 📱 of Ada  1,234,567\n"
        );
        assert_eq!(
            table().render(0, Some(20)),
            "DEVICE         TILES\nKüche              7\n厨房 📱 …  1,234,567\n"
        );
    }
}
