//! State and scope as the language sees them: nothing is copied until a scalar is read.
//!
//! A [`View`] is a channel's shared value and a path into it, so `messages[-1].content` costs the
//! same for one message as for a thousand.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectExt, ObjectRepr};
use serde_json::Value;

use crate::expr::{ERROR_NAME, NodeFailure, Scope};
use crate::state::State;

/// All that an evaluation can read.
pub(super) fn root(state: &State, scope: &Scope) -> minijinja::Value {
    minijinja::Value::from_object(Root { state: state.clone(), scope: scope.clone() })
}

#[derive(Debug)]
struct Root {
    state: State,
    scope: Scope,
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<minijinja::Value> {
        let scope = &self.scope;
        let object =
            |entries: &[(&str, &str)]| minijinja::Value::from_pairs(entries.iter().copied());
        match key {
            "user" => Some(object(&[("id", scope.user.as_str())])),
            "run" => Some(object(&[("id", scope.run.as_str()), ("graph", &*scope.graph)])),
            "conversation" => Some(match &scope.conversation {
                Some(id) => object(&[("id", id.as_str())]),
                None => minijinja::Value::from(()),
            }),
            "now" => Some(scope.now.to_string().into()),
            name => match (self.state.get(name), &scope.error) {
                (Some(channel), _) => Some(View::at(channel, Vec::new())),
                (None, Some(error)) if name == ERROR_NAME => Some(failure(error)),
                (None, _) => None,
            },
        }
    }
}

fn failure(error: &NodeFailure) -> minijinja::Value {
    let NodeFailure { code, message, node, item } = error;
    let text = |text: &str| minijinja::Value::from(text);
    minijinja::Value::from_pairs([
        ("code", text(code)),
        ("message", text(message)),
        ("node", text(node)),
        ("item", (*item).into()),
    ])
}

/// One list or map inside a shared JSON value.
#[derive(Debug)]
pub(super) struct View {
    whole: Arc<Value>,
    path: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Index(usize),
    Key(Arc<str>),
}

impl View {
    /// The language's value at `path` of `whole`; null if there is nothing.
    fn at(whole: &Arc<Value>, path: Vec<Step>) -> minijinja::Value {
        match walk(whole, &path) {
            Value::Null => ().into(),
            Value::Bool(yes) => (*yes).into(),
            Value::Number(number) => from_number(number),
            Value::String(text) => text.as_str().into(),
            Value::Array(_) | Value::Object(_) => {
                minijinja::Value::from_object(Self { whole: whole.clone(), path })
            }
        }
    }

    /// What is viewed.
    pub(super) fn get(&self) -> &Value {
        walk(&self.whole, &self.path)
    }

    fn child(&self, step: Step) -> minijinja::Value {
        let mut path = Vec::with_capacity(self.path.len() + 1);
        path.extend_from_slice(&self.path);
        path.push(step);
        Self::at(&self.whole, path)
    }
}

fn walk<'v>(whole: &'v Value, path: &[Step]) -> &'v Value {
    path.iter().fold(whole, |value, step| match step {
        Step::Index(index) => &value[*index],
        Step::Key(key) => &value[&**key],
    })
}

fn from_number(number: &serde_json::Number) -> minijinja::Value {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(n), _, _) => n.into(),
        (_, Some(n), _) => n.into(),
        (_, _, Some(n)) => n.into(),
        _ => ().into(),
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.get().is_array() { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        match self.get() {
            Value::Array(items) => {
                let index = key.as_usize().filter(|index| *index < items.len())?;
                Some(self.child(Step::Index(index)))
            }
            _ => self.get_value_by_str(key.as_str()?),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<minijinja::Value> {
        let there = self.get().as_object().is_some_and(|map| map.contains_key(key));
        there.then(|| self.child(Step::Key(key.into())))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.get() {
            Value::Array(items) => Enumerator::Seq(items.len()),
            _ => self.mapped_enumerator(|view| match view.get() {
                Value::Object(map) => Box::new(map.keys().map(|key| key.as_str().into())),
                _ => Box::new(std::iter::empty()),
            }),
        }
    }
}
