//! Reads YAML into a tree that knows where everything stands. The only file that names the YAML
//! library: `serde-saphyr`, because `serde_yaml` itself is archived; its parser's events carry
//! the places and the quotes that its typed reading would lose.
//!
//! Invariants:
//! - Plain scalars follow the core schema of YAML 1.2; a word that YAML 1.1 took for a boolean
//!   (`no`, `on`) is a finding, never a guess.
//! - A number is kept to the digit or is a finding, never rounded.
//! - The size is checked before anything is parsed and aliases are counted as they expand, values
//!   and bytes, so a bomb costs no more than an honest file of the largest size. A file of mistakes
//!   is left once there are more than a person reads.
//! - Absent on purpose: tags, merge keys, keys that are no text, several documents.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Number, Value};
use serde_yaml::granit_parser::{self, Event, Marker, Parser, ScalarStyle, ScanError, Span};

use crate::diagnostic::{FINDINGS_LIMIT, Finding, Place, code, lines, narrow, too_many};
use crate::document::{Content, Document, Entry, Extent, Spot, Style, Tree};
use crate::json;
use crate::limits::{Beyond, FileLimits};
use crate::size::Size;

/// Deepest nesting of lists and maps.
pub const DEPTH_LIMIT: usize = 64;

/// Reads a file's text within the limits that apply by default. `path` is only for findings.
///
/// # Errors
/// What keeps the text from being a tree at all; see [`Document::findings`] for the rest.
pub fn parse(path: &str, text: &str) -> Result<Document, Vec<Finding>> {
    parse_within(path, text, &FileLimits::default())
}

/// Reads a file's text. `path` is only for findings.
///
/// # Errors
/// What keeps the text from being a tree at all; see [`Document::findings`] for the rest.
pub fn parse_within(path: &str, text: &str, limits: &FileLimits) -> Result<Document, Vec<Finding>> {
    if let Some(finding) = too_large(path, text.len() as u64, limits) {
        return Err(vec![finding]);
    }
    let mut reader = Reader::new(path, limits);
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
    let empty = Tree {
        at: Spot { place: Place::START, offset: 0 },
        content: Content::Empty,
        size: Extent::default(),
    };
    let root = reader.root.unwrap_or(empty);
    Ok(Document { path: path.to_owned(), text: text.to_owned(), root, findings: reader.findings })
}

/// Whether a file of so many bytes is not looked at.
pub(crate) fn too_large(path: &str, bytes: u64, limits: &FileLimits) -> Option<Finding> {
    if bytes <= limits.size as u64 {
        return None;
    }
    let limit = Size(limits.size);
    let message =
        format!("the file has {bytes} bytes, more than the {limit} allowed (`file_size`)");
    Some(beyond(limits, code::TOO_LARGE, path, Place::START, message))
}

/// A finding about a file that is beyond a limit: that it is at fault, or will be looked at later.
pub(crate) fn beyond(
    limits: &FileLimits,
    code: &'static str,
    path: &str,
    place: Place,
    message: String,
) -> Finding {
    match limits.beyond {
        Beyond::Refuse => {
            let fix = "write less or move data out of it; `limits` in exile.yaml has the key";
            Finding::error(code, path, place, message, fix)
        }
        Beyond::Postpone => not_checked_yet(path),
    }
}

/// The file is looked at later.
pub(crate) fn not_checked_yet(path: &str) -> Finding {
    let message = "it takes longer to be checked than a start waits for";
    let fix = "wait: it serves as soon as it has been checked";
    Finding::error(code::NOT_CHECKED_YET, path, Place::START, message, fix)
}

/// What an unquoted scalar stands for in YAML 1.2 (core schema). A number that cannot be kept to
/// the digit is a text.
#[must_use]
pub fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match number(text) {
            Some(Ok(number)) => Value::Number(number),
            Some(Err(NotKept)) | None => Value::String(text.to_owned()),
        },
    }
}

/// A number of more digits than can be kept.
struct NotKept;

/// `None` of what is no number.
fn number(text: &str) -> Option<Result<Number, NotKept>> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let good = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
            let number = || u64::from_str_radix(digits, radix).map(Number::from);
            return good.then(|| number().map_err(|_| NotKept));
        }
    }
    if !is_decimal(text) {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    if !json::keeps_digits(text) {
        return Some(Err(NotKept));
    }
    let whole = text.parse::<i64>().ok().map(Number::from);
    whole
        .or_else(|| text.parse::<u64>().ok().map(Number::from))
        .or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
        .map(Ok)
}

/// Digits with at most one point, and an exponent.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    exponent && digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty())
}

