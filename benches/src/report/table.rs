//! Tables in Markdown, aligned so that they read well in a terminal too, and figures with as many digits as they deserve.

use crate::stats::Summary;

/// Renders a table; all columns but the first are set to the right.
pub(super) fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(Vec::as_slice).chain([head]);
        let cells = cells.filter_map(|row| Some(row.get(column)?.chars().count()));
        cells.max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!(" {cell:<width$} |"),
            _ => format!(" {cell:>width$} |"),
        });
        format!("|{}\n", padded.collect::<String>())
    };
    let rule: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(column, &width)| if column == 0 { "-".repeat(width) } else { "-".repeat(width - 1) + ":" })
        .collect();
    line(head) + &line(&rule) + &rows.iter().map(|row| line(row)).collect::<String>()
}

/// Three digits at least, thousands set apart.
pub(super) fn figure(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1000.0 {
        let digits = format!("{value:.0}");
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
        let mut grouped = String::from(sign);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        return grouped;
    }
    let decimals = if magnitude >= 100.0 {
        0
    } else if magnitude >= 10.0 {
        1
    } else if magnitude >= 0.1 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

pub(super) fn spread(summary: Option<Summary>) -> String {
    summary.map_or_else(missing, |one| {
        format!("{} ({}–{})", figure(one.median), figure(one.min), figure(one.max))
    })
}

pub(super) fn median(summary: Option<Summary>) -> String {
    summary.map_or_else(missing, |one| figure(one.median))
}

pub(super) fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(missing, |ratio| format!("{ratio:.2}×"))
}

fn missing() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let cases = [
            (0.0, "0.000"),
            (0.0421, "0.042"),
            (0.5, "0.50"),
            (2.344, "2.34"),
            (42.04, "42.0"),
            (999.4, "999"),
            (1000.0, "1,000"),
            (39_482.6, "39,483"),
            (1_234_567.0, "1,234,567"),
            (-4_321.0, "-4,321"),
        ];
        for (value, want) in cases {
            assert_eq!(figure(value), want);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let got = table(&text(&["load", "x"]), &[text(&["a", "1.5×"]), text(&["a longer one", "10.25×"])]);
        let want = "| load         |      x |\n\
                    | ------------ | -----: |\n\
                    | a            |   1.5× |\n\
                    | a longer one | 10.25× |\n";
        assert_eq!(got, want);
    }
}
