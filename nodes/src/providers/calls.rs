//! Tool calls out of fragments, for servers that keep the rules and for those that do not
//! (wire fact 6), in any protocol.
//!
//! The rule: a call's fragments share an `index`; the first alone has id and name. The breaches
//! seen: every call at index 0, counting from 1, no index at all, a whole call in one fragment, a
//! new id at an old index, the same id at a new index, `id: ""`, arguments as an object.

use exile_engine::message::ToolCall;
use serde_json::{Value, json};

/// Most calls of one answer.
pub(crate) const CALL_LIMIT: usize = 512;

/// Calls in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct Calls(Vec<Call>);

#[derive(Debug, Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    extra_content: Option<Value>,
}

impl Calls {
    /// How many have begun.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes one fragment; gives how many bytes it added.
    pub(crate) fn take(&mut self, fragment: &Value) -> usize {
        let function = &fragment["function"];
        let index = fragment["index"].as_u64();
        let id = fragment["id"].as_str().unwrap_or_default();
        let name = function["name"].as_str().unwrap_or_default();
        let at = self.continued(index, id, name).unwrap_or_else(|| {
            self.0.push(Call { index, id: id.to_owned(), ..Call::default() });
            self.0.len() - 1
        });
        let call = &mut self.0[at];
        let before = call.arguments.len();
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        if call.name.is_empty() {
            name.clone_into(&mut call.name);
        }
        match &function["arguments"] {
            Value::String(text) => call.arguments.push_str(text),
            whole @ Value::Object(_) => call.arguments = whole.to_string(),
            _ => {}
        }
        if fragment["extra_content"].is_object() {
            call.extra_content = Some(fragment["extra_content"].clone());
        }
        name.len() + call.arguments.len().saturating_sub(before)
    }

    /// Which call a fragment goes on with; `None` if it begins one.
    fn continued(&self, index: Option<u64>, id: &str, name: &str) -> Option<usize> {
        if !id.is_empty()
            && let Some(at) = self.0.iter().position(|c| c.id == id)
        {
            return Some(at);
        }
        let at = match index {
            Some(_) => self.0.iter().rposition(|c| c.index == index)?,
            None => self.0.len().checked_sub(1)?,
        };
        let call = &self.0[at];
        let new_id = !id.is_empty() && !call.id.is_empty();
        // Without an id a name begins a call, unless it only repeats that of an unfinished one.
        let new_name = !name.is_empty()
            && !call.name.is_empty()
            && (name != call.name || is_object(&call.arguments));
        (!new_id && !new_name).then_some(at)
    }

    /// The calls, each with an id of its own. Of an answer that was `cut`, only those whose
    /// arguments are whole.
    pub(crate) fn close(self, cut: bool, mint: &mut dyn FnMut() -> String) -> Vec<ToolCall> {
        let mut calls: Vec<ToolCall> = Vec::new();
        for call in self.0 {
            if call.name.is_empty() || (cut && !is_object(&call.arguments)) {
                continue;
            }
            let taken = call.id.is_empty() || calls.iter().any(|c| c.id == call.id);
            calls.push(ToolCall {
                id: if taken { mint() } else { call.id },
                name: call.name,
                arguments: call.arguments,
                opaque: call.extra_content.map(|extra| json!({ "extra_content": extra })),
            });
        }
        calls
    }
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, Value>>(text).is_ok()
}
