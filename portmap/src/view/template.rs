//! Go templates with the functions that Docker's `--format` has, over values made from JSON.
//!
//! The engine is `gotmpl`. What Go does and it doesn't is done here: on the parsed tree ([`tree`]) and on its errors, which
//! read as Go's as far as the engine knows what Go knows.
//!
//! `json` prints a part of a document exactly as the document has it, with the order of its members, which the engine's
//! maps don't keep: [`Document`] remembers the text of each part, by the identity of the value made from it.

mod tree;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use gotmpl::parse::ListNode;
use gotmpl::{FuncMap, MissingKey, TemplateError, Value, ValueFunc};

use self::tree::{Parsed, Read};
use super::json::quoted;

/// The name of the template itself among those it defines; nothing that is typed can name it.
const MAIN: &str = "\0main";

/// Looks into a map of texts, where a missing key is no error. Nothing that is typed can call it.
const ENTRY: &str = "\0entry";

/// Docker's own functions. Lists aside they take and return texts.
const OURS: &[&str] = &["json", "split", "join", "title", "lower", "upper", "pad", "truncate"];

/// A template that parses.
pub(crate) struct Template {
    main: ListNode,
    defined: Vec<(String, ListNode)>,
    /// Where fields are read, for errors.
    reads: Vec<Read>,
}

/// A document to print, and the text of its parts.
pub(crate) struct Document {
    pub(crate) root: Value,
    /// By the address of a part's memory, which lives as long as `root`.
    pub(crate) texts: Arc<HashMap<usize, String>>,
}

/// Why a template can't be used. Prints as Docker's CLI says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadTemplate {
    problem: String,
    /// A key that the data doesn't have, if that is what is wrong, and where it is read.
    missing: Option<String>,
}

/// What the functions do: their work, or, for the headers of a table, nothing but keep the header.
#[derive(Clone)]
pub(crate) enum Functions {
    /// On data; with what [`Document::texts`] says.
    Data(Arc<HashMap<usize, String>>),
    /// On column headers, which stay as they are; only `pad` moves them as it moves the cells.
    Headers,
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, BadTemplate> {
        let Parsed { main, defined, reads } = tree::parse(text)?;
        Ok(Self { main, defined, reads })
    }

    /// Makes it ready for any number of documents that `functions` fits.
    pub(crate) fn with(&self, functions: &Functions) -> Ready<'_> {
        let mut template = gotmpl::Template::new("").missing_key(MissingKey::Error).funcs(functions.map());
        for (name, body) in &self.defined {
            template = template.add_parse_tree(name, body.clone());
        }
        Ready { of: self, template: template.add_parse_tree(MAIN, self.main.clone()) }
    }

    /// The text for one document.
    pub(crate) fn render(&self, document: &Document) -> Result<String, BadTemplate> {
        self.with(&Functions::Data(Arc::clone(&document.texts))).render(&document.root)
    }

    fn not_executed(&self, error: TemplateError) -> BadTemplate {
        let missing = match &error {
            TemplateError::MissingKey { key } => Some(key.clone()),
            _ => None,
        };
        let read = missing
            .as_ref()
            .and_then(|key| self.reads.iter().find(|read| read.fields.iter().any(|field| field == key)));
        let problem = match error {
            TemplateError::MissingKey { key } => format!("map has no entry for key \"{key}\""),
            TemplateError::Exec(problem) => problem,
            TemplateError::IndexOutOfRange { .. } => format!("error calling index: {error}"),
            TemplateError::FuncPanic { name, .. } => format!("error calling {name}"),
            other => other.to_string(),
        };
        let problem = match read {
            Some(Read { line, column, text, .. }) => {
                format!("template: :{line}:{column}: executing \"\" at <{text}>: {problem}")
            }
            None => format!("template: executing \"\": {problem}"),
        };
        BadTemplate { problem, missing }
    }
}

/// A template with functions.
pub(crate) struct Ready<'a> {
    of: &'a Template,
    template: gotmpl::Template,
}

impl Ready<'_> {
    /// The text for these values. A field that is missing is an error.
    pub(crate) fn render(&self, root: &Value) -> Result<String, BadTemplate> {
        self.template.execute_template_to_string(MAIN, root).map_err(|error| self.of.not_executed(error))
    }
}

