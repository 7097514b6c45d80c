//! How commands show things: lists as tables, JSON or text of a Go template, single objects as JSON or by a template.
//!
//! | what | where |
//! |---|---|
//! | `--format` of lists, rows and headers | [`mod@format`] |
//! | `--format` of `inspect` | [`inspect`] |
//! | Go templates with Docker's functions | [`template`] |
//! | columns, as Go's tab writer sets them | [`table`] |
//! | Docker's words for ages, Go's for times | [`time`] |
//! | the order of names | [`natural`] |
//!
//! Everything here is pure: values in, text out. Fetching and printing are the commands' work.

pub(crate) mod format;
pub(crate) mod inspect;
pub(crate) mod json;
pub(crate) mod natural;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod time;

/// The first 12 characters of an id, or all of it.
pub(crate) fn id(full: &str, no_trunc: bool) -> &str {
    const SHORT: usize = 12;
    if no_trunc { full } else { full.char_indices().nth(SHORT).map_or(full, |(end, _)| &full[..end]) }
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn ids_are_shortened_unless_told_otherwise() {
        let full = "0123456789abcdef";
        assert_eq!(
            [id(full, false), id(full, true), id("012", false), id("äöüäöüäöüäöüX", false)],
            ["0123456789ab", full, "012", "äöüäöüäöüäöü"]
        );
    }
}
