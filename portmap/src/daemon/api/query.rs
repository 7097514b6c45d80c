//! What stands behind the question mark of a path.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::reply::Refusal;

/// The values of a query, by name. The first of a name counts, as in Go.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// One value; empty if it is missing.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// One that is given and not empty.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Docker's idea of true: anything but a few words.
    pub(super) fn flag(&self, name: &str) -> bool {
        let text = self.text(name).trim().to_lowercase();
        !matches!(text.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.given(name) else { return Ok(None) };
        let number = text.parse().map(Some);
        number.map_err(|_| Refusal::invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let pairs: Result<Query<Vec<(String, String)>>, QueryRejection> =
            Query::from_request_parts(parts, state).await;
        match pairs {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(error) => Err(Refusal::invalid(error.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_what_docker_takes_for_false() {
        let params = |value: &str| Params(vec![("x".to_owned(), value.to_owned())]);
        for value in ["", "0", "no", "False", " none "] {
            assert!(!params(value).flag("x"), "{value:?}");
        }
        for value in ["1", "true", "yes", "2"] {
            assert!(params(value).flag("x"), "{value:?}");
        }
        assert!(!params("1").flag("y"));
        assert_eq!(params("7").number("x").unwrap(), Some(7));
        assert_eq!(params("").number("x").unwrap(), None);
        assert!(params("x").number("x").is_err());
    }
}
