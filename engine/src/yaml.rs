//! Reads YAML into a tree that knows where everything stands. The only file that names the YAML
//! library: `serde-saphyr`, because `serde_yaml` itself is archived; its parser's events carry
//! the places and the quotes that its typed reading would lose.
//!
//! Invariants:
//! - Plain scalars follow the core schema of YAML 1.2; a word that YAML 1.1 took for a boolean
//!   (`no`, `on`) is a finding, never a guess.
//! - The size is checked before anything is parsed and aliases are counted as they expand, so a
//!   bomb costs no more than an honest file of the largest size.
//! - Absent on purpose: tags, merge keys, keys that are no text, several documents.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Number, Value};
use serde_yaml::granit_parser::{self, Event, Marker, Parser, ScalarStyle, ScanError, Span};

use crate::diagnostic::{Finding, Place, code, narrow};
use crate::document::{Content, Document, Entry, Spot, Style, Tree};

/// Largest file, in bytes.
pub const SIZE_LIMIT: usize = 1024 * 1024;

/// Most values in one file, counting every alias as all that it stands for.
pub const NODE_LIMIT: usize = 100_000;

/// Deepest nesting of lists and maps.
pub const DEPTH_LIMIT: usize = 64;

/// Reads a file's text. `path` is only for findings.
///
/// # Errors
/// What keeps the text from being a tree at all; see [`Document::findings`] for the rest.
pub fn parse(path: &str, text: &str) -> Result<Document, Vec<Finding>> {
    if text.len() > SIZE_LIMIT {
        let message = format!("the file has {} bytes, more than {SIZE_LIMIT}", text.len());
        let fix = "split it, or move data out of it".to_owned();
        return Err(vec![Finding::error(code::TOO_LARGE, path, Place::START, message, fix)]);
    }
    let mut reader = Reader::new(path);
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for event in Parser::new_from_str_with_options(text, options) {
        let read = match event {
            Ok((event, span)) => reader.event(event, span),
            Err(error) => Err(syntax(path, text, &error)),
        };
        if let Err(finding) = read {
            reader.findings.push(finding);
            return Err(reader.findings);
        }
    }
    let empty =
        Tree { at: Spot { place: Place::START, offset: 0 }, content: Content::Empty, size: 1 };
    let root = reader.root.unwrap_or(empty);
    Ok(Document { path: path.to_owned(), text: text.to_owned(), root, findings: reader.findings })
}

/// What an unquoted scalar stands for in YAML 1.2 (core schema).
#[must_use]
pub fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).ok().map(Number::from);
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !unsigned.contains(|c: char| c.is_ascii_digit())
        || !unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+'))
    {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let whole = text.parse::<i64>().ok().map(Number::from);
    whole
        .or_else(|| text.parse::<u64>().ok().map(Number::from))
        .or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
}

/// Builds the tree from the parser's events.
struct Reader<'p> {
    path: &'p str,
    /// Lists and maps that are not closed yet.
    open: Vec<Open>,
    anchors: HashMap<usize, Tree>,
    /// Values so far, aliases expanded.
    size: usize,
    root: Option<Tree>,
    findings: Vec<Finding>,
}

struct Open {
    at: Spot,
    anchor: usize,
    content: Content,
    /// Of a map: the key whose value comes next.
    key: Option<(String, Spot)>,
}

impl<'p> Reader<'p> {
    fn new(path: &'p str) -> Self {
        Self {
            path,
            open: Vec::new(),
            anchors: HashMap::new(),
            size: 0,
            root: None,
            findings: Vec::new(),
        }
    }

