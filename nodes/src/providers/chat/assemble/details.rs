//! `reasoning_details`: reasoning in signed pieces, as aggregators pass it on. It returns as a
//! whole: fragments of one piece share an index and a type, their texts are joined, and every
//! other field is kept as it last came.

use serde_json::{Map, Value, json};

/// Fields that are joined.
const TEXTS: [&str; 3] = ["text", "summary", "data"];

/// Most pieces of one answer; more are not kept.
const LIMIT: usize = 4096;

/// The pieces so far.
#[derive(Debug, Default)]
pub(super) struct Details(Vec<Map<String, Value>>);

impl Details {
    /// Takes a list of fragments; gives how many bytes they are.
    pub(super) fn take(&mut self, fragments: &Value) -> usize {
        let mut size = 0;
        for fragment in fragments.as_array().into_iter().flatten() {
            let Some(fragment) = fragment.as_object() else { continue };
            size += json!(fragment).to_string().len();
            let same = |piece: &Map<String, Value>| {
                fragment.get("index").is_some_and(|index| !index.is_null())
                    && ["index", "type"].iter().all(|key| piece.get(*key) == fragment.get(*key))
            };
            let full = self.0.len() >= LIMIT;
            match self.0.last_mut().filter(|piece| same(piece)) {
                Some(piece) => join(piece, fragment),
                None if full => {}
                None => self.0.push(fragment.clone()),
            }
        }
        size
    }

    /// All of them; `None` if there are none.
    pub(super) fn close(&mut self) -> Option<Value> {
        let pieces = std::mem::take(&mut self.0);
        (!pieces.is_empty()).then(|| json!(pieces))
    }
}

fn join(piece: &mut Map<String, Value>, fragment: &Map<String, Value>) {
    for (key, value) in fragment.iter().filter(|(_, value)| !value.is_null()) {
        match (piece.get_mut(key), value) {
            (Some(Value::String(text)), Value::String(more)) if TEXTS.contains(&key.as_str()) => {
                text.push_str(more);
            }
            _ => _ = piece.insert(key.clone(), value.clone()),
        }
    }
}

/// What of these fragments can be read.
pub(super) fn text(fragments: &Value) -> Option<String> {
    let texts: Vec<&str> = fragments
        .as_array()?
        .iter()
        .filter_map(|f| f["text"].as_str().or(f["summary"].as_str()))
        .collect();
    (!texts.is_empty()).then(|| texts.concat())
}
