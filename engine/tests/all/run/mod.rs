//! How runs move, by behaviour.

mod attention;
mod bounds;
mod choice;
mod complaints;
mod crash;
mod flows;
mod forks;
mod laws;
mod liveness;
mod mixtures;
mod moves;
mod policies;
mod pure;
mod questions;
mod readers;
mod refusals;
mod stops;
mod streams;
mod suspects;
mod taint;
mod turns;
mod written;

use async_trait::async_trait;
use exile_engine::message::{Message, Role, pending_tool_calls};
use exile_engine::model::ToolChoice;
use exile_engine::node::{Node, NodeError, Outcome};
use exile_engine::run::context::{Cx, ModelCall, Reached};
use exile_engine::run::event::Event;
use exile_engine::state::State;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::hand::Hand;
use exile_engine::state::Reducer;

/// Asks the scripted model with the `messages` channel and adds the answer to it.
#[derive(Debug)]
struct Asks;

#[async_trait]
impl Node for Asks {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let answer = cx.call_model(question(state)).await?;
        Ok(Outcome::write(&"messages".into(), json!([answer.message])))
    }
}

/// Asks the scripted model with the `messages` channel.
fn question(state: &State) -> ModelCall {
    ModelCall {
        call: "model".into(),
        model: "scripted/one".into(),
        messages: state.messages("messages").iter().cloned().collect(),
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        temperature: None,
        max_tokens: None,
        output_schema: None,
        reasoning: None,
        shown: true,
    }
}

/// Makes the pending tool calls of `messages` at the same time.
#[derive(Debug)]
struct CallsTools;

#[async_trait]
impl Node for CallsTools {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let calls = pending_tool_calls(state.messages("messages").iter());
        let results = join_all(calls.iter().map(|call| cx.call_tool(call, false))).await;
        let (mut messages, mut asked) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Reached::Done(message) => messages.push(message),
                Reached::Asked(id) => asked.push(id),
            }
        }
        if !asked.is_empty() {
            return Ok(Outcome::Suspend(asked));
        }
        Ok(Outcome::write(&"messages".into(), json!(messages)))
    }
}

/// A graph with a `messages` channel.
fn talk() -> Hand {
    Hand::default().channel("messages", Reducer::Messages, json!([]))
}

/// The loop that every agent is.
fn tool_loop() -> Hand {
    talk()
        .node("ask", crate::hand::leaf(Asks))
        .node("tools", crate::hand::leaf(CallsTools))
        .edge("START", "ask")
        .when("ask", "messages[-1].tool_calls is defined", "tools")
        .otherwise("ask", "END")
        .edge("tools", "ask")
}

fn user(text: &str) -> serde_json::Map<String, Value> {
    let message = Message::text("msg_u".into(), Role::User, text);
    [("messages".to_owned(), json!([message]))].into_iter().collect()
}

/// Events in one line each: name, task and what matters.
fn lines(events: &[Event]) -> String {
    let line = |e: &Event| {
        let mut line = format!("{} {}", e.number, e.name);
        for key in ["task", "tasks", "text", "changes", "tool", "content", "error", "status"] {
            if let Some(value) = e.data.get(key).filter(|v| !v.is_null()) {
                line.push(' ');
                match value.as_str() {
                    Some(text) => line.push_str(text),
                    None => line.push_str(&value.to_string()),
                }
            }
        }
        line
    };
    events.iter().map(line).collect::<Vec<_>>().join("\n")
}
