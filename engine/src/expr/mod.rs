//! The one language of values: minijinja, as expressions (`when`, `over`, `set`) and templates
//! (`system`, `prompt`, `args`).
//!
//! | file | what it does |
//! |---|---|
//! | `words.rs` | where names, filters and tests stand in a source |
//! | `view.rs` | state and scope as the language sees them, without copying |
//! | `value.rs` | JSON values whose strings are templates |
//! | `result.rs` | from the language's values to JSON |
//!
//! Invariants:
//! - Evaluation reads the state, the [`Scope`] and nothing else; it always ends: instructions and
//!   bytes cost fuel, and a result has at most [`RESULT_LIMIT`] bytes.
//! - An undefined name or key is an error, never empty text.
//! - Absent on purpose: includes, imports and macros (one value, one text), HTML escaping.

mod result;
mod value;
mod view;
mod words;

use std::io;
use std::sync::{Arc, LazyLock};

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use crate::id::{ConversationId, RunId, UserId};
use crate::state::State;
pub use value::ValueTemplate;
use words::Words;

/// Longest text that an evaluation may give, in bytes.
pub const RESULT_LIMIT: usize = 256 * 1024;

/// Longest source of an expression or template, in bytes.
pub const SOURCE_LIMIT: usize = 64 * 1024;

/// What one evaluation may use up: an instruction costs one, 64 bytes of text one.
const FUEL: u64 = 500_000;

/// Names that every expression may read besides the channels.
pub const SCOPE_NAMES: [&str; 4] = ["conversation", "now", "run", "user"];

/// The name under which a node reads the failure that it handles ([`Scope::error`]).
pub const ERROR_NAME: &str = "error";

/// What may be read besides the state.
#[derive(Clone, Debug)]
pub struct Scope {
    /// `user.id`.
    pub user: UserId,
    /// `run.id`.
    pub run: RunId,
    /// `run.graph`.
    pub graph: Arc<str>,
    /// `conversation.id`; null without one.
    pub conversation: Option<ConversationId>,
    /// `now`: ISO 8601 in UTC; the moment the step began, so that recovery reads the same.
    pub now: jiff::Timestamp,
    /// `error`: the failure that the node handles. `None` in every task that no `on_error` fired:
    /// there `error` is undefined. A channel of that name comes first.
    pub error: Option<Arc<NodeFailure>>,
}

/// Why a node failed for good, as the node that its `on_error` names reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFailure {
    /// `error.code`: the stable code, e.g. `tool_failed` ([`NodeError::code`]).
    ///
    /// [`NodeError::code`]: crate::node::NodeError::code
    pub code: Arc<str>,
    /// `error.message`: the error's own words.
    pub message: Arc<str>,
    /// `error.node`: the name of the node that failed.
    pub node: Arc<str>,
    /// `error.item`: the number of the item that failed, counted from 1 as in the paths of tasks,
    /// where the node is a `map`; null elsewhere.
    pub item: Option<usize>,
}

/// A compiled expression.
pub struct Expression {
    source: String,
    program: minijinja::Expression<'static, 'static>,
}

/// A compiled template: its result is text.
pub struct Template {
    source: String,
    /// The shared language and, under [`TEMPLATE`], this one template.
    language: Environment<'static>,
}

/// A name that a source reads and does not define itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The name.
    pub name: String,
    /// Where it first stands, in bytes from the source's start.
    pub at: usize,
}

/// A source that does not compile, or a failed evaluation: undefined name, wrong type, out of
/// fuel, too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// What, and where inside the expression.
    pub message: String,
    /// Where it stands, in bytes from the source's start, if that is known.
    pub at: Option<usize>,
}

/// The name of the one template in a [`Template`]'s environment.
const TEMPLATE: &str = "template";

static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut language = Environment::new();
    language.set_undefined_behavior(UndefinedBehavior::Strict);
    language.set_auto_escape_callback(|_| AutoEscape::None);
    language.set_fuel(Some(FUEL));
    // The library's own escapes `<` and `&` for HTML; models read plain JSON.
    language.add_filter("tojson", result::to_json_text);
    // It prints everything there is, the state included.
    language.remove_global("debug");
    language
});

impl Expression {
    /// Compiles a source; unknown filters and tests are found here, unknown names by the caller
    /// with [`reads`](Self::reads).
    pub fn compile(source: &str) -> Result<Self, ExprError> {
        bounded(source)?;
        if source.trim().is_empty() {
            return Err(ExprError::new("an expression cannot be empty", Some(0)));
        }
        let program = LANGUAGE
            .compile_expression_owned(source.to_owned())
            .map_err(|error| ExprError::of(&error, source))?;
        check_words(&Words::of_expression(source))?;
        Ok(Self { source: source.to_owned(), program })
    }

    /// What it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names that it needs from outside, in the order of their first places.
    #[must_use]
    pub fn reads(&self) -> Vec<Read> {
        reads(self.program.undeclared_variables(false), &Words::of_expression(&self.source))
    }

