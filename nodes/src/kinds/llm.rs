//! `llm`: one question to a model.
//!
//! Without `into` the answer joins `messages` and is shown; with `into` it goes there alone, as
//! text, or as the value that `output` describes. Tools are offered where the answer can join
//! `messages`, so that a node of kind `tools` can run the calls: those that the node's `tools` or
//! its own `skill` name. The conversation's skill alone brings an `llm` no tools, since its graph
//! need not hold a node that runs them (kind `agent` does).

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::answer::AnswerSchema;
use exile_engine::expr::Template;
use exile_engine::graph::build::Build;
use exile_engine::message::{Message, Role};
use exile_engine::model::{Effort, Finish, ToolChoice};
use exile_engine::node::{Node, NodeError, NodeKind, Outcome, Work};
use exile_engine::run::context::{Cx, ModelAnswer, ModelCall};
use exile_engine::state::{ChannelValue, State};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::Value;

use super::ask::{Ask, Keys, Texts, render};
use super::{MESSAGES, history};

/// How often an answer that does not meet `output` is asked for again.
const RETRIES: usize = 2;

/// The kind.
pub(super) struct Kind;

/// One question to a model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LlmKeys")]
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
    /// Whether the model calls a tool: `auto` (default), `none`, `required`, or a tool's name.
    tool_choice: Option<String>,
    /// How freely the model words its answer.
    #[schemars(range(min = 0.0, max = 2.0))]
    temperature: Option<f64>,
    /// How hard the model thinks before it answers; default: the skill's, then the provider's.
    reasoning: Option<Effort>,
    /// Longest answer, in tokens.
    #[schemars(range(min = 1))]
    max_tokens: Option<u32>,
    /// A JSON Schema that the answer must meet.
    output: Option<Value>,
    /// The channel that the answer goes to, instead of the conversation.
    into: Option<String>,
}

impl NodeKind for Kind {
    fn name(&self) -> &'static str {
        "llm"
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
            approve: None,
            into: params.into.as_ref(),
        };
        let checked = keys.check(build);
        let output = params.output.is_some().then(|| schema(build));
        if params.tools.is_some() && (params.into.is_some() || params.output.is_some()) {
            build.report(
                &["tools"],
                "an `llm` with `into` or `output` cannot call tools: nothing could run the calls",
                "make it an `agent`, or remove `tools`",
            );
        }
        let choice = choice(build, params.tool_choice.as_deref());
        let checked = checked?;
        let output = match output {
            Some(schema) => Some(schema?),
            None => None,
        };
        let mut ask = checked.ask;
        (ask.temperature, ask.max_tokens) = (params.temperature, params.max_tokens);
        ask.reasoning = params.reasoning;
        let calls = params.tools.is_some() || params.skill.is_some();
        Some(Work::Leaf(Arc::new(Llm {
            offers_tools: calls && checked.into.is_none() && output.is_none(),
            choice: choice?,
            ask,
            system: checked.system,
            prompt: checked.prompt,
            into: checked.into,
            conversation: checked.conversation,
            output,
        })))
    }
}

/// The schema of `output`, compiled.
fn schema(build: &mut Build<'_>) -> Option<AnswerSchema> {
    let schema = build.json_schema(&["output"])?;
    match AnswerSchema::new(schema, build.limits().json) {
        Ok(schema) => Some(schema),
        Err(why) => {
            build.report(&["output"], why, "write a JSON Schema");
            None
        }
    }
}

fn choice(build: &mut Build<'_>, key: Option<&str>) -> Option<ToolChoice> {
    Some(match key {
        None | Some("auto") => ToolChoice::Auto,
        Some("none") => ToolChoice::None,
        Some("required") => ToolChoice::Required,
        Some(name) => ToolChoice::Named(build.tool(&["tool_choice"], name)?.to_string()),
    })
}

#[derive(Debug)]
struct Llm {
    ask: Ask,
    system: Option<Template>,
    prompt: Option<Template>,
    into: Option<Arc<str>>,
    conversation: bool,
    offers_tools: bool,
    choice: ToolChoice,
    output: Option<AnswerSchema>,
}

#[async_trait]
impl Node for Llm {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let question = self.question(cx, state)?;
        let Some(output) = &self.output else {
            let answer = said(cx.call_model(question).await?)?;
            return match &self.into {
                Some(into) => Ok(Outcome::write(into, answer.content)),
                None => Ok(join(answer)),
            };
        };
        let (answer, value) = self.held_to(output, cx, question).await?;
        match &self.into {
            Some(into) => Ok(Outcome::write(into, value)),
            None => Ok(join(answer)),
        }
    }
}

impl Llm {
    fn question(&self, cx: &Cx, state: &State) -> Result<ModelCall, NodeError> {
        let mut messages = Vec::new();
        if self.conversation {
            messages = history::sent(&state.messages(MESSAGES));
        }
        let mut system =
            render(self.system.as_ref(), "system", state, cx.scope())?.unwrap_or_default();
        if let Some(output) = &self.output {
            system = format!("{system}\n\n{}", instruction(output));
        }
        let prompt = render(self.prompt.as_ref(), "prompt", state, cx.scope())?;
        let prompt = prompt.map(|text| (messages.len(), text));
        let tools = if self.offers_tools { self.ask.tools(cx)? } else { Vec::new() };
        let texts = Texts { system, messages, prompt };
        let mut question = self.ask.question(cx, "model", texts, tools)?;
        question.tool_choice = self.choice.clone();
        question.output_schema = self.output.as_ref().map(|o| o.schema().clone());
        Ok(question)
    }

    /// Asks until the answer meets the schema, telling the model each time what was wrong.
    async fn held_to(
        &self,
        output: &AnswerSchema,
        cx: &Cx,
        mut question: ModelCall,
    ) -> Result<(Message, Value), NodeError> {
        let mut attempt = 1;
        loop {
            let answer = cx.call_model(question.clone()).await?;
            let why = match output.read(&answer.message.content) {
                Ok(value) => return Ok((answer.message, value)),
                Err(why) if answer.finish == Finish::Length => {
                    format!("the answer was cut at the token limit ({why})")
                }
                Err(why) => why,
            };
            if attempt > RETRIES {
                return Err(NodeError::Output(why));
            }
            attempt += 1;
            question.call = format!("model_{attempt}");
            question.messages.push(Arc::new(answer.message));
            let again = format!("That cannot be used: {why}. Answer again, with the JSON alone.");
            question.messages.push(Arc::new(Message::text(cx.message_id(), Role::User, again)));
        }
    }
}

fn instruction(output: &AnswerSchema) -> String {
    format!(
        "Answer with one JSON value that meets this JSON Schema, and nothing else:\n{}",
        output.schema()
    )
}

/// The answer's message; an error if the token limit cut it before it said anything.
pub(super) fn said(answer: ModelAnswer) -> Result<Message, NodeError> {
    let message = answer.message;
    let silent = message.content.is_empty() && message.tool_calls.is_empty();
    if silent && answer.finish == Finish::Length {
        let text = "the token limit was reached before the model answered; raise max_tokens";
        return Err(NodeError::Limit(text.into()));
    }
    Ok(message)
}

/// Adds the message to the conversation.
pub(super) fn join(message: Message) -> Outcome {
    Outcome::write(&MESSAGES.into(), ChannelValue::message(Arc::new(message)))
}
