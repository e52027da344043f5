//! The one language of values: that of minijinja, as expressions (`when`, `over`, `set`) and
//! templates (`system`, `prompt`, `args`).
//!
//! The library parses; evaluating is done here, because what files hold is not trusted: its values
//! may hold themselves, may be deeper than any stack and larger than any memory while their parts
//! are small, and everything can be compared with everything. Here values cannot, and comparing
//! unlike kinds is an error (`compare.rs`). Otherwise a source means what it means to the library;
//! a test compares the two.
//!
//! | file | what it does |
//! |---|---|
//! | `nesting.rs` | refuses what is too deep to be parsed |
//! | `parse.rs`, `syntax.rs` | from the library's tree to one of our own, and what it reads |
//! | `eval.rs`, `render.rs` | expressions, and the statements of templates |
//! | `budget.rs` | steps and bytes that an evaluation may use up |
//! | `datum.rs`, `access.rs` | values, and what is inside them |
//! | `compare.rs`, `operate.rs`, `numbers.rs` | operators |
//! | `filters/`, `checks.rs`, `functions.rs`, `arguments.rs` | what can be called |
//! | `print.rs`, `result.rs` | from values to text and to JSON |
//! | `value.rs` | JSON values whose strings are templates |
//!
//! Invariants:
//! - Evaluation reads the state, the [`Scope`] and nothing else; it always ends, and takes no more
//!   memory, stack and time than [`ExpressionLimits`] allow, whatever its source says.
//! - An undefined name or key is an error, never empty text. A number is kept or refused.
//! - Absent on purpose: includes, imports and macros (one value, one text), HTML escaping.

mod access;
mod arguments;
mod budget;
mod checks;
mod compare;
mod datum;
mod eval;
mod filters;
mod functions;
mod nesting;
mod numbers;
mod operate;
mod parse;
mod print;
mod render;
mod result;
mod syntax;
mod value;

use std::sync::Arc;

use serde_json::Value;

use self::budget::{Budget, Fault};
use self::eval::Eval;
use self::parse::Parsed;
use self::syntax::{Constant, Node, Step, What};
pub use self::value::ValueTemplate;
use crate::id::{ConversationId, RunId, UserId};
use crate::limits::ExpressionLimits;
use crate::state::{ChannelValue, State};

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
    tree: Node,
    reads: Vec<Read>,
    limits: ExpressionLimits,
}

/// A compiled template: its result is text.
pub struct Template {
    source: String,
    steps: Vec<Step>,
    reads: Vec<Read>,
    limits: ExpressionLimits,
}

/// A name that a source reads and does not define itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The name.
    pub name: String,
    /// Where it first stands, in bytes from the source's start.
    pub at: usize,
}

/// A source that does not compile, or a failed evaluation: undefined name, wrong type, a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// What, and where inside the expression.
    pub message: String,
    /// Where it stands, in bytes from the source's start, if that is known.
    pub at: Option<usize>,
}

impl Expression {
    /// Compiles a source within the limits that apply by default.
    pub fn compile(source: &str) -> Result<Self, ExprError> {
        Self::compile_within(source, ExpressionLimits::default())
    }

    /// Compiles a source; unknown filters, tests and functions are found here, unknown names by the
    /// caller with [`reads`](Self::reads).
    pub fn compile_within(source: &str, limits: ExpressionLimits) -> Result<Self, ExprError> {
        let Parsed { tree, reads } = parse::expression(source, &limits)?;
        Ok(Self { source: source.to_owned(), tree, reads, limits })
    }