    /// Texts that it gives as they stand, without anything read, and where: both of
    /// `'a' if x else 'b'`.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(String, usize)> {
        let given = words::outcomes(&self.source);
        given.into_iter().map(|(text, at)| (text.to_owned(), at)).collect()
    }

    /// Any value.
    pub fn eval(&self, state: &State, scope: &Scope) -> Result<Value, ExprError> {
        let value = self.value(state, scope)?;
        result::to_json(&value).map_err(|why| self.failed(&why))
    }

    /// A boolean; anything else is an error.
    pub fn test(&self, state: &State, scope: &Scope) -> Result<bool, ExprError> {
        match self.eval(state, scope)? {
            Value::Bool(yes) => Ok(yes),
            other => Err(self.failed(&format!(
                "gave {}, which is neither true nor false; write a comparison",
                crate::state::short(&other)
            ))),
        }
    }

    fn value(&self, state: &State, scope: &Scope) -> Result<minijinja::Value, ExprError> {
        self.program
            .eval(view::root(state, scope))
            .map_err(|error| ExprError::of(&error, &self.source))
    }

    fn failed(&self, why: &str) -> ExprError {
        ExprError::new(format!("`{}` {why}", excerpt(&self.source)), None)
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl Template {
    /// Compiles a source; unknown filters and tests are found here, unknown names by the caller
    /// with [`reads`](Self::reads).
    pub fn compile(source: &str) -> Result<Self, ExprError> {
        bounded(source)?;
        let mut language = LANGUAGE.clone();
        language
            .add_template_owned(TEMPLATE, source.to_owned())
            .map_err(|error| ExprError::of(&error, source))?;
        check_words(&Words::of_template(source))?;
        Ok(Self { source: source.to_owned(), language })
    }

    /// What it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names that it needs from outside, in the order of their first places.
    #[must_use]
    pub fn reads(&self) -> Vec<Read> {
        let names = match self.language.get_template(TEMPLATE) {
            Ok(template) => template.undeclared_variables(false),
            Err(_) => return Vec::new(),
        };
        reads(names, &Words::of_template(&self.source))
    }

    /// Text.
    pub fn render(&self, state: &State, scope: &Scope) -> Result<String, ExprError> {
        let failed = |error: minijinja::Error| ExprError::of(&error, &self.source);
        let mut text = Bounded(Vec::new());
        self.language
            .get_template(TEMPLATE)
            .map_err(failed)?
            .render_captured_to(view::root(state, scope), &mut text)
            .map_err(failed)?;
        String::from_utf8(text.0).map_err(|error| ExprError::new(error.to_string(), None))
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Template").field(&self.source).finish()
    }
}

fn bounded(source: &str) -> Result<(), ExprError> {
    if source.len() <= SOURCE_LIMIT {
        return Ok(());
    }
    let message = format!("{} bytes are more than the {SOURCE_LIMIT} allowed", source.len());
    Err(ExprError::new(message, Some(0)))
}

/// Filters and tests are looked up only when they run; here a misspelt one is found at once.
fn check_words(words: &Words<'_>) -> Result<(), ExprError> {
    let mut state = LANGUAGE.empty_state();
    for (name, at) in words.filters() {
        let unknown = state.apply_filter(name, &[]).err().map(|error| error.kind());
        if unknown == Some(ErrorKind::UnknownFilter) {
            return Err(ExprError::new(format!("no filter is named `{name}`"), Some(at)));
        }
    }
    for (name, at) in words.tests() {
        let unknown = state.perform_test(name, &[]).err().map(|error| error.kind());
        if unknown == Some(ErrorKind::UnknownTest) {
            return Err(ExprError::new(format!("no test is named `{name}`"), Some(at)));
        }
    }
    Ok(())
}

fn reads(names: std::collections::HashSet<String>, words: &Words<'_>) -> Vec<Read> {
    let foreign = |name: &String| LANGUAGE.globals().all(|(global, _)| global != name);
    let mut reads: Vec<Read> = names
        .into_iter()
        .filter(foreign)
        .map(|name| Read { at: words.variable(&name).unwrap_or(0), name })
        .collect();
    reads.sort_by(|a, b| (a.at, &a.name).cmp(&(b.at, &b.name)));
    reads
}

impl ExprError {
    fn new(message: impl Into<String>, at: Option<usize>) -> Self {
        Self { message: message.into(), at }
    }

    fn of(error: &minijinja::Error, source: &str) -> Self {
        if let Some(too_long) = std::error::Error::source(error)
            && too_long.downcast_ref::<io::Error>().is_some()
        {
            return Self::new(too_long.to_string(), None);
        }
        let range = error.range().filter(|range| source.get(range.clone()).is_some());
        let what = match (error.kind(), error.detail()) {
            (ErrorKind::SyntaxError, Some(detail)) => detail.to_owned(),
            (ErrorKind::OutOfFuel, _) => "it takes too long: more work than allowed".to_owned(),
            (kind, Some(detail)) => format!("{kind}: {detail}"),
            (kind, None) => kind.to_string(),
        };
        let place = range.clone().and_then(|range| source.get(range)).unwrap_or(source);
        Self::new(format!("{what} in `{}`", excerpt(place)), range.map(|range| range.start))
    }
}

/// A source in at most 80 characters, for error texts.
fn excerpt(source: &str) -> String {
    let line = source.trim().lines().next().unwrap_or_default();
    if line.chars().count() <= 80 {
        line.to_owned()
    } else {
        line.chars().take(77).chain("...".chars()).collect()
    }
}

/// A buffer that refuses to grow beyond [`RESULT_LIMIT`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RESULT_LIMIT {
            return Err(io::Error::other(format!(
                "the text is longer than the {RESULT_LIMIT} bytes allowed"
            )));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where template braces stand in what should be an expression (`{{ amount }} > 500`), in bytes.
#[must_use]
pub fn braces(source: &str) -> Option<usize> {
    words::braces(source)
}

/// Whether a source is nothing but one name.
#[must_use]
pub fn is_bare_name(source: &str) -> bool {
    let mut chars = source.trim().chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}
