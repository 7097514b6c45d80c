//! What `inspect` prints of objects: their JSON, or the text of a template for each.
//!
//! JSON stays as the daemon sent it, members in its order. A template first sees the object as Docker's Go types have it
//! ([`Types`]): other names for some members, and empty ones where the JSON leaves them out. If that fails it sees the
//! JSON as it is.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use gotmpl::Value;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::json::{compact, indented, quoted};
use super::template::{BadTemplate, Document, Template, address};
use super::time;

/// How Go's types of an object differ from its JSON. Paths are member names with dots, `*` for a list's elements and a
/// map's values; the object itself is the empty path.
pub(crate) struct Types {
    /// Members with other names: path, JSON name, Go name.
    pub(crate) renamed: &'static [(&'static str, &'static str, &'static str)],
    /// Members that the JSON leaves out, or has as null, when they are empty: path, Go name.
    pub(crate) left_out: &'static [(&'static str, &'static str, Empty)],
    /// Paths of times, which Go prints in its own way.
    pub(crate) times: &'static [&'static str],
}

/// An empty value.
#[derive(Clone, Copy)]
pub(crate) enum Empty {
    Text,
    List,
    Map,
}

const AS_IT_IS: Types = Types { renamed: &[], left_out: &[], times: &[] };

/// The output of one `inspect`.
pub(crate) struct Inspector {
    form: Form,
    objects: Vec<String>,
}

enum Form {
    Indented,
    Compact,
    Template(Template),
}

impl Inspector {
    /// What `--format` means here. Escapes stay as typed.
    pub(crate) fn new(format: Option<&str>) -> Result<Self, BadTemplate> {
        let form = match format {
            None | Some("") => Form::Indented,
            Some("json") => Form::Compact,
            Some(text) => Form::Template(Template::parse(text)?),
        };
        Ok(Self { form, objects: Vec::new() })
    }

    /// Adds an object, given as JSON.
    pub(crate) fn add(&mut self, raw: &str, types: &'static Types) -> Result<(), AddError> {
        let text = match &self.form {
            Form::Indented | Form::Compact => raw.trim().to_owned(),
            Form::Template(template) => match template.render(&document(raw, types)?) {
                Ok(text) => text,
                Err(_) => template.render(&document(raw, &AS_IT_IS)?)?,
            },
        };
        self.objects.push(text);
        Ok(())
    }

    /// Everything that was added; also nothing has its form.
    pub(crate) fn finish(&self) -> String {
        let lines = |text: &str| format!("{text}\n");
        match &self.form {
            Form::Indented => lines(&indented(&format!("[{}]", self.objects.join(",")), "    ")),
            Form::Compact => lines(&compact(&format!("[{}]", self.objects.join(",")))),
            Form::Template(_) if self.objects.is_empty() => lines(""),
            Form::Template(_) => self.objects.iter().map(|text| lines(text)).collect(),
        }
    }
}

/// Why an object can't be shown.
#[derive(Debug)]
pub(crate) enum AddError {
    Template(BadTemplate),
    Json(serde_json::Error),
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(error) => error.fmt(f),
            Self::Json(error) => write!(f, "the daemon's answer is not JSON: {error}"),
        }
    }
}

impl std::error::Error for AddError {}

impl From<BadTemplate> for AddError {
    fn from(error: BadTemplate) -> Self {
        Self::Template(error)
    }
}

impl From<serde_json::Error> for AddError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// An object's JSON as a template sees it.
fn document(raw: &str, types: &'static Types) -> Result<Document, serde_json::Error> {
    let mut texts = HashMap::new();
    let mut deserializer = serde_json::Deserializer::from_str(raw);
    let part = Part { types, path: String::new(), texts: &mut texts };
    let (root, _) = part.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Document { root, texts: Arc::new(texts) })
}

/// Makes a value, and its text, of a part of the JSON.
struct Part<'a> {
    types: &'static Types,
    path: String,
    texts: &'a mut HashMap<usize, String>,
}

impl Part<'_> {
    fn inner(&mut self, member: &str) -> Part<'_> {
        let path = if self.path.is_empty() { member.to_owned() } else { format!("{}.{member}", self.path) };
        Part { types: self.types, path, texts: self.texts }
    }

    /// Whether a path of [`Types`] is this one.
    fn is(&self, path: &str) -> bool {
        self.path == path
            || (self.path.split('.').count() == path.split('.').count()
                && self.path.split('.').zip(path.split('.')).all(|(have, want)| want == "*" || have == want))
    }

    fn remember(self, value: Value, text: String) -> (Value, String) {
        if let Some(address) = address(&value) {
            self.texts.insert(address, text.clone());
        }
        (value, text)
    }

    fn go_name<'a>(&self, json_name: &'a str) -> &'a str {
        let mut renamed = self.types.renamed.iter();
        renamed.find(|(path, from, _)| *from == json_name && self.is(path)).map_or(json_name, |(.., to)| to)
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = (Value, String);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = (Value, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok((Value::Nil, "null".to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok((Value::Bool(value), value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok((Value::Int(value), value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok((i64::try_from(value).map_or(Value::Uint(value), Value::Int), value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok((Value::Float(value), serde_json::Value::from(value).to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        let text = quoted(value);
        if self.types.times.iter().any(|path| self.is(path)) {
            return Ok(self.remember(Value::String(time::go(value).into()), text));
        }
        Ok((Value::String(value.into()), text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut texts) = (Vec::new(), Vec::new());
        while let Some((value, text)) = list.next_element_seed(self.inner("*"))? {
            values.push(value);
            texts.push(text);
        }
        let text = format!("[{}]", texts.join(","));
        Ok(self.remember(Value::List(values.into()), text))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut texts) = (BTreeMap::<Arc<str>, Value>::new(), Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            let (value, text) = map.next_value_seed(self.inner(&key))?;
            texts.push(format!("{}:{text}", quoted(&key)));
            values.insert(self.go_name(&key).into(), value);
        }
        for (path, name, empty) in self.types.left_out {
            if !self.is(path) {
                continue;
            }
            let value = values.entry((*name).into()).or_insert_with(|| empty.value());
            if matches!(value, Value::Nil) {
                *value = empty.value();
                self.texts.extend(address(value).map(|address| (address, "null".to_owned())));
            }
        }
        let text = format!("{{{}}}", texts.join(","));
        Ok(self.remember(Value::Map(Arc::new(values)), text))
    }
}

impl Empty {
    fn value(self) -> Value {
        match self {
            Self::Text => Value::String("".into()),
            Self::List => Value::List(Vec::new().into()),
            Self::Map => Value::Map(Arc::default()),
        }
    }
}

#[cfg(test)]
#[path = "inspect/tests.rs"]
mod tests;