    /// An error ends the reading.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Finding> {
        let at = spot(&span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let content = match tag {
                    Some(tag) => {
                        self.tag(&tag.original(), at);
                        Content::Scalar(Value::String(text.into_owned()), style_of(style))
                    }
                    None if plain && text.is_empty() => Content::Empty,
                    None if plain => Content::Scalar(self.plain(&text, at), Style::Plain),
                    None => Content::Scalar(Value::String(text.into_owned()), style_of(style)),
                };
                self.add(Tree { at, content, size: 1 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Content::List(Vec::new()), anchor, tag.map(|tag| tag.original()), at)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(Content::Map(IndexMap::new()), anchor, tag.map(|tag| tag.original()), at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { at, anchor, content, .. }) => {
                    let size = 1 + match &content {
                        Content::List(items) => items.iter().map(|item| item.size).sum::<usize>(),
                        Content::Map(entries) => entries.values().map(|e| e.value.size).sum(),
                        Content::Empty | Content::Scalar(..) => 0,
                    };
                    self.add(Tree { at, content, size }, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(..) if self.root.is_some() => Err(self.finding(
                code::SEVERAL_DOCUMENTS,
                at,
                "a second document begins here",
                "keep one graph, skill or configuration per file",
            )),
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        content: Content,
        anchor: usize,
        tag: Option<String>,
        at: Spot,
    ) -> Result<(), Finding> {
        if let Some(tag) = tag {
            self.tag(&tag, at);
        }
        if self.open.len() >= DEPTH_LIMIT {
            return Err(self.finding(
                code::TOO_DEEP,
                at,
                format!("lists and maps are nested more than {DEPTH_LIMIT} deep"),
                "flatten them",
            ));
        }
        self.count(1, at, false)?;
        self.open.push(Open { at, anchor, content, key: None });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Spot) -> Result<(), Finding> {
        let Some(tree) = self.anchors.get(&anchor) else {
            return Err(self.finding(
                code::UNKNOWN_ALIAS,
                at,
                "this alias stands inside what it repeats",
                "write the value out",
            ));
        };
        let tree = tree.clone();
        self.count(tree.size, at, true)?;
        self.add(Tree { at, ..tree }, 0)
    }

    fn count(&mut self, more: usize, at: Spot, alias: bool) -> Result<(), Finding> {
        self.size += more;
        if self.size <= NODE_LIMIT {
            return Ok(());
        }
        let what = if alias { "with its aliases expanded, the file" } else { "the file" };
        Err(self.finding(
            if alias { code::ALIAS_BOMB } else { code::TOO_LARGE },
            at,
            format!("{what} holds more than {NODE_LIMIT} values"),
            "write less, or move data out of it",
        ))
    }

    /// Puts a finished value where it belongs: into the open list or map, as key or value.
    fn add(&mut self, tree: Tree, anchor: usize) -> Result<(), Finding> {
        if tree.size == 1 && !matches!(tree.content, Content::List(_) | Content::Map(_)) {
            self.count(1, tree.at, false)?;
        }
        if anchor != 0 {
            // It is kept a second time, for its aliases.
            self.count(tree.size, tree.at, true)?;
            self.anchors.insert(anchor, tree.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(tree);
            return Ok(());
        };
        match (&mut open.content, open.key.take()) {
            (Content::Map(entries), Some((key, at))) => {
                let first = match entries.entry(key) {
                    indexmap::map::Entry::Vacant(place) => {
                        place.insert(Entry { at, value: tree });
                        return Ok(());
                    }
                    indexmap::map::Entry::Occupied(first) => {
                        (first.key().clone(), first.get().at.place.line)
                    }
                };
                let message = format!("`{}` stands here a second time", first.0);
                let fix = format!("keep one of them; the first is on line {}", first.1);
                let finding = self.finding(code::DUPLICATE_KEY, at, message, fix);
                self.findings.push(finding);
            }
            (Content::Map(_), None) => {
                let at = tree.at;
                let text = key_text(tree);
                open.key = Some((text.clone().unwrap_or_default(), at));
                if text.is_none() {
                    let message = "a key must be text";
                    let fix = "write a word before the colon; braces in a value need quotes";
                    let finding = self.finding(code::KEY_NOT_TEXT, at, message, fix);
                    self.findings.push(finding);
                }
            }
            (Content::List(items), _) => items.push(tree),
            (Content::Empty | Content::Scalar(..), _) => {}
        }
        Ok(())
    }

    fn plain(&mut self, text: &str, at: Spot) -> Value {
        let key = self
            .open
            .last()
            .is_some_and(|o| matches!(o.content, Content::Map(_)) && o.key.is_none());
        let word = matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off");
        if key {
            return Value::String(text.to_owned());
        }
        if word {
            let truth = matches!(text.to_ascii_lowercase().as_str(), "yes" | "on");
            let message =
                format!("`{text}` is a boolean to some readers of YAML and text to others");
            let fix = format!("write {truth}, or '{text}' in quotes");
            let finding = self.finding(code::BOOLEAN_WORD, at, message, fix);
            self.findings.push(finding);
        }
        scalar(text)
    }

    fn tag(&mut self, tag: &str, at: Spot) {
        let message = format!("the tag `{tag}` has no meaning here");
        let finding = self.finding(code::TAG, at, message, "remove it; put text in quotes");
        self.findings.push(finding);
    }

    fn finding(
        &self,
        code: &'static str,
        at: Spot,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding::error(code, self.path, at.place, message, fix)
    }
}

fn key_text(tree: Tree) -> Option<String> {
    match tree.content {
        Content::Scalar(Value::String(text), _) => Some(text),
        Content::Scalar(other, _) => Some(other.to_string()),
        Content::Empty | Content::List(_) | Content::Map(_) => None,
    }
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    }
}

fn spot(marker: &Marker) -> Spot {
    let place = Place { line: narrow(marker.line().max(1)), column: narrow(marker.col() + 1) };
    Spot { place, offset: marker.byte_offset().unwrap_or_default() }
}

/// The parser's own error, in words for the mistakes that are made most.
fn syntax(path: &str, text: &str, error: &ScanError) -> Finding {
    let place = spot(error.marker()).place;
    let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
    if let Some(column) = unquoted_variable(line) {
        let place = Place { column: narrow(column + 1), ..place };
        let message = "`${…}` inside { } or [ ] must be quoted";
        let fix = "write \"${X}\" with quotes around it";
        return Finding::error(code::UNQUOTED_VARIABLE, path, place, message, fix);
    }
    let (code, fix) = match error.kind() {
        granit_parser::ErrorKind::UnknownAnchor => (
            code::UNKNOWN_ALIAS,
            "define it with & before this line, or quote a text that begins with *",
        ),
        _ if line.contains('\t') => (code::SYNTAX, "indent with spaces, not tabs"),
        _ if line.contains("{{") || line.contains(": ") => {
            (code::SYNTAX, "check indentation, and quote text that holds `: `, `#`, `{` or `[`")
        }
        _ => (code::SYNTAX, "check indentation, quotes and brackets here and just above"),
    };
    Finding::error(code, path, place, error.info(), fix)
}

/// The column, from 0, of a `${` that no quote encloses, on a line that opens `{` or `[` earlier.
fn unquoted_variable(line: &str) -> Option<usize> {
    let (mut quote, mut flow, mut last) = (None, false, ' ');
    for (column, c) in line.chars().enumerate() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '{') if last == '$' && flow => return Some(column - 1),
            (None, '{' | '[') => flow = true,
            _ => {}
        }
        last = c;
    }
    None
}
