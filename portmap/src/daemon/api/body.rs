//! Bodies of requests, read as Go reads them: keys in any case, unknown ones ignored, missing ones and `null` mean the
//! type's zero value.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::reply::Refusal;

/// No request that makes sense is larger.
const LIMIT: usize = 512 * 1024;
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One JSON object. Its keys are looked up in any case.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(Map<String, Value>);

type Result<T> = std::result::Result<T, Refusal>;

impl Fields {
    pub(super) fn text(&self, key: &str) -> Result<String> {
        match self.get(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(mismatch(key, other, "string")),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.maybe_flag(key)?.unwrap_or(false))
    }

    pub(super) fn maybe_flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(mismatch(key, other, "bool")),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<i64> {
        match self.get(key) {
            None => Ok(0),
            Some(value) => value.as_i64().ok_or_else(|| mismatch(key, value, "int")),
        }
    }

    /// An object whose keys mean something; an empty one if it is missing.
    pub(super) fn object(&self, key: &str) -> Result<Self> {
        match self.get(key) {
            None => Ok(Self::default()),
            Some(Value::Object(map)) => Ok(Self(map.clone())),
            Some(other) => Err(mismatch(key, other, "object")),
        }
    }

    pub(super) fn objects(&self, key: &str) -> Result<Vec<Self>> {
        let item = |value: &Value| match value {
            Value::Object(map) => Ok(Self(map.clone())),
            Value::Null => Ok(Self::default()),
            other => Err(mismatch(key, other, "object")),
        };
        self.list(key)?.iter().map(item).collect()
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>> {
        let item = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Null => Ok(String::new()),
            other => Err(mismatch(key, other, "string")),
        };
        self.list(key)?.iter().map(item).collect()
    }

    /// An object whose keys are the user's, and stay as they are.
    pub(super) fn map(&self, key: &str) -> Result<BTreeMap<String, String>> {
        let item = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            Value::Null => Ok((name.clone(), String::new())),
            other => Err(mismatch(key, other, "string")),
        };
        self.object(key)?.0.iter().map(item).collect()
    }

    /// The same with objects as values.
    pub(super) fn map_of_objects(&self, key: &str) -> Result<BTreeMap<String, Self>> {
        let item = |(name, value): (&String, &Value)| match value {
            Value::Object(map) => Ok((name.clone(), Self(map.clone()))),
            Value::Null => Ok((name.clone(), Self::default())),
            other => Err(mismatch(key, other, "object")),
        };
        self.object(key)?.0.iter().map(item).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn list(&self, key: &str) -> Result<&[Value]> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(mismatch(key, other, "array")),
        }
    }

    /// The exact key before one that differs by case; `null` is nothing.
    fn get(&self, key: &str) -> Option<&Value> {
        let exact = self.0.get(key);
        let value =
            exact.or_else(|| self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, v)| v));
        value.filter(|value| !value.is_null())
    }

    /// Reads one JSON object and nothing behind it.
    pub(super) fn parse(body: &[u8]) -> Result<Self> {
        let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
        let first = values.next().unwrap_or(Ok(Value::Null));
        let value = first.map_err(|error| Refusal::invalid(format!("invalid JSON: {error}")))?;
        if values.next().is_some() {
            return Err(Refusal::invalid("unexpected content after JSON"));
        }
        match value {
            Value::Object(map) => Ok(Self(map)),
            Value::Null => Ok(Self::default()),
            other => Err(Refusal::invalid(format!(
                "invalid JSON: cannot unmarshal {} into an object",
                kind(&other)
            ))),
        }
    }
}

impl<S: Sync> FromRequest<S> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let body = read(request).await?;
        if body.is_empty() {
            return Err(Refusal::invalid("invalid JSON: got EOF while reading request body"));
        }
        Self::parse(&body)
    }
}

async fn read(request: Request) -> Result<Bytes> {
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let body = timeout(PATIENCE, to_bytes(request.into_body(), LIMIT)).await.map_err(|_| {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("the request body took longer than {PATIENCE:?}"))
    })?;
    let body = body.map_err(|_| {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is larger than {LIMIT} bytes, or broke off"),
        )
    })?;
    if body.is_empty() {
        return Ok(body);
    }
    let given = content_type.as_ref().map_or("", |value| value.to_str().unwrap_or("?"));
    let bare = given.split(';').next().unwrap_or("").trim();
    if !bare.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::invalid(format!(
            "unsupported Content-Type header ({given}): must be 'application/json'"
        )));
    }
    Ok(body)
}

fn mismatch(key: &str, value: &Value, wanted: &str) -> Refusal {
    Refusal::invalid(format!("invalid JSON: cannot unmarshal {} into {key} of type {wanted}", kind(value)))
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_in_any_case_and_null_is_nothing() {
        let fields = Fields::parse(
            br#"{"name":"x","ENABLEIPV6":true,"Options":{"Key":"v","key":"w"},"IPAM":null,"Other":1} "#,
        )
        .unwrap();
        assert_eq!(fields.text("Name").unwrap(), "x");
        assert_eq!(fields.maybe_flag("EnableIPv6").unwrap(), Some(true));
        assert_eq!(fields.map("options").unwrap().len(), 2);
        assert!(fields.object("IPAM").unwrap().is_empty());
        assert_eq!(fields.texts("Missing").unwrap(), Vec::<String>::new());
        assert_eq!(
            fields.text("Other").unwrap_err().shown(),
            "400 invalid JSON: cannot unmarshal number into Other of type string"
        );
    }

    #[test]
    fn there_is_one_object_and_nothing_more() {
        assert_eq!(Fields::parse(b"{} {}").unwrap_err().shown(), "400 unexpected content after JSON");
        assert_eq!(Fields::parse(b"{}x").unwrap_err().shown(), "400 unexpected content after JSON");
        assert!(Fields::parse(b"{").unwrap_err().shown().starts_with("400 invalid JSON: "));
        assert!(Fields::parse(b"[]").is_err());
        assert!(Fields::parse(b"null").unwrap().is_empty());
    }
}
