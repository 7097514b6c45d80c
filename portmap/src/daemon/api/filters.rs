//! `filters=`: which objects of a list are wanted.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::Value;

use super::Result;
use super::query::Params;
use super::reply::Refusal;

/// Values by key. Different keys are ANDed; values of one key are ORed, but for labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads `filters=`, in today's form or the one of old clients; other keys than `known` are refused.
    pub(super) fn of(params: &Params, known: &[&str]) -> Result<Self> {
        let Some(text) = params.given("filters") else { return Ok(Self::default()) };
        let filters = Self::parse(text).ok_or_else(|| Refusal::invalid("invalid filter"))?;
        match filters.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Refusal::invalid(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let Ok(Value::Object(keys)) = serde_json::from_str(text) else { return None };
        let values = |value: Value| match value {
            Value::Object(values) => values
                .into_iter()
                .filter_map(|(text, on)| match on {
                    Value::Bool(true) => Some(Some(text)),
                    Value::Bool(false) => None,
                    _ => Some(None),
                })
                .collect::<Option<BTreeSet<String>>>(),
            Value::Array(values) => {
                values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        keys.into_iter().map(|(key, value)| Some((key, values(value)?))).collect::<Option<_>>().map(Self)
    }

    /// The values of a key.
    pub(super) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether a key is asked for.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values(key).next().is_some()
    }

    /// Whether `accepts` takes one of the key's values, or there are none.
    pub(super) fn any(&self, key: &str, accepts: impl FnMut(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(accepts)
    }

    /// Whether the key's values include `value`, or there are none.
    pub(super) fn exact(&self, key: &str, value: &str) -> bool {
        self.any(key, |wanted| wanted == value)
    }

    /// Whether `value` is one of the key's values or has one in it, as a regular expression, or there are none.
    pub(super) fn matches(&self, key: &str, value: &str) -> bool {
        self.any(key, |wanted| {
            wanted == value || Regex::new(wanted).is_ok_and(|wanted| wanted.is_match(value))
        })
    }

    /// Whether all the labels are there: `key`, or `key=value`.
    pub(super) fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|label| label == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The only value of a key.
    pub(super) fn only(&self, key: &str, several: &str) -> Result<Option<&str>> {
        let mut values = self.values(key);
        let first = values.next();
        if values.next().is_some() { Err(Refusal::invalid(several)) } else { Ok(first) }
    }

    /// A boolean that can't be both.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.only(key, &format!("got more than one value for filter key \"{key}\""))? {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(_) => Err(Refusal::invalid(format!(
                "invalid value for filter '{key}', must be \"true\" (or \"1\"), or \"false\" (or \"0\")"
            ))),
        }
    }

    #[cfg(test)]
    pub(super) fn for_test(text: &str) -> Self {
        Self::parse(text).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        let new = Filters::parse(r#"{"driver":{"bridge":true,"overlay":true},"label":{"x":false}}"#).unwrap();
        let old = Filters::parse(r#"{"driver":["overlay","bridge"],"label":[]}"#).unwrap();
        assert_eq!(new.values("driver").collect::<Vec<_>>(), old.values("driver").collect::<Vec<_>>());
        assert!(!new.has("label") && !old.has("label"));
        for bad in ["", "x", "[]", r#"{"a":1}"#, r#"{"a":{"b":1}}"#, r#"{"a":[1]}"#] {
            assert!(Filters::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn names_match_as_expressions_and_labels_all_together() {
        let filters =
            Filters::for_test(r#"{"name":["^ab"],"label":["a=1","b"],"dangling":["1"],"id":["("]}"#);
        assert!(filters.matches("name", "abc") && !filters.matches("name", "cab"));
        assert!(filters.matches("other", "x"));
        assert!(filters.matches("id", "(") && !filters.matches("id", "x"));
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert!(filters.labels("label", &labels(&[("a", "1"), ("b", "")])));
        assert!(!filters.labels("label", &labels(&[("a", "1")])));
        assert!(!filters.labels("label", &labels(&[("a", "2"), ("b", "")])));
        assert_eq!(filters.flag("dangling").unwrap(), Some(true));
    }

    #[test]
    fn booleans_are_given_once() {
        let both = Filters::for_test(r#"{"dangling":["1","0"]}"#);
        assert_eq!(
            both.flag("dangling").unwrap_err().shown(),
            "400 got more than one value for filter key \"dangling\""
        );
        let odd = Filters::for_test(r#"{"dangling":["yes"]}"#);
        assert_eq!(
            odd.flag("dangling").unwrap_err().shown(),
            "400 invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")"
        );
    }
}
