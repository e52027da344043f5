//! Values as text, as the library prints them: `True`, `None`, `1.0`, `[1, 'a']`, `{'k': 'v'}`.
//!
//! Invariants:
//! - Every byte is paid for, and refused beyond `expression_result`, before it is kept: a value
//!   that shares much of itself ends at the limit, not in memory.

use std::fmt::Write as _;

use serde_json::Value;

use crate::expr::budget::{Budget, Outcome};
use crate::expr::datum::{Datum, undefined};

/// A text that is being made.
pub(super) struct Sink<'b> {
    budget: &'b Budget,
    text: String,
    /// Bytes of it that are paid for.
    paid: usize,
}

/// How lists and maps are laid out.
#[derive(Clone, Copy)]
enum Layout {
    Line,
    /// One item a line, this deep.
    Block(usize),
}

impl<'b> Sink<'b> {
    pub(super) fn new(budget: &'b Budget) -> Self {
        Self { budget, text: String::new(), paid: 0 }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Adds a text as it stands.
    pub(super) fn push(&mut self, text: &str) -> Outcome<()> {
        self.budget.fits(self.text.len().saturating_add(text.len()))?;
        // Many small pieces make a step together.
        let unpaid = self.text.len() + text.len() - self.paid;
        if unpaid >= crate::expr::budget::BYTES {
            self.budget.bytes(unpaid)?;
            self.paid += unpaid;
        }
        self.text.push_str(text);
        Ok(())
    }

    /// Adds a value as `{{ … }}` shows it.
    pub(super) fn print(&mut self, datum: &Datum<'_>) -> Outcome<()> {
        match datum {
            Datum::Undefined { silent: true } => Ok(()),
            Datum::Undefined { silent: false } => undefined(),
            Datum::Text(text) => self.push(text.as_str()),
            Datum::Float(float) => {
                let mut text = float.to_string();
                if !text.contains('.') {
                    text.push_str(".0");
                }
                self.push(&text)
            }
            other => self.inside(other, Layout::Line),
        }
    }

    /// Adds a value with one item a line.
    pub(super) fn pretty(&mut self, datum: &Datum<'_>) -> Outcome<()> {
        self.inside(datum, Layout::Block(0))
    }

    /// A value as it stands inside a list.
    fn inside(&mut self, datum: &Datum<'_>, layout: Layout) -> Outcome<()> {
        match datum {
            Datum::Undefined { .. } => self.push("undefined"),
            Datum::Null => self.push("None"),
            Datum::Bool(yes) => self.push(if *yes { "True" } else { "False" }),
            Datum::Int(whole) => self.push(&whole.to_string()),
            Datum::Float(float) => self.push(&format!("{float:?}")),
            Datum::Text(text) => self.quoted(text.as_str()),
            Datum::Json(Value::Object(_)) | Datum::Map(_) => {
                let pairs = self.budget.pairs(datum)?.unwrap_or_default();
                let pairs = pairs.into_iter().map(|(key, value)| (Some(key.into()), value));
                self.container(['{', '}'], pairs, layout)
            }
            Datum::Json(_) | Datum::Messages(_) | Datum::List(_) => {
                let list = self.budget.sequence(datum)?;
                let items = list.items.iter().map(|item| (None, item.clone()));
                self.container(['[', ']'], items, layout)
            }
            Datum::Loop(around) => {
                let (index, length) = (around.index.get(), around.items.items.len());
                self.push(&format!("<loop {index}/{length}>"))
            }
            Datum::Namespace(namespace) => {
                let values = namespace.values.borrow();
                let pairs = values
                    .iter()
                    .map(|(name, value)| (Some(Datum::Text(name.clone())), value.clone()));
                self.container(['{', '}'], pairs, layout)
            }
        }
    }

    /// Adds what a value has in common with those that are equal to it, and with no other.
    pub(super) fn identity(&mut self, datum: &Datum<'_>) -> Outcome<()> {
        match datum {
            Datum::Undefined { .. } => self.push("u"),
            Datum::Null => self.push("n"),
            Datum::Bool(yes) => self.push(if *yes { "b1" } else { "b0" }),
            Datum::Int(whole) => self.push(&format!("i{whole};")),
            Datum::Float(float) => match datum.as_int() {
                Some(whole) => self.push(&format!("i{whole};")),
                None => self.push(&format!("f{float};")),
            },
            Datum::Text(text) => {
                self.push(&format!("t{};", text.as_str().len()))?;
                self.push(text.as_str())
            }
            Datum::Json(Value::Object(_)) | Datum::Map(_) => {
                let mut pairs = self.budget.pairs(datum)?.unwrap_or_default();
                pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                self.push("{")?;
                for (key, value) in pairs {
                    self.identity(&key.into())?;
                    self.identity(&value)?;
                }
                self.push("}")
            }
            Datum::Json(_) | Datum::Messages(_) | Datum::List(_) => {
                self.push("[")?;
                for item in &self.budget.sequence(datum)?.items {
                    self.identity(item)?;
                }
                self.push("]")
            }
            // They stand in no list, and are the same as themselves alone.
            Datum::Loop(_) | Datum::Namespace(_) => self.push("?"),
        }
    }

    fn container<'s>(
        &mut self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = (Option<Datum<'s>>, Datum<'s>)>,
        layout: Layout,
    ) -> Outcome<()> {
        let within = match layout {
            Layout::Line => Layout::Line,
            Layout::Block(depth) => Layout::Block(depth + 1),
        };
        self.push(open.encode_utf8(&mut [0; 4]))?;
        let mut first = true;
        for (key, value) in items {
            match within {
                Layout::Line if first => {}
                Layout::Line => self.push(", ")?,
                Layout::Block(depth) => self.line(depth)?,
            }
            first = false;
            if let Some(key) = key {
                self.inside(&key, Layout::Line)?;
                self.push(": ")?;
            }
            self.inside(&value, within)?;
            if let Layout::Block(_) = within {
                self.push(",")?;
            }
        }
        if let (Layout::Block(depth), false) = (layout, first) {
            self.line(depth)?;
        }
        self.push(close.encode_utf8(&mut [0; 4]))
    }

    fn line(&mut self, depth: usize) -> Outcome<()> {
        self.push("\n")?;
        (0..depth).try_for_each(|_| self.push("    "))
    }

    /// A text in quotes, as Python writes it.
    fn quoted(&mut self, text: &str) -> Outcome<()> {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        let mut quoted = String::with_capacity(64);
        quoted.push(quote);
        for c in text.chars() {
            match c {
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                c if c == quote => quoted.extend(['\\', c]),
                c if c.is_control() => {
                    // Writing to a String cannot fail.
                    let _ = write!(quoted, "\\x{:02x}", u32::from(c));
                }
                c => quoted.push(c),
            }
            if quoted.len() > 4096 {
                self.push(&quoted)?;
                quoted.clear();
            }
        }
        quoted.push(quote);
        self.push(&quoted)
    }
}
