//! What Go finds wrong in a template before it prints anything, and the engine doesn't: functions and variables that
//! don't exist, ends without beginnings and beginnings without ends. And what Go can do with fields and the engine can't:
//! call methods with arguments, look for keys in maps of texts that don't have them.

use std::collections::BTreeSet;

use gotmpl::TemplateError;
use gotmpl::parse::{CommandNode, Expr, ListNode, Node, Parser, PipeNode, Pos};

use super::{BadTemplate, ENTRY, MAIN, OURS};

/// Members that are maps of texts to texts in Go's types.
const TEXT_MAPS: &[&str] = &["Labels", "Options", "DriverOpts", "AuxAddress"];

/// Part of Go's templates, and of the engine, without being registered by us.
const BUILT_IN: &[&str] = &[
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or", "print",
    "printf", "println", "slice", "urlquery",
];

/// A template, and those that it defines by name.
pub(super) struct Parsed {
    pub(super) main: ListNode,
    pub(super) defined: Vec<(String, ListNode)>,
    /// Where fields are read, for errors.
    pub(super) reads: Vec<Read>,
}

/// A place where a field is read.
pub(super) struct Read {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) text: String,
    pub(super) fields: Vec<String>,
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Parsed, BadTemplate> {
    let parsed = |text: &str| Parser::new(text, "{{", "}}").and_then(Parser::parse);
    let (mut main, defined) = parsed(text).map_err(|error| not_parsed(&error))?;
    let mut defined: Vec<_> = defined.into_iter().map(|node| (node.name.to_string(), node.body)).collect();
    check_end(text, parsed(&format!("{text}{MAIN}")).map_err(|error| not_parsed(&error))?.0)?;
    let mut tree = Tree { text, reads: Vec::new(), declared: BTreeSet::new(), unknown: None };
    tree.list(&mut main);
    for (_, body) in &mut defined {
        tree.list(body);
    }
    match tree.unknown {
        Some(problem) => Err(BadTemplate { problem, missing: None }),
        None => Ok(Parsed { main, defined, reads: tree.reads }),
    }
}

/// The engine takes an `end` or `else` without a beginning for the template's own end, and the template's end for that of
/// everything inside. A mark after the template shows it: it is not there, or inside of something.
fn check_end(text: &str, marked: ListNode) -> Result<(), BadTemplate> {
    if marked.nodes.last().is_some_and(is_mark) {
        return Ok(());
    }
    let lines = 1 + text.matches('\n').count();
    let problem = match (holds_mark(&marked), text.contains("else")) {
        (true, _) => format!("template: :{lines}: unexpected EOF"),
        // Which of them it is, and in which line, the engine doesn't say.
        (false, true) => "template: unexpected {{end}} or {{else}}".to_owned(),
        (false, false) if lines == 1 => "template: :1: unexpected {{end}}".to_owned(),
        (false, false) => "template: unexpected {{end}}".to_owned(),
    };
    Err(BadTemplate { problem, missing: None })
}

fn holds_mark(list: &ListNode) -> bool {
    list.nodes.iter().any(|node| match node {
        Node::List(list) => holds_mark(list),
        Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
            holds_mark(&branch.body) || branch.else_body.as_ref().is_some_and(holds_mark)
        }
        Node::Define(define) => holds_mark(&define.body),
        node => is_mark(node),
    })
}

fn is_mark(node: &Node) -> bool {
    matches!(node, Node::Text(text) if text.text.ends_with(MAIN))
}

/// Go names the line, not the column.
fn not_parsed(error: &TemplateError) -> BadTemplate {
    let problem = match error {
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
            format!("template: :{line}: {message}")
        }
        other => format!("template: {other}"),
    };
    BadTemplate { problem, missing: None }
}

/// A walk over what was parsed.
struct Tree<'a> {
    text: &'a str,
    reads: Vec<Read>,
    declared: BTreeSet<String>,
    /// The first function or variable that doesn't exist.
    unknown: Option<String>,
}

