//! What differs between two values: where, by JSON Pointer, and what was and is there.
//!
//! Invariants:
//! - Undoing what is removed and doing what is added and changed turns one value into the other:
//!   nothing is left out, nothing is said twice.
//! - Pointers of what was removed lead into the earlier value, all others into the later one.
//! - Messages are told apart by their ids, not by their places.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// One place that differs.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Change {
    /// A JSON Pointer into the channel's value; empty for the whole of it.
    pub pointer: String,
    /// Of messages: which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// What was there; left out if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub from: Option<Value>,
    /// What is there; left out if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub to: Option<Value>,
}

impl Change {
    pub(crate) fn new(pointer: &str, from: Option<&Value>, to: Option<&Value>) -> Self {
        let change = match (from, to) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        let (from, to) = (from.cloned(), to.cloned());
        Self { pointer: pointer.to_owned(), message: None, change, from, to }
    }
}

/// What differs between two values.
#[must_use]
pub fn values(from: &Value, to: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    walk("", from, to, &mut changes);
    changes
}

/// What differs between two lists of messages.
#[must_use]
pub fn messages(from: &Value, to: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    for (i, old) in items(from) {
        if find(to, old).is_none() {
            let change = Change::new(&format!("/{i}"), Some(old), None);
            changes.push(Change { message: id(old), ..change });
        }
    }
    for (i, new) in items(to) {
        let pointer = format!("/{i}");
        let mut found = Vec::new();
        match find(from, new) {
            None => found.push(Change::new(&pointer, None, Some(new))),
            Some(old) => walk(&pointer, old, new, &mut found),
        }
        changes.extend(found.into_iter().map(|change| Change { message: id(new), ..change }));
    }
    changes
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

fn find<'v>(list: &'v Value, message: &Value) -> Option<&'v Value> {
    items(list).map(|(_, item)| item).find(|item| item["id"] == message["id"])
}

fn id(message: &Value) -> Option<String> {
    message["id"].as_str().map(str::to_owned)
}

fn walk(pointer: &str, from: &Value, to: &Value, changes: &mut Vec<Change>) {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => objects(pointer, from, to, changes),
        (Value::Array(from), Value::Array(to)) => {
            for i in 0..from.len().max(to.len()) {
                pair(&format!("{pointer}/{i}"), from.get(i), to.get(i), changes);
            }
        }
        _ if from == to => {}
        _ => changes.push(Change::new(pointer, Some(from), Some(to))),
    }
}

fn objects(
    pointer: &str,
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    let new = to.keys().filter(|key| !from.contains_key(*key));
    for key in from.keys().chain(new) {
        pair(&format!("{pointer}/{}", token(key)), from.get(key), to.get(key), changes);
    }
}

fn pair(pointer: &str, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Change>) {
    match (from, to) {
        (Some(from), Some(to)) => walk(pointer, from, to, changes),
        (from, to) => changes.push(Change::new(pointer, from, to)),
    }
}

/// A key as a part of a pointer (RFC 6901).
fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn short(changes: &[Change]) -> Vec<(&str, &str)> {
        changes.iter().map(|c| (c.change, c.pointer.as_str())).collect()
    }

    #[test]
    fn every_place_that_differs_is_named_once() {
        let from = json!({ "same": [1, { "a": 1 }], "gone": 1, "list": [1, 2, 3], "a/b~c": 1 });
        let to = json!({ "same": [1, { "a": 1 }], "list": [1, 5], "a/b~c": "1", "new": null });
        let changes = values(&from, &to);
        assert_eq!(
            short(&changes),
            [
                ("removed", "/gone"),
                ("changed", "/list/1"),
                ("removed", "/list/2"),
                ("changed", "/a~1b~0c"),
                ("added", "/new"),
            ]
        );
        for change in &changes {
            assert_eq!(from.pointer(&change.pointer), change.from.as_ref(), "{change:?}");
            assert_eq!(to.pointer(&change.pointer), change.to.as_ref(), "{change:?}");
        }
        assert_eq!(values(&from, &from), []);
        assert_eq!(short(&values(&json!(1), &json!([1]))), [("changed", "")]);
    }

    #[test]
    fn messages_are_told_apart_by_id() {
        let message = |id: &str, content: &str| json!({ "id": id, "content": content });
        let from = json!([message("a", "1"), message("b", "2"), message("c", "3")]);
        let to = json!([message("b", "2"), message("c", "33"), message("d", "4")]);
        let changes = messages(&from, &to);
        let ids: Vec<&str> = changes.iter().filter_map(|c| c.message.as_deref()).collect();
        assert_eq!(ids, ["a", "c", "d"]);
        assert_eq!(
            short(&changes),
            [("removed", "/0"), ("changed", "/1/content"), ("added", "/2")]
        );
    }
}