/// Builds the tree from the parser's events.
struct Reader<'p> {
    path: &'p str,
    /// Lists and maps that are not closed yet.
    open: Vec<Open>,
    anchors: HashMap<usize, Tree>,
    limits: &'p FileLimits,
    /// What the file holds so far, aliases expanded.
    size: Extent,
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
    fn new(path: &'p str, limits: &'p FileLimits) -> Self {
        Self {
            path,
            open: Vec::new(),
            anchors: HashMap::new(),
            limits,
            size: Extent::default(),
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
                let size = Extent { values: 1, bytes: text.len() };
                let content = match tag {
                    Some(tag) => {
                        self.tag(&tag.original(), at)?;
                        Content::Scalar(Value::String(text.into_owned()), style_of(style))
                    }
                    None if plain && text.is_empty() => Content::Empty,
                    None if plain => Content::Scalar(self.plain(&text, at)?, Style::Plain),
                    None => Content::Scalar(Value::String(text.into_owned()), style_of(style)),
                };
                self.count(size, at, false)?;
                self.add(Tree { at, content, size }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Content::List(Vec::new()), anchor, tag.map(|tag| tag.original()), at)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(Content::Map(IndexMap::new()), anchor, tag.map(|tag| tag.original()), at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { at, anchor, content, .. }) => {
                    let mut size = Extent { values: 1, bytes: 0 };
                    match &content {
                        Content::List(items) => items.iter().for_each(|item| size.add(item.size)),
                        Content::Map(entries) => {
                            for (key, entry) in entries {
                                size.add(entry.value.size);
                                size.bytes += key.len();
                            }
                        }
                        Content::Empty | Content::Scalar(..) => {}
                    }
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
            self.tag(&tag, at)?;
        }
        if self.open.len() >= DEPTH_LIMIT {
            return Err(self.finding(
                code::TOO_DEEP,
                at,
                format!("lists and maps are nested more than {DEPTH_LIMIT} deep"),
                "flatten them",
            ));
        }
        self.count(Extent { values: 1, bytes: 0 }, at, false)?;
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

    fn count(&mut self, more: Extent, at: Spot, alias: bool) -> Result<(), Finding> {
        self.size.add(more);
        let what = if alias { "with its aliases expanded, the file" } else { "the file" };
        let message = if self.size.values > self.limits.values {
            format!("{what} holds more than {} values (`file_values`)", self.limits.values)
        } else if self.size.bytes > self.limits.expanded {
            let limit = Size(self.limits.expanded);
            format!("{what} holds more than {limit} of text (`file_expanded`)")
        } else {
            return Ok(());
        };
        let code = if alias { code::ALIAS_BOMB } else { code::TOO_LARGE };
        Err(beyond(self.limits, code, self.path, at.place, message))
    }

    /// Notes what is wrong with one value. An error once there is more than a person reads.
    fn report(&mut self, finding: Finding) -> Result<(), Finding> {
        let place = Place { line: finding.line, column: finding.column };
        self.findings.push(finding);
        if self.findings.len() < FINDINGS_LIMIT {
            return Ok(());
        }
        Err(too_many(self.path, place, 0, true))
    }

    /// Puts a finished value where it belongs: into the open list or map, as key or value.
    fn add(&mut self, tree: Tree, anchor: usize) -> Result<(), Finding> {
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
                self.report(finding)?;
            }
            (Content::Map(_), None) => {
                let at = tree.at;
                let text = key_text(tree);
                open.key = Some((text.clone().unwrap_or_default(), at));
                if text.is_none() {
                    let message = "a key must be text";
                    let fix = "write a word before the colon; braces in a value need quotes";
                    let finding = self.finding(code::KEY_NOT_TEXT, at, message, fix);
                    self.report(finding)?;
                }
            }
            (Content::List(items), _) => items.push(tree),
            (Content::Empty | Content::Scalar(..), _) => {}
        }
        Ok(())
    }

    fn plain(&mut self, text: &str, at: Spot) -> Result<Value, Finding> {
        let key = self
            .open
            .last()
            .is_some_and(|o| matches!(o.content, Content::Map(_)) && o.key.is_none());
        let word = matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off");
        if key {
            return Ok(Value::String(text.to_owned()));
        }
        if word {
            let truth = matches!(text.to_ascii_lowercase().as_str(), "yes" | "on");
            let message =
                format!("`{text}` is a boolean to some readers of YAML and text to others");
            let fix = format!("write {truth}, or '{text}' in quotes");
            let finding = self.finding(code::BOOLEAN_WORD, at, message, fix);
            self.report(finding)?;
        }
        if let Some(Err(NotKept)) = number(text) {
            let message = format!("the number {text} cannot be kept to the digit");
            let fix = "put it in quotes if it is a text, such as an id, or write fewer digits";
            let finding = self.finding(code::NUMBER_DIGITS, at, message, fix);
            self.report(finding)?;
        }
        Ok(scalar(text))
    }

    fn tag(&mut self, tag: &str, at: Spot) -> Result<(), Finding> {
        let message = format!("the tag `{tag}` has no meaning here");
        let finding = self.finding(code::TAG, at, message, "remove it; put text in quotes");
        self.report(finding)
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
    let line = lines(text).nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
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
