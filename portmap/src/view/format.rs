//! `--format` of commands that list: `table …`, `json`, `raw`, or a template per line.
//!
//! A command describes its columns once ([`Listing`]) and gives each row's values by field names ([`Row`]). A table's
//! header line is the same template over the columns' headers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gotmpl::Value;

use super::table;
use super::template::{BadTemplate, Functions, Template, map, method};

/// What can be listed.
pub(crate) struct Listing {
    /// What the rows are, in errors.
    pub(crate) what: &'static str,
    /// Field names and headers.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// Without a format, and for the word `table`.
    pub(crate) table: &'static str,
    /// With `--quiet`, unless a format says otherwise.
    pub(crate) quiet: &'static str,
    /// For the word `raw`.
    pub(crate) raw: &'static str,
    /// The same with `--quiet`.
    pub(crate) raw_quiet: &'static str,
}

/// The values of a row, one for each column.
pub(crate) struct Row {
    pub(crate) values: Vec<String>,
    /// For `{{.Label "key"}}`.
    pub(crate) labels: BTreeMap<String, String>,
}

/// How a list is to be printed.
pub(crate) struct Format {
    table: bool,
    template: Template,
}

impl Format {
    /// What `--format` and `--quiet` mean for this list.
    pub(crate) fn new(format: Option<&str>, quiet: bool, listing: &Listing) -> Result<Self, BadTemplate> {
        const TABLE: &str = "table";
        let format = format.filter(|format| !format.is_empty()).unwrap_or(TABLE);
        let (table, text) = match (format, quiet) {
            (TABLE, true) => (false, listing.quiet),
            (TABLE, false) => (true, listing.table),
            ("raw", true) => (false, listing.raw_quiet),
            ("raw", false) => (false, listing.raw),
            ("json", _) => (false, "{{json .}}"),
            (other, _) => other.strip_prefix(TABLE).map_or((false, other), |columns| (true, columns)),
        };
        let text = text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        Ok(Self { table, template: Template::parse(&text)? })
    }

    /// The text of a list.
    pub(crate) fn render(&self, listing: &Listing, rows: &[Row]) -> Result<String, BadTemplate> {
        let explain = |error: BadTemplate| error.instead(listing.what, fields(listing));
        let mut out = String::new();
        if self.table {
            match self.template.with(&Functions::Headers).render(&headers(listing)) {
                Ok(header) => out.push_str(&header),
                Err(error) if error.is_missing_field() => return Err(explain(error)),
                // What works on values need not work on headers: they then have none, as in Docker.
                Err(_) => {}
            }
            out.push('\n');
        }
        let line = self.template.with(&Functions::Data(Arc::new(HashMap::new())));
        for row in rows {
            out.push_str(&line.render(&values(listing, row, self.table)).map_err(explain)?);
            out.push('\n');
        }
        Ok(if self.table { table::align(&out) } else { out })
    }
}

fn headers(listing: &Listing) -> Value {
    let columns = listing.columns.iter().map(|(field, header)| (*field, Value::String((*header).into())));
    map(columns.chain([(LABEL, method(label_header))]))
}

fn values(listing: &Listing, row: &Row, table: bool) -> Value {
    debug_assert_eq!(listing.columns.len(), row.values.len(), "a value for each column");
    let cell = move |text: &str| if table { one_cell(text) } else { text.to_owned() };
    let values =
        fields(listing).zip(&row.values).map(|(field, value)| (field, Value::String(cell(value).into())));
    let labels = row.labels.clone();
    let label = method(move |key| labels.get(key).map_or_else(String::new, |value| cell(value)));
    map(values.chain([(LABEL, label)]))
}

fn fields(listing: &Listing) -> impl Iterator<Item = &'static str> {
    listing.columns.iter().map(|(field, _)| *field)
}

/// The method that reads one label.
const LABEL: &str = "Label";

/// The header of a label's column: the last part of its key, as words.
fn label_header(key: &str) -> String {
    key.rsplit('.').next().unwrap_or(key).replace(['-', '_'], " ")
}

/// Values come from outside: one with a tab, a line feed or a terminal's commands would undo the table.
fn one_cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { cell.extend(c.escape_default()) } else { cell.push(c) }
    }
    cell
}

#[cfg(test)]
#[path = "format/tests.rs"]
mod tests;
