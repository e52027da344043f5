//! Compiles the expressions and templates of a document; what is wrong is found at its place
//! inside the text.

use serde_json::Value;

use crate::diagnostic::{FINDINGS_LIMIT, Finding, code, suggest};
use crate::document::{Document, child};
use crate::expr::{
    self, ERROR_NAME, ExprError, Expression, Read, SCOPE_NAMES, Template, ValueTemplate,
};
use crate::graph::build::{Access, ScopeRead};
use crate::limits::ExpressionLimits;
use crate::state::Channels;

/// Where texts stand, what they may read, and where findings and what they read go.
pub(super) struct Texts<'a> {
    pub(super) document: &'a Document,
    pub(super) channels: &'a Channels,
    pub(super) limits: ExpressionLimits,
    /// Whether they belong to a node that handles another's failure and may read `error`.
    pub(super) handles_error: bool,
    pub(super) reads: &'a mut Vec<Access>,
    pub(super) scope: &'a mut Vec<ScopeRead>,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl Texts<'_> {
    /// The expression at a pointer. Findings are reported, and `None` given for an error.
    pub(super) fn expression(&mut self, pointer: &str, source: &str) -> Option<Expression> {
        if let Some(at) = expr::braces(source) {
            let message = "an expression is written without braces";
            let inner = source.replace("{{", "").replace("}}", "");
            let fix = format!("write `{}`", inner.split_whitespace().collect::<Vec<_>>().join(" "));
            self.report(code::BRACES_IN_EXPRESSION, pointer, at, message.to_owned(), fix);
            return None;
        }
        let expression = match Expression::compile_within(source, self.limits) {
            Ok(expression) => expression,
            Err(error) => return self.syntax(pointer, &error),
        };
        let unknown = self.unknown(pointer, expression.reads());
        if unknown.is_empty() {
            return Some(expression);
        }
        if expr::is_bare_name(source) && source.trim() != ERROR_NAME {
            let word = source.trim();
            let message = format!("`{word}` is no channel");
            let known = self.known();
            let fix = match crate::diagnostic::closest(word, known.iter().map(String::as_str)) {
                Some(close) => {
                    format!("for the text write \"'{word}'\"; or did you mean `{close}`?")
                }
                None => format!(
                    "for the text write \"'{word}'\"; for a value declare `{word}` under `state`"
                ),
            };
            self.report(code::BARE_WORD, pointer, unknown[0].at, message, fix);
        } else {
            self.unknown_variables(pointer, unknown);
        }
        None
    }

    /// The template at a pointer.
    pub(super) fn template(&mut self, pointer: &str, source: &str) -> Option<Template> {
        match Template::compile_within(source, self.limits) {
            Ok(template) => {
                let unknown = self.unknown(pointer, template.reads());
                let good = unknown.is_empty();
                self.unknown_variables(pointer, unknown);
                good.then_some(template)
            }
            Err(error) => self.syntax(pointer, &error),
        }
    }

    /// The value at a pointer, with every string in it a template.
    pub(super) fn value(&mut self, pointer: &str, value: &Value) -> Option<ValueTemplate> {
        let before = self.findings.len();
        self.strings(pointer, value);
        if self.findings.len() > before {
            return None;
        }
        match ValueTemplate::compile_within(value, self.limits) {
            Ok(template) => Some(template),
            Err(error) => self.syntax(pointer, &error),
        }
    }

    /// Checks one string after another, so that each finding has its own place.
    fn strings(&mut self, pointer: &str, value: &Value) {
        match value {
            Value::String(_) => match ValueTemplate::compile_within(value, self.limits) {
                Ok(template) => {
                    let unknown = self.unknown(pointer, &template.reads());
                    self.unknown_variables(pointer, unknown);
                }
                Err(error) => {
                    let _: Option<()> = self.syntax(pointer, &error);
                }
            },
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.strings(&format!("{pointer}/{i}"), item);
                }
            }
            Value::Object(map) => {
                for (key, item) in map {
                    self.strings(&child(pointer, key), item);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Notes the channels among `reads`; the names that are nothing.
    fn unknown(&mut self, pointer: &str, reads: &[Read]) -> Vec<Read> {
        let mut unknown = Vec::new();
        for read in reads {
            if let Some(channel) = self.channels.get(&read.name) {
                let (channel, pointer) = (channel.name.clone(), pointer.to_owned());
                self.reads.push(Access { channel, pointer, at: Some(read.at) });
            } else if let Some(name) = self.in_scope(&read.name) {
                self.scope.push(ScopeRead { name, pointer: pointer.to_owned(), at: read.at });
            } else {
                unknown.push(read.clone());
            }
        }
        unknown
    }

    fn unknown_variables(&mut self, pointer: &str, unknown: Vec<Read>) {
        for Read { name, at } in unknown {
            if self.findings.len() > FINDINGS_LIMIT {
                break;
            }
            let message =
                format!("`{name}` is no channel, and none of user, run, conversation, now");
            let fix = if name == ERROR_NAME {
                "`error` is there in a node that another node's `on_error` names, and in what \
                 stands inside it: write it to a channel there, and read that"
                    .to_owned()
            } else {
                suggest(&name, self.known().iter().map(String::as_str))
            };
            self.report(code::UNKNOWN_VARIABLE, pointer, at, message, fix);
        }
    }

    /// A name that is no channel and can be read all the same.
    fn in_scope(&self, name: &str) -> Option<&'static str> {
        let mut names = SCOPE_NAMES.into_iter().chain(self.handles_error.then_some(ERROR_NAME));
        names.find(|known| *known == name)
    }

    fn known(&self) -> Vec<String> {
        let scope = SCOPE_NAMES.iter().chain(self.handles_error.then_some(&ERROR_NAME));
        let channels = self.channels.iter().map(|channel| channel.name.to_string());
        channels.chain(scope.map(|name| (*name).to_owned())).collect()
    }

    fn syntax<T>(&mut self, pointer: &str, error: &ExprError) -> Option<T> {
        let fix = "see minijinja's syntax: comparisons `a == 'b'`, filters `list | length`";
        let at = error.at.unwrap_or_default();
        self.report(code::EXPRESSION, pointer, at, error.message.clone(), fix.to_owned());
        None
    }

    fn report(
        &mut self,
        code: &'static str,
        pointer: &str,
        at: usize,
        message: String,
        fix: String,
    ) {
        let place = self.document.place_inside(pointer, at);
        self.findings.push(Finding::error(code, self.document.path(), place, message, fix));
    }
}