impl BadTemplate {
    /// Whether the data lack a field.
    pub(crate) const fn is_missing_field(&self) -> bool {
        self.missing.is_some()
    }

    /// Says what there is instead of a missing field.
    pub(crate) fn instead<'a>(self, what: &str, fields: impl Iterator<Item = &'a str>) -> Self {
        let Some(missing) = self.missing else { return self };
        let whole = format!("map has no entry for key \"{missing}\"");
        let fields: Vec<&str> = fields.collect();
        let better =
            format!("can't evaluate field {missing} in type {what}, which has {}", fields.join(", "));
        Self { problem: self.problem.replace(&whole, &better), missing: None }
    }
}

impl fmt::Display for BadTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template parsing error: {}", self.problem)
    }
}

impl std::error::Error for BadTemplate {}

impl Functions {
    fn map(&self) -> FuncMap {
        let mut map = FuncMap::new();
        for name in OURS {
            let function: ValueFunc = match (self, *name) {
                (_, "pad") => Arc::new(pad),
                (Self::Headers, _) => Arc::new(|args| Ok(args.first().cloned().unwrap_or(Value::Nil))),
                (Self::Data(texts), "json") => {
                    let texts = Arc::clone(texts);
                    Arc::new(move |args| Ok(text(json(argument("json", args, 0)?, &texts))))
                }
                (Self::Data(_), "split") => Arc::new(split),
                (Self::Data(_), "join") => Arc::new(join),
                (Self::Data(_), "title") => Arc::new(|args| Ok(text(title(string("title", args, 0)?)))),
                (Self::Data(_), "lower") => {
                    Arc::new(|args| Ok(text(string("lower", args, 0)?.to_lowercase())))
                }
                (Self::Data(_), "upper") => {
                    Arc::new(|args| Ok(text(string("upper", args, 0)?.to_uppercase())))
                }
                (Self::Data(_), _) => Arc::new(truncate),
            };
            map.insert((*name).to_owned(), function);
        }
        map.insert(ENTRY.to_owned(), Arc::new(entry));
        map.insert("index".to_owned(), Arc::new(index));
        map
    }
}

fn text(text: String) -> Value {
    Value::String(text.into())
}

fn argument<'a>(function: &str, args: &'a [Value], index: usize) -> gotmpl::Result<&'a Value> {
    args.get(index).ok_or_else(|| {
        let (got, want) = (args.len(), index + 1);
        TemplateError::Exec(format!("wrong number of args for {function}: want {want} got {got}"))
    })
}

fn string<'a>(function: &str, args: &'a [Value], index: usize) -> gotmpl::Result<&'a str> {
    let value = argument(function, args, index)?;
    value.as_str().ok_or_else(|| wrong(function, value, "string"))
}

fn length(function: &str, args: &[Value], index: usize) -> gotmpl::Result<usize> {
    /// More than anybody pads; the engine's own limits don't cover ours.
    const ENOUGH: usize = 1 << 16;
    let value = argument(function, args, index)?;
    let number = value.as_int().ok_or_else(|| wrong(function, value, "int"))?;
    let number = usize::try_from(number).ok().filter(|number| *number <= ENOUGH);
    number.ok_or_else(|| TemplateError::Exec(format!("error calling {function}: bad count {value}")))
}

fn wrong(function: &str, value: &Value, want: &str) -> TemplateError {
    let got = value.type_name();
    TemplateError::Exec(format!("wrong type for value of {function}; expected {want}; got {got}"))
}

fn entry(args: &[Value]) -> gotmpl::Result<Value> {
    let (map, key) = (argument("entry", args, 0)?, string("entry", args, 1)?);
    match map {
        Value::Map(_) | Value::Nil => Ok(map.field(key).cloned().unwrap_or(Value::Nil)),
        other => {
            let problem = format!("can't evaluate field {key} in type {}", other.type_name());
            Err(TemplateError::Exec(problem))
        }
    }
}

/// Go's `index`, also of its maps of texts: a key that isn't there has an empty text.
fn index(args: &[Value]) -> gotmpl::Result<Value> {
    let mut value = argument("index", args, 0)?.clone();
    for key in &args[1..] {
        let texts = match &value {
            Value::Nil => true,
            Value::Map(map) => map.values().all(|value| matches!(value, Value::String(_))),
            _ => false,
        };
        value = match key.as_str() {
            Some(key) if texts => value.field(key).cloned().unwrap_or_else(|| text(String::new())),
            _ => value.index(key)?,
        };
    }
    Ok(value)
}

