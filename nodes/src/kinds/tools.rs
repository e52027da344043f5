//! `tools`: runs the calls that the last assistant message asks for, all at the same time.
//!
//! Answers join `messages` in the order of the calls. A call of a tool that is not allowed is
//! answered with an error that the model reads, like every failure of a tool. Allowed is what the
//! node's `skill` and `tools` name; without both, what some `llm` of the graph could have offered.
//! What a skill or the node lists under `approve` is called only after a person agreed; the node
//! waits, and calls that need nobody are made meanwhile.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::graph::build::Build;
use exile_engine::message::{Message, ToolCall, pending_tool_calls};
use exile_engine::node::{Node, NodeError, NodeKind, Outcome, Work};
use exile_engine::run::context::{Cx, Reached};
use exile_engine::state::{MessageList, Reducer, State};
use exile_engine::tool::{ToolAnswer, ToolError, ToolErrorKind, matches};
use futures_util::future::join_all;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::Value;

use super::MESSAGES;
use super::ask::{Allowed, Ask, found, may_call};

/// The kind.
pub(super) struct Kind;

/// Runs the tool calls of the last message.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ToolsKeys")]
struct Params {
    /// The skill whose tools may be called; default: the conversation's.
    skill: Option<String>,
    /// Names and patterns of tools that may be called; they can only narrow the skill's. Without
    /// a skill and without this list: what the graph's `llm` nodes offer.
    tools: Option<Vec<String>>,
    /// Names and patterns of those that a person must agree to, besides the skill's.
    approve: Option<Vec<String>>,
}

impl NodeKind for Kind {
    fn name(&self) -> &'static str {
        "tools"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        Params::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let params: Params = build.params()?;
        let skill = params.skill.as_ref().map(|name| build.skill(&["skill"], name));
        let allowed = params.tools.as_ref().map(|list| build.tools(&["tools"], list));
        let approve = params.approve.as_ref().map(|list| build.tools(&["approve"], list));
        let messages = build.writes_reduced(&[], MESSAGES, Reducer::Messages)?;
        build.reads(&[], &messages);
        let (skill, allowed) = (found(skill)?, Allowed(allowed));
        may_call(build, skill.as_deref(), &allowed);
        let offers = match (skill.map(|skill| skill.name.clone()), &allowed.0) {
            (None, None) => build.once_per_graph(|nodes| nodes.iter().filter_map(offer).collect()),
            (skill, _) => Arc::new(vec![Ask { skill, allowed, ..Ask::default() }]),
        };
        Some(Work::Leaf(Arc::new(Tools { offers, approve: approve.unwrap_or_default() })))
    }
}

/// What an `llm` node, as written, offers its model; `None` for other nodes and for one that
/// offers nothing.
fn offer(node: &Value) -> Option<Ask> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let skill = node["skill"].as_str().map(Arc::from);
    let tools = node["tools"].as_array().map(|list| list.iter().filter_map(text).collect());
    let offers = node["kind"] == "llm" && (skill.is_some() || tools.is_some());
    offers.then(|| Ask { skill, allowed: Allowed(tools), ..Ask::default() })
}

/// Runs pending calls.
#[derive(Debug)]
pub(super) struct Tools {
    /// A call is made if one of these allows it.
    pub offers: Arc<Vec<Ask>>,
    /// Names and patterns of tools that a person must agree to, besides those of the offers.
    pub approve: Vec<String>,
}

#[async_trait]
impl Node for Tools {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let calls = pending_tool_calls(state.messages(MESSAGES).iter());
        let mut allowed: Vec<String> = Vec::new();
        for offer in self.offers.iter() {
            allowed.extend(offer.tools(cx)?.into_iter().map(|spec| spec.name));
        }
        let mut asked = Vec::with_capacity(calls.len());
        for call in &calls {
            asked.push((call, self.needs_approval(cx, &call.name)?));
        }
        let answers = asked.into_iter().map(async |(call, approve)| {
            if allowed.contains(&call.name) {
                cx.call_tool(call, approve).await
            } else {
                Reached::Done(refused(cx, call, &allowed))
            }
        });
        let (mut answered, mut waiting) = (MessageList::default(), Vec::new());
        for answer in join_all(answers).await {
            match answer {
                Reached::Done(message) => answered.push(Arc::new(message)),
                Reached::Asked(id) => waiting.push(id),
            }
        }
        if waiting.is_empty() {
            Ok(Outcome::write(&MESSAGES.into(), answered))
        } else {
            // Those that were made are answered from their records next time.
            Ok(Outcome::Suspend(waiting))
        }
    }
}

impl Tools {
    /// One offer that wants a person to agree is enough.
    fn needs_approval(&self, cx: &Cx, tool: &str) -> Result<bool, NodeError> {
        let mut needs = self.approve.iter().any(|pattern| matches(pattern, tool));
        for offer in self.offers.iter() {
            needs |= offer.needs_approval(cx, tool)?;
        }
        Ok(needs)
    }
}

/// The answer to a call that is not allowed.
fn refused(cx: &Cx, call: &ToolCall, allowed: &[String]) -> Message {
    let there = match allowed {
        [] => "there are none here".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    };
    let text = format!("no tool named `{}` may be called; {there}", call.name);
    let error = ToolError::new(ToolErrorKind::NotFound, text);
    Message::tool(cx.message_id(), call, ToolAnswer::Failed(error).to_text())
}
