//! A YAML file as a tree that knows where everything stands. [`yaml::parse`](crate::yaml::parse)
//! makes it; JSON pointers (`/nodes/answer/kind`) lead into it.

use indexmap::IndexMap;
use serde_json::Value;

use crate::diagnostic::{Finding, Place, lines, narrow};

/// A file that was read. What is wrong with single values is kept beside the tree, so that the
/// rest can be checked all the same.
#[derive(Debug)]
pub struct Document {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) root: Tree,
    pub(crate) findings: Vec<Finding>,
}

/// One value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) at: Spot,
    pub(crate) content: Content,
    /// How much it is, itself included.
    pub(crate) size: Extent,
}

/// How much a value is, aliases counted as all that they stand for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extent {
    pub(crate) values: usize,
    /// Of texts and keys.
    pub(crate) bytes: usize,
}

impl Extent {
    pub(crate) fn add(&mut self, more: Self) {
        self.values = self.values.saturating_add(more.values);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// Where a value begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) place: Place,
    /// In bytes from the start of the text.
    pub(crate) offset: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Nothing is written, as in `key:`.
    Empty,
    Scalar(Value, Style),
    List(Vec<Tree>),
    /// By key; of a duplicate key the first stands.
    Map(IndexMap<String, Entry>),
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Quoted,
    /// A block after `|`.
    Literal,
    /// A block after `>`.
    Folded,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Spot,
    pub(crate) value: Tree,
}

impl Document {
    /// As given to the parser.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The text that was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Duplicate keys, boolean words and the like: errors, but the tree is there.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The whole file as JSON; of a duplicate key the first stands.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.root.to_json()
    }

    /// The value at a pointer.
    #[must_use]
    pub fn value(&self, pointer: &str) -> Option<Value> {
        self.find(pointer).map(|(_, tree)| tree.to_json())
    }

    /// The keys of the map at a pointer, in order; none if there is no map.
    #[must_use]
    pub fn keys(&self, pointer: &str) -> Vec<&str> {
        match self.find(pointer).map(|(_, tree)| &tree.content) {
            Some(Content::Map(entries)) => entries.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Where the value at a pointer begins; of a value that is not there, the nearest value
    /// around it.
    #[must_use]
    pub fn place(&self, pointer: &str) -> Place {
        match self.nearest(pointer) {
            (Some(entry), Tree { content: Content::Empty, .. }) => entry.at.place,
            (_, tree) => tree.at.place,
        }
    }

    /// Where the key at a pointer stands; for an item of a list, the item.
    #[must_use]
    pub fn key_place(&self, pointer: &str) -> Place {
        match self.nearest(pointer) {
            (Some(entry), _) => entry.at.place,
            (None, tree) => tree.at.place,
        }
    }

    /// Where the byte `at` of the text at a pointer stands. Exact for literal blocks and for
    /// plain and quoted text of one line without escapes; otherwise where the text begins.
    #[must_use]
    pub fn place_inside(&self, pointer: &str, at: usize) -> Place {
        let begin = self.place(pointer);
        self.inside(pointer, at).unwrap_or(begin)
    }

    fn inside(&self, pointer: &str, at: usize) -> Option<Place> {
        let (_, tree) = self.find(pointer)?;
        let Content::Scalar(Value::String(text), style) = &tree.content else { return None };
        let (before, begin) = (text.get(..at)?, tree.at.place);
        match style {
            Style::Literal => {
                // The parser's place is that of the first line that is not empty.
                let empty = text.lines().take_while(|line| line.is_empty()).count();
                let row = before.matches('\n').count();
                let line = (usize::try_from(begin.line).ok()? + row).checked_sub(empty + 1)?;
                let indent = lines(&self.text).nth(line)?.strip_suffix(text.lines().nth(row)?)?;
                let left = before.rsplit('\n').next()?;
                let column = indent.chars().count() + left.chars().count();
                Some(Place { line: narrow(line + 1), column: narrow(column + 1) })
            }
            Style::Folded => None,
            Style::Plain | Style::Quoted => {
                let quote = usize::from(*style == Style::Quoted);
                let source = self.text.get(tree.at.offset + quote..)?;
                let same = source.starts_with(before) && !before.contains('\n');
                let column = narrow(quote + before.chars().count());
                same.then(|| Place { column: begin.column + column, ..begin })
            }
        }
    }

    /// An error at the value of a pointer.
    #[must_use]
    pub fn error_at(
        &self,
        code: &'static str,
        pointer: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding::error(code, &self.path, self.place(pointer), message, fix)
    }

    /// An error at the key of a pointer.
    #[must_use]
    pub fn error_at_key(
        &self,
        code: &'static str,
        pointer: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding::error(code, &self.path, self.key_place(pointer), message, fix)
    }

    fn find(&self, pointer: &str) -> Option<(Option<&Entry>, &Tree)> {
        steps(pointer).try_fold((None, &self.root), |(_, tree), step| tree.child(&step))
    }

    fn nearest(&self, pointer: &str) -> (Option<&Entry>, &Tree) {
        let mut found = (None, &self.root);
        for step in steps(pointer) {
            match found.1.child(&step) {
                Some(child) => found = child,
                None => break,
            }
        }
        found
    }
}

fn steps(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"))
}

/// The pointer to a child.
#[must_use]
pub fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

impl Tree {
    fn child(&self, step: &str) -> Option<(Option<&Entry>, &Self)> {
        match &self.content {
            Content::Empty | Content::Scalar(..) => None,
            Content::List(items) => Some((None, items.get(step.parse::<usize>().ok()?)?)),
            Content::Map(entries) => entries.get(step).map(|entry| (Some(entry), &entry.value)),
        }
    }

    fn to_json(&self) -> Value {
        match &self.content {
            Content::Empty => Value::Null,
            Content::Scalar(value, _) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Content::Map(entries) => {
                let json = |(key, entry): (&String, &Entry)| (key.clone(), entry.value.to_json());
                Value::Object(entries.iter().map(json).collect())
            }
        }
    }
}
