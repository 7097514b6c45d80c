//! The report as text: Markdown for a README, and the same a little denser for a terminal. Medians only; the spread is
//! in the HTML report, every single figure in the JSON report.

use super::sections::{Cell, Section, introduction, participants, sections};
use super::table::{plain, table};
use crate::rounds::Results;

pub(crate) fn markdown(results: &Results) -> String {
    text(results, table)
}

/// Not as wide: names of contenders have two lines.
pub(crate) fn terminal(results: &Results) -> String {
    text(results, plain)
}

fn text(results: &Results, table: fn(&[String], &[Vec<String>]) -> String) -> String {
    let mut text = format!("# Benchmark of {} UTC\n\n{}\n\n", results.machine.date, introduction(results));
    for (name, description) in participants(results) {
        text += &format!("- {name}: {description}\n");
    }
    for Section { title, note, head, rows } in sections(results) {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(Cell::brief).collect()).collect();
        text += &format!("\n## {title}\n\n{}", table(&head, &rows));
        if let Some(note) = note {
            text += &format!("\n{note}\n");
        }
    }
    let failures: String = results.failures().map(|failure| format!("- {failure}\n")).collect();
    if !failures.is_empty() {
        text += &format!("\n## Failed measurements\n\n{failures}");
    }
    text
}