fn split(args: &[Value]) -> gotmpl::Result<Value> {
    let (whole, by) = (string("split", args, 0)?, string("split", args, 1)?);
    let parts: Vec<Value> = if by.is_empty() {
        whole.chars().map(|c| text(c.to_string())).collect()
    } else {
        whole.split(by).map(|part| text(part.to_owned())).collect()
    };
    Ok(Value::List(parts.into()))
}

fn join(args: &[Value]) -> gotmpl::Result<Value> {
    let list = argument("join", args, 0)?;
    let by = string("join", args, 1)?;
    let parts: Vec<&str> = match list {
        Value::Nil => Vec::new(),
        Value::List(values) => values
            .iter()
            .map(|value| value.as_str().ok_or_else(|| wrong("join", value, "string")))
            .collect::<Result<_, _>>()?,
        other => return Err(wrong("join", other, "[]string")),
    };
    Ok(text(parts.join(by)))
}

/// The first letter of each word as a capital; the others stay.
fn title(words: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        if inside {
            out.push(c)
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphanumeric() || c == '_' || c == '\'';
    }
    out
}

fn pad(args: &[Value]) -> gotmpl::Result<Value> {
    let (cell, before, after) = (string("pad", args, 0)?, length("pad", args, 1)?, length("pad", args, 2)?);
    if cell.is_empty() {
        return Ok(text(String::new()));
    }
    Ok(text(format!("{}{cell}{}", " ".repeat(before), " ".repeat(after))))
}

/// Go cuts bytes; a character that would be cut is left out instead.
fn truncate(args: &[Value]) -> gotmpl::Result<Value> {
    let (whole, length) = (string("truncate", args, 0)?, length("truncate", args, 1)?);
    Ok(text(whole[..whole.floor_char_boundary(length)].to_owned()))
}

/// JSON of a value: the document's own text if it is a part of one. Methods aren't data.
fn json(value: &Value, texts: &HashMap<usize, String>) -> String {
    if let Some(text) = address(value).and_then(|address| texts.get(&address)) {
        return text.clone();
    }
    match value {
        Value::Nil | Value::Function(_) => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Float(value) => serde_json::Value::from(*value).to_string(),
        Value::String(text) => quoted(text),
        Value::List(values) => {
            let parts: Vec<_> = values.iter().map(|value| json(value, texts)).collect();
            format!("[{}]", parts.join(","))
        }
        Value::Map(map) => {
            let (methods, data): (Vec<_>, Vec<_>) = map.iter().partition(|(_, value)| value.is_function());
            let member =
                |(key, value): (&Arc<str>, &Value)| format!("{}:{}", quoted(key), json(value, texts));
            let text = format!("{{{}}}", data.into_iter().map(member).collect::<Vec<_>>().join(","));
            // What has methods marshals itself, and Go's way of doing so escapes what has a meaning in HTML.
            if methods.is_empty() {
                return text;
            }
            text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
        }
    }
}

/// Where a value's memory is: the same for all copies of it, and no other's as long as one of them lives.
pub(crate) fn address(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(Arc::as_ptr(text).cast::<u8>().addr()),
        Value::List(values) => Some(Arc::as_ptr(values).cast::<u8>().addr()),
        Value::Map(map) => Some(Arc::as_ptr(map).cast::<u8>().addr()),
        Value::Nil
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Float(_)
        | Value::Function(_) => None,
    }
}

/// A method of a value in a template: `{{.Name "argument"}}`, both texts.
pub(crate) fn method(function: impl Fn(&str) -> String + Send + Sync + 'static) -> Value {
    Value::Function(Arc::new(move |args| Ok(text(function(string("method", args, 0)?)))))
}

/// A map of texts.
pub(crate) fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Map(Arc::new(
        entries.into_iter().map(|(key, value)| (key.into(), value)).collect::<BTreeMap<_, _>>(),
    ))
}

#[cfg(test)]
#[path = "template/tests.rs"]
mod tests;