    /// What it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names that it needs from outside, in the order of their first places.
    #[must_use]
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// Texts that it gives as they stand, without anything read, and where: both of
    /// `'a' if x else 'b'`.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(&str, usize)> {
        let mut found = Vec::new();
        match &self.tree.what {
            What::List(items) => items.iter().for_each(|item| outcomes(item, &mut found)),
            _ => outcomes(&self.tree, &mut found),
        }
        found
    }

    /// Any value.
    pub fn eval(&self, state: &State, scope: &Scope) -> Result<Value, ExprError> {
        let budget = Budget::new(self.limits);
        let value = Eval::new(&budget, state, scope).value(&self.tree);
        let json = value.and_then(|value| {
            result::to_json(&budget, &value).map_err(|fault| fault.at(self.tree.place))
        });
        json.map_err(|fault| ExprError::of(&fault, &self.source))
    }

    /// Any value, to be put into a channel. One that a channel holds is shared with it.
    pub fn eval_channel(&self, state: &State, scope: &Scope) -> Result<ChannelValue, ExprError> {
        if let What::Name(name) = &self.tree.what
            && !SCOPE_NAMES.contains(&&**name)
            && let Some(value) = state.get(name)
        {
            return Ok(value.clone());
        }
        self.eval(state, scope).map(Into::into)
    }

    /// A boolean; anything else is an error.
    pub fn test(&self, state: &State, scope: &Scope) -> Result<bool, ExprError> {
        match self.eval(state, scope)? {
            Value::Bool(yes) => Ok(yes),
            other => {
                let (source, got) = (excerpt(&self.source), crate::state::short(&other));
                let message = format!(
                    "`{source}` gave {got}, which is neither true nor false; write a comparison"
                );
                Err(ExprError::new(message, None))
            }
        }
    }
}

/// Texts that an expression gives as they stand.
fn outcomes<'n>(node: &'n Node, found: &mut Vec<(&'n str, usize)>) {
    match &node.what {
        What::Constant(Constant::Text(text)) => {
            found.push((text, usize::try_from(node.place.from).unwrap_or_default()));
        }
        What::Choice(choice) => {
            outcomes(&choice.yes, found);
            choice.no.iter().for_each(|no| outcomes(no, found));
        }
        _ => {}
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl Template {
    /// Compiles a source within the limits that apply by default.
    pub fn compile(source: &str) -> Result<Self, ExprError> {
        Self::compile_within(source, ExpressionLimits::default())
    }

    /// Compiles a source; unknown filters, tests and functions are found here, unknown names by the
    /// caller with [`reads`](Self::reads).
    pub fn compile_within(source: &str, limits: ExpressionLimits) -> Result<Self, ExprError> {
        let Parsed { tree, reads } = parse::template(source, &limits)?;
        Ok(Self { source: source.to_owned(), steps: tree, reads, limits })
    }

    /// What it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names that it needs from outside, in the order of their first places.
    #[must_use]
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// Text.
    pub fn render(&self, state: &State, scope: &Scope) -> Result<String, ExprError> {
        let budget = Budget::new(self.limits);
        let text = Eval::new(&budget, state, scope).render(&self.steps);
        text.map_err(|fault| ExprError::of(&fault, &self.source))
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Template").field(&self.source).finish()
    }
}

impl ExprError {
    fn new(message: impl Into<String>, at: Option<usize>) -> Self {
        Self { message: message.into(), at }
    }

    fn of(fault: &Fault, source: &str) -> Self {
        let offset = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
        let range = fault.place().map(|place| offset(place.from)..offset(place.to));
        let place = range.clone().map_or(source, |range| with_brackets(source, range));
        let message = format!("{} in `{}`", fault.message(), excerpt(place));
        Self::new(message, range.map(|range| range.start))
    }
}

/// Part of a source, with the brackets around its beginning that close in it: a tree has none.
fn with_brackets(source: &str, range: std::ops::Range<usize>) -> &str {
    let Some(part) = source.get(range.clone()) else { return source };
    let (open, shut) = (part.matches('(').count(), part.matches(')').count());
    let mut from = range.start;
    for _ in open..shut {
        match source[..from].trim_end().strip_suffix('(') {
            Some(before) => from = before.len(),
            None => break,
        }
    }
    source.get(from..range.end).unwrap_or(part)
}

/// A source in at most 80 characters, for error texts.
fn excerpt(source: &str) -> String {
    let line = source.trim().lines().next().unwrap_or_default();
    let cut = line.char_indices().nth(77).filter(|(at, _)| line[*at..].chars().nth(3).is_some());
    match cut {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

/// Where template braces stand in what should be an expression (`{{ amount }} > 500`), outside
/// its texts, in bytes.
#[must_use]
pub fn braces(source: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in source.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '{') if source[at + 1..].starts_with(['{', '%']) => return Some(at),
            _ => {}
        }
    }
    None
}

/// Whether a source is nothing but one name.
#[must_use]
pub fn is_bare_name(source: &str) -> bool {
    let mut chars = source.trim().chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}
