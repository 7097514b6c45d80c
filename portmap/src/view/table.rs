//! Lays out columns as Go's `text/tabwriter` does with Docker's settings: cells at least 10 wide, 3 spaces between them.
//!
//! A tab ends a cell; what follows the last tab of a line isn't part of a column. A column is a run of lines that have
//! a cell there, so a line without one ends the columns above it. Widths are Docker's: two for a wide East Asian
//! character, one for any other.

use unicode_width::UnicodeWidthChar;

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Replaces the tabs of `text`.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut writer = Writer { lines, widths: Vec::new(), out: String::with_capacity(text.len() * 2) };
    writer.block(0, writer.lines.len());
    writer.out
}

struct Writer<'a> {
    lines: Vec<Vec<&'a str>>,
    /// Of the columns around the block that is being laid out.
    widths: Vec<usize>,
    out: String,
}

impl Writer<'_> {
    /// Lays out lines whose columns left of `self.widths.len()` are settled.
    fn block(&mut self, first: usize, end: usize) {
        let column = self.widths.len();
        let has_cell = |lines: &[Vec<&str>], line: usize| column + 1 < lines[line].len();
        let mut start = first;
        while start < end {
            if !has_cell(&self.lines, start) {
                self.line(start);
                start += 1;
                continue;
            }
            let run = (start..end).take_while(|line| has_cell(&self.lines, *line)).count();
            let widest = self.lines[start..start + run].iter().map(|line| width(line[column])).max();
            self.widths.push(MIN_WIDTH.max(widest.unwrap_or(0) + PADDING));
            self.block(start, start + run);
            self.widths.pop();
            start += run;
        }
    }

    fn line(&mut self, line: usize) {
        for (column, cell) in self.lines[line].iter().enumerate() {
            self.out.push_str(cell);
            if let Some(wide) = self.widths.get(column) {
                self.out.extend(std::iter::repeat_n(' ', wide.saturating_sub(width(cell))));
            }
        }
        if line + 1 < self.lines.len() {
            self.out.push('\n');
        }
    }
}

fn width(cell: &str) -> usize {
    cell.chars().map(|c| if c.width() == Some(2) { 2 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_are_set_as_by_go() {
        let cases = [
            ("", ""),
            ("plain\n", "plain\n"),
            ("a\tb\n", "a         b\n"),
            ("a\tb\nlonger than ten\tc\n", "a                 b\nlonger than ten   c\n"),
            ("1234567\tx\n12345678\ty\n", "1234567    x\n12345678   y\n"),
            // Trailing cells stand outside of columns, empty ones in the middle have their width.
            ("a\t\tz\n", "a                   z\n"),
            ("a\t\n", "a         \n"),
            // A line without a cell ends the column.
            ("very long cell\tx\nnone\nshort\ty\n", "very long cell   x\nnone\nshort     y\n"),
            ("a\tb\tc\nvery long\tx\n", "a           b         c\nvery long   x\n"),
            ("ünï\tb\nabc\tb\n", "ünï       b\nabc       b\n"),
            ("名前\tb\nn2\tb\n", "名前      b\nn2        b\n"),
            ("a\tb", "a         b"),
        ];
        for (text, want) in cases {
            assert_eq!(align(text), want, "{text:?}");
        }
    }
}
