//! `agent`: a subgraph `llm → tools → llm`, so that every turn is a checkpoint.
//!
//! Invariants:
//! - The outer conversation is read once, when the agent begins; the prompt stands after it and
//!   before everything that the agent adds.
//! - The last of `max_turns` turns may not call tools, so that it answers.
//! - Without `into` all new messages join the conversation, even if the run is cut short; with
//!   `into` only the text of the last one leaves the agent.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::expr::{Expression, Scope, Template};
use exile_engine::graph::build::Build;
use exile_engine::graph::{
    Branch, Graph, GraphNode, Guard, Limits, Line, Names, Policy, Schedule, Target,
};
use exile_engine::message::Message;
use exile_engine::model::{Effort, ToolChoice};
use exile_engine::node::{Done, Node, NodeError, NodeKind, Outcome, Subgraph, Work};
use exile_engine::run::context::Cx;
use exile_engine::run::record::Durability;
use exile_engine::state::{
    Channel, ChannelType, ChannelValue, Channels, MessageList, Reducer, State, Writes,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Ask, Keys, Texts, may_call, render};
use super::llm::said;
use super::tools::Tools;
use super::{MESSAGES, history};

/// Calls of the model where the node does not say.
const TURNS: u32 = 10;

/// Inner channels beside `messages`: the texts of the node, rendered once; the place of the
/// prompt; turns so far; whether the last answer calls tools.
const SYSTEM: &str = "system";
const PROMPT: &str = "prompt";
const BEFORE: &str = "before";
const TURN: &str = "turn";
const CALLS: &str = "calls";

/// The kind.
pub(super) struct Kind;

/// A model that calls tools until it can answer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AgentKeys")]
struct Params {
    /// A skill: system prompt, tools and model under one name.
    skill: Option<String>,
    /// Alias or provider/model; default: the conversation's, the skill's, then `default`.
    model: Option<String>,
    /// A template that goes after the skill's system prompt.
    system: Option<String>,
    /// A template that is sent after the messages, and not stored.
    prompt: Option<String>,
    /// Names and patterns of tools that the model may call; they can only narrow the skill's.
    tools: Option<Vec<String>>,
    /// Names and patterns of those that a person must agree to, besides the skill's.
    approve: Option<Vec<String>>,
    /// How freely the model words its answer.
    #[schemars(range(min = 0.0, max = 2.0))]
    temperature: Option<f64>,
    /// How hard the model thinks before it answers; default: the skill's, then the provider's.
    reasoning: Option<Effort>,
    /// Longest answer of one turn, in tokens.
    #[schemars(range(min = 1))]
    max_tokens: Option<u32>,
    /// Most calls of the model; the last one may not call tools. Default 10.
    #[schemars(range(min = 1, max = 1000))]
    max_turns: Option<u32>,
    /// The channel that the answer goes to, instead of the conversation.
    into: Option<String>,
}

impl NodeKind for Kind {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        Params::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let params: Params = build.params()?;
        let keys = Keys {
            skill: params.skill.as_ref(),
            model: params.model.as_ref(),
            system: params.system.is_some(),
            prompt: params.prompt.is_some(),
            tools: params.tools.as_ref(),
            approve: params.approve.as_ref(),
            into: params.into.as_ref(),
        };
        let checked = keys.check(build)?;
        let mut ask = checked.ask;
        may_call(build, checked.skill.as_deref(), &ask.allowed);
        (ask.temperature, ask.max_tokens) = (params.temperature, params.max_tokens);
        ask.reasoning = params.reasoning;
        let turn = Turn { ask, max_turns: params.max_turns.unwrap_or(TURNS) };
        Some(Work::Sub(Arc::new(Agent {
            graph: Arc::new(inner(build.name().clone(), turn)?),
            system: checked.system,
            prompt: checked.prompt,
            into: checked.into,
            conversation: checked.conversation,
        })))
    }
}

/// The graph inside: `START → llm`, `llm → tools` while calls are open, `tools → llm`.
fn inner(name: Arc<str>, turn: Turn) -> Option<Graph> {
    let tools = Tools { offers: Arc::new(vec![turn.ask.clone()]), approve: Vec::new() };
    let shown = turn.ask.shown;
    let line = |guard, to| Line { guard, to };
    let node = |name: &str, kind, work, lines| GraphNode {
        name: name.into(),
        kind,
        work: Work::Leaf(work),
        branch: Branch::First,
        lines,
        policy: Policy::default(),
    };
    let open = Guard::When(Expression::compile(CALLS).ok()?);
    let turns = vec![line(open, Target::Node(1)), line(Guard::Otherwise, Target::End)];
    Some(Graph {
        name,
        channels: channels(),
        nodes: vec![
            node("llm", "llm", Arc::new(turn), turns),
            node("tools", "tools", Arc::new(tools), vec![line(Guard::Always, Target::Node(0))]),
        ],
        start: vec![line(Guard::Always, Target::Node(0))],
        start_branch: Branch::First,
        joins: Vec::new(),
        schedule: Schedule::default(),
        durability: Durability::default(),
        // `max_turns` bounds it.
        limits: Limits { steps: Some(u32::MAX), ..Limits::default() },
        input: Vec::new(),
        output: Vec::new(),
        shown,
        names: Names::default(),
    })
}

