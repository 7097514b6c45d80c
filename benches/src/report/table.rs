//! Tables in Markdown, aligned so that they read well in a terminal too, and figures with as many digits as they deserve.

use crate::stats::Summary;

/// Renders a table; all columns but the first are set to the right.
pub(crate) fn table(head: &[String], rows: &[Vec<String>]) -> String {
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

/// The same without Markdown's lines, and with two lines for a name that has a hyphen: for a terminal.
pub(super) fn plain(head: &[String], rows: &[Vec<String>]) -> String {
    let (upper, lower): (Vec<String>, Vec<String>) = head.iter().map(|name| two_lines(name)).unzip();
    let all = [&upper, &lower].into_iter().chain(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = all.clone().filter_map(|row| Some(row.get(column)?.chars().count()));
            cells.max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in all.filter(|row| row.iter().any(|cell| !cell.is_empty())) {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            line += &if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn two_lines(name: &str) -> (String, String) {
    match name.split_once('-') {
        Some((upper, lower)) => (format!("{upper}-"), lower.to_owned()),
        None => (String::new(), name.to_owned()),
    }
}

/// Three digits at least, thousands set apart; nothing is just nothing.
pub(super) fn figure(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 {
        return "0".to_owned();
    }
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

/// From the lowest to the highest; none if all are the same.
pub(super) fn spread(summary: Summary) -> Option<String> {
    (summary.max > summary.min).then(|| format!("{}–{}", figure(summary.min), figure(summary.max)))
}

pub(super) fn median(summary: Option<Summary>) -> String {
    summary.map_or_else(missing, |one| figure(one.median))
}

pub(super) fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(missing, |ratio| format!("{ratio:.2}"))
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
            (0.0, "0"),
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
    fn long_names_have_two_lines_in_a_terminal() {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let got = plain(&text(&["", "direct", "docker-proxy"]), &[text(&["upload", "10.25", "–"])]);
        let want = "                docker-\n        direct    proxy\nupload   10.25        –\n";
        assert_eq!(got, want);
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
