//! Values of flags, read as Docker's command line reads them and refused in its words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{BAD_FLAG, Failure};
use crate::client::encode;

/// `invalid argument "x" for "--flag" flag: why`.
pub(super) fn bad_value(flag: &str, value: &str, why: &str) -> Failure {
    Failure { status: BAD_FLAG, text: format!("invalid argument {value:?} for {flag:?} flag: {why}") }
}

/// A boolean as Go reads it, for flags that can be given as `--flag=false`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// `key=value` entries; without `=` the value is empty. The last of equal keys counts.
pub(super) fn map(entries: &[String]) -> BTreeMap<String, String> {
    let parts = entries.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    parts.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Filters by key. Several of a key stay together: what that means is the daemon's matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(pub(super) BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads `key=value` arguments; an empty one says nothing.
    pub(super) fn parse(flag: &str, filters: &[String]) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        for filter in filters.iter().filter(|filter| !filter.is_empty()) {
            let Some((key, value)) = filter.split_once('=') else {
                return Err(bad_value(flag, filter, "bad format of filter (expected name=value)"));
            };
            parsed.0.entry(key.trim().to_lowercase()).or_default().insert(value.trim().to_owned());
        }
        Ok(parsed)
    }

    /// As part of a path: nothing, or `?filters=…`.
    pub(super) fn query(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let keys = self.0.iter().map(|(key, values)| {
            let values = values.iter().map(|value| (value.clone(), Value::Bool(true)));
            (key.clone(), Value::Object(values.collect()))
        });
        format!("?filters={}", encode(&Value::Object(keys.collect()).to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(list: &[&str]) -> Result<String, String> {
        let list: Vec<String> = list.iter().map(|filter| (*filter).to_owned()).collect();
        Filters::parse("-f, --filter", &list)
            .map(|filters| filters.query())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn filters_become_a_query() {
        assert_eq!(filters(&[]).unwrap(), "");
        assert_eq!(filters(&[""]).unwrap(), "");
        assert_eq!(filters(&[" NaMe = x "]).unwrap(), "?filters=%7B%22name%22%3A%7B%22x%22%3Atrue%7D%7D");
        assert_eq!(
            filters(&["label=a=b", "label=c", "id=1"]).unwrap(),
            format!("?filters={}", encode(r#"{"id":{"1":true},"label":{"a=b":true,"c":true}}"#))
        );
        assert_eq!(
            filters(&["foo"]).unwrap_err(),
            r#"invalid argument "foo" for "-f, --filter" flag: bad format of filter (expected name=value)"#
        );
    }

    #[test]
    fn booleans_and_maps_are_read_as_go_reads_them() {
        assert_eq!(
            ["1", "T", "True", "false", "F"].map(|text| boolean(text).unwrap()),
            [true, true, true, false, false]
        );
        assert_eq!(boolean("yes").unwrap_err(), "strconv.ParseBool: parsing \"yes\": invalid syntax");
        let entries = ["a=b=c", "d", "a=2", "e="].map(str::to_owned);
        let want = [("a", "2"), ("d", ""), ("e", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(map(&entries), BTreeMap::from(want));
    }
}
