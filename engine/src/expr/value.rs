//! JSON values whose strings are templates, e.g. a tool's `args`.

use serde_json::Value;

use super::{ExprError, Expression, Read, Scope, Template};
use crate::limits::ExpressionLimits;
use crate::state::State;

/// A JSON value whose strings are templates; one that is exactly `{{ … }}` keeps its type.
#[derive(Debug)]
pub struct ValueTemplate(Part);

#[derive(Debug)]
enum Part {
    Literal(Value),
    /// A string that is exactly `{{ … }}`, and the bytes before the expression.
    Typed(Expression, usize),
    Text(Template),
    List(Vec<Part>),
    Map(Vec<(String, Part)>),
}

impl ValueTemplate {
    /// Compiles every string inside `value`, within the limits that apply by default.
    pub fn compile(value: &Value) -> Result<Self, ExprError> {
        Self::compile_within(value, ExpressionLimits::default())
    }

    /// Compiles every string inside `value`. An error's place is inside its string.
    pub fn compile_within(value: &Value, limits: ExpressionLimits) -> Result<Self, ExprError> {
        Part::compile(value, limits).map(Self)
    }

    /// The value with every template rendered.
    pub fn eval(&self, state: &State, scope: &Scope) -> Result<Value, ExprError> {
        self.0.eval(state, scope)
    }

    /// The value itself if nothing in it is to be rendered.
    #[must_use]
    pub fn literal(&self) -> Option<Value> {
        self.0.literal()
    }

    /// Names that it needs from outside; places are inside their strings.
    #[must_use]
    pub fn reads(&self) -> Vec<Read> {
        let mut found = Vec::new();
        self.0.reads(&mut found);
        found
    }
}

impl Part {
    fn compile(value: &Value, limits: ExpressionLimits) -> Result<Self, ExprError> {
        Ok(match value {
            Value::String(text) if !text.contains(['{', '}']) => Self::Literal(value.clone()),
            Value::String(text) => match typed(text, limits) {
                Some((expression, before)) => Self::Typed(expression, before),
                None => Self::Text(Template::compile_within(text, limits)?),
            },
            Value::Array(items) => {
                let item = |item| Self::compile(item, limits);
                Self::List(items.iter().map(item).collect::<Result<_, _>>()?)
            }
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| {
                    Ok((key.clone(), Self::compile(value, limits)?))
                };
                Self::Map(map.iter().map(entry).collect::<Result<_, ExprError>>()?)
            }
            other => Self::Literal(other.clone()),
        })
    }

    fn eval(&self, state: &State, scope: &Scope) -> Result<Value, ExprError> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Typed(expression, _) => expression.eval(state, scope)?,
            Self::Text(template) => Value::String(template.render(state, scope)?),
            Self::List(parts) => {
                Value::Array(parts.iter().map(|p| p.eval(state, scope)).collect::<Result<_, _>>()?)
            }
            Self::Map(parts) => {
                let entry =
                    |(key, part): &(String, Self)| Ok((key.clone(), part.eval(state, scope)?));
                Value::Object(parts.iter().map(entry).collect::<Result<_, ExprError>>()?)
            }
        })
    }

    fn literal(&self) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Typed(..) | Self::Text(_) => None,
            Self::List(parts) => {
                parts.iter().map(Self::literal).collect::<Option<_>>().map(Value::Array)
            }
            Self::Map(parts) => {
                let entry = |(key, part): &(String, Self)| Some((key.clone(), part.literal()?));
                parts.iter().map(entry).collect::<Option<_>>().map(Value::Object)
            }
        }
    }

    fn reads(&self, found: &mut Vec<Read>) {
        match self {
            Self::Literal(_) => {}
            Self::Typed(expression, before) => found.extend(
                expression.reads().iter().map(|r| Read { name: r.name.clone(), at: r.at + before }),
            ),
            Self::Text(template) => found.extend_from_slice(template.reads()),
            Self::List(parts) => parts.iter().for_each(|part| part.reads(found)),
            Self::Map(parts) => parts.iter().for_each(|(_, part)| part.reads(found)),
        }
    }
}

/// The expression of a string that is exactly `{{ … }}`. Two of them in a row are not one: what
/// stands between the outer braces is then no expression.
fn typed(text: &str, limits: ExpressionLimits) -> Option<(Expression, usize)> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    let before = inner.as_ptr().addr() - text.as_ptr().addr();
    Expression::compile_within(inner, limits).ok().map(|expression| (expression, before))
}