fn channels() -> Arc<Channels> {
    let channel = |name: &str, kind, reduce, initial| Channel {
        name: name.into(),
        kind,
        reduce,
        initial: Arc::new(initial),
        scope: exile_engine::state::Scope::Run,
    };
    Arc::new(Channels::new(vec![
        channel(MESSAGES, ChannelType::Any, Reducer::Messages, json!([])),
        channel(SYSTEM, ChannelType::String, Reducer::Replace, json!("")),
        channel(PROMPT, ChannelType::String, Reducer::Replace, Value::Null),
        channel(BEFORE, ChannelType::Integer, Reducer::Replace, json!(0)),
        channel(TURN, ChannelType::Integer, Reducer::Sum, json!(0)),
        channel(CALLS, ChannelType::Boolean, Reducer::Replace, json!(false)),
    ]))
}

#[derive(Debug)]
struct Agent {
    graph: Arc<Graph>,
    system: Option<Template>,
    prompt: Option<Template>,
    into: Option<Arc<str>>,
    conversation: bool,
}

impl Subgraph for Agent {
    fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    fn enter(&self, outer: &State, scope: &Scope, _: &str) -> Result<Writes, NodeError> {
        let mut messages = MessageList::default();
        if self.conversation {
            messages = history::sent_list(&outer.messages(MESSAGES));
        }
        let mut writes = Writes::new();
        writes.insert(BEFORE.into(), messages.len().into());
        writes.insert(MESSAGES.into(), messages.into());
        for (name, template) in [(SYSTEM, &self.system), (PROMPT, &self.prompt)] {
            if let Some(text) = render(template.as_ref(), name, outer, scope)? {
                writes.insert(name.into(), text.into());
            }
        }
        Ok(writes)
    }

    fn exit(&self, before: &State, inner: &State) -> Result<Done, NodeError> {
        let Some(into) = &self.into else {
            return Ok(Done { writes: self.abandon(before, inner), goto: None });
        };
        let new = history::added(before, inner, MESSAGES);
        let text = new.last().map(|message| message.content.as_str()).unwrap_or_default();
        Ok(Done { writes: std::iter::once((into.clone(), text.into())).collect(), goto: None })
    }

    fn abandon(&self, before: &State, inner: &State) -> Writes {
        if self.into.is_some() {
            return Writes::new();
        }
        let new = history::added(before, inner, MESSAGES);
        if new.is_empty() {
            return Writes::new();
        }
        std::iter::once((MESSAGES.into(), new.into())).collect()
    }
}

/// One call of the model.
#[derive(Debug)]
struct Turn {
    ask: Ask,
    max_turns: u32,
}

#[async_trait]
impl Node for Turn {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let number = |name: &str| state.get(name).and_then(ChannelValue::as_u64).unwrap_or(0);
        let text = |name: &str| state.get(name).and_then(|v| v.as_str().map(str::to_owned));
        let place = usize::try_from(number(BEFORE)).unwrap_or(usize::MAX);
        let last = number(TURN) + 1 >= u64::from(self.max_turns);
        let texts = Texts {
            system: text(SYSTEM).unwrap_or_default(),
            messages: state.messages(MESSAGES).iter().cloned().collect(),
            prompt: text(PROMPT).map(|prompt| (place, prompt)),
        };
        let mut question = self.ask.question(cx, "model", texts, self.ask.tools(cx)?)?;
        if last && !question.tools.is_empty() {
            question.tool_choice = ToolChoice::None;
        }
        let message = said(cx.call_model(question).await?)?;
        if last && !message.tool_calls.is_empty() {
            return Err(self.too_many_turns());
        }
        Ok(outcome(message))
    }
}

impl Turn {
    fn too_many_turns(&self) -> NodeError {
        let turns = self.max_turns;
        NodeError::Limit(format!(
            "the model still calls tools at turn {turns} of {turns}; raise max_turns"
        ))
    }
}

fn outcome(message: Message) -> Outcome {
    let mut writes = Writes::new();
    writes.insert(TURN.into(), 1.into());
    writes.insert(CALLS.into(), (!message.tool_calls.is_empty()).into());
    writes.insert(MESSAGES.into(), ChannelValue::message(Arc::new(message)));
    Outcome::writes(writes)
}