impl Tree<'_> {
    fn list(&mut self, list: &mut ListNode) {
        for node in &mut list.nodes {
            match node {
                Node::List(list) => self.list(list),
                Node::Action(action) => self.pipe(&mut action.pipe),
                Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
                    self.pipe(&mut branch.pipe);
                    self.list(&mut branch.body);
                    branch.else_body.iter_mut().for_each(|list| self.list(list));
                }
                Node::Template(template) => template.pipe.iter_mut().for_each(|pipe| self.pipe(pipe)),
                Node::Define(define) => self.list(&mut define.body),
                Node::Text(_) | Node::Break(_) | Node::Continue(_) => {}
            }
        }
    }

    fn pipe(&mut self, pipe: &mut PipeNode) {
        self.declared.extend(pipe.decl.iter().map(|name| name.to_string()));
        for CommandNode { args, .. } in &mut pipe.commands {
            args.iter_mut().for_each(|expr| self.expr(expr));
            // A field with arguments is a method; the engine only has functions as values, called by `call`.
            let method = match args.as_slice() {
                [Expr::Field(at, _), _, ..] | [Expr::Chain(at, ..), _, ..] => Some(*at),
                [Expr::Variable(at, _, fields), _, ..] if !fields.is_empty() => Some(*at),
                _ => None,
            };
            if let Some(at) = method {
                args.insert(0, Expr::Identifier(at, "call".into()));
            }
        }
    }

    fn expr(&mut self, expr: &mut Expr) {
        let at = expr.pos();
        match expr {
            Expr::Identifier(_, name) => {
                if !BUILT_IN.contains(&name.as_str()) && !OURS.contains(&name.as_str()) {
                    self.unknown(at, format!("function \"{name}\" not defined"));
                }
            }
            Expr::Pipe(_, pipe) => self.pipe(pipe),
            Expr::Chain(_, inner, fields) => {
                self.expr(inner);
                self.read(at.offset, "", fields.iter().map(|field| field.as_str()));
            }
            Expr::Field(_, fields) => self.read(at.offset, "", fields.iter().map(|field| field.as_str())),
            Expr::Variable(_, name, fields) => {
                if name != "$" && !self.declared.contains(name.as_str()) {
                    self.unknown(at, format!("undefined variable \"{name}\""));
                }
                if !fields.is_empty() {
                    self.read(at.offset, name, fields.iter().map(|field| field.as_str()));
                }
            }
            Expr::Dot(_) | Expr::String(..) | Expr::Number(..) | Expr::Bool(..) | Expr::Nil(_) => {}
        }
        if let Expr::Field(_, fields) | Expr::Variable(_, _, fields) = expr
            && let [.., map, key] = fields.as_slice()
            && TEXT_MAPS.contains(&map.as_str())
        {
            let key = Expr::String(at, key.as_str().into());
            fields.pop();
            let args = vec![Expr::Identifier(at, ENTRY.into()), expr.clone(), key];
            let commands = vec![CommandNode { pos: at, args }];
            *expr = Expr::Pipe(at, PipeNode { pos: at, decl: Vec::new(), commands, is_assign: false });
        }
    }

    fn unknown(&mut self, at: Pos, problem: String) {
        self.unknown.get_or_insert_with(|| format!("template: :{}: {problem}", at.line));
    }

    /// Go counts lines from one and columns, in bytes, from zero; a chain of fields is where its second part is.
    fn read<'b>(&mut self, offset: usize, first: &str, fields: impl Iterator<Item = &'b str>) {
        let fields: Vec<String> = fields.map(str::to_owned).collect();
        let text = format!("{first}.{}", fields.join("."));
        let offset = match (first, fields.as_slice()) {
            ("", [one, _, ..]) => offset + 1 + one.len(),
            (first, _) => offset + first.len(),
        };
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.matches('\n').count();
        self.reads.push(Read { line, column: before.len() - line_start, text, fields });
    }
}
