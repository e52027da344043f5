//! `human`: asks a person and waits, for minutes or months.
//!
//! With `choices` the answer is one of them. Without, it is any text; where it was given as a
//! message of the conversation, that message joins `messages`, and `into` gets its text. `into`
//! may be left out only there: a graph with `messages` then holds the answer as a message, also
//! one that was given through the API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::expr::Template;
use exile_engine::graph::build::Build;
use exile_engine::message::{Message, Role};
use exile_engine::node::{Node, NodeError, NodeKind, Outcome, Work};
use exile_engine::period::Period;
use exile_engine::run::context::{Ask, Cx, Given, Reached};
use exile_engine::run::record::{AskReason, Question};
use exile_engine::state::{ChannelValue, Reducer, State, Writes};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::json;

use super::MESSAGES;
use super::ask::{found, render, written};

/// The kind.
pub(super) struct Kind;

/// A question to a person.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HumanKeys")]
struct Params {
    /// A template: what the person is asked.
    #[serde(rename = "ask")]
    _ask: String,
    /// The answers there are; default: any text.
    #[schemars(extend("minItems" = 1))]
    choices: Option<Vec<String>>,
    /// How long the answer is waited for; default: forever.
    expires: Option<Expires>,
    /// The channel that the answer goes to. Without it a free text joins `messages`.
    into: Option<String>,
}

/// How long an answer is waited for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Expires")]
struct Expires {
    /// For this long.
    after: Period,
    /// What then counts as the answer; without it the node fails.
    answer: Option<String>,
}

impl NodeKind for Kind {
    fn name(&self) -> &'static str {
        "human"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        Params::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let params: Params = build.params()?;
        let ask = build.template(&["ask"]);
        let into = params.into.as_ref().map(|name| written(build, name));
        let choices = params.choices.clone().unwrap_or_default();
        let mut good = check_choices(build, &choices);
        good &= params.into.as_ref().is_none_or(|into| fits(build, into, &choices));
        let otherwise = params.expires.as_ref().and_then(|expires| expires.answer.as_ref());
        if let Some(answer) = otherwise
            && !choices.is_empty()
            && !choices.contains(answer)
        {
            let fix = format!("write one of: {}", choices.join(", "));
            let message = format!("`{answer}` is not among the choices");
            build.report(&["expires", "answer"], message, fix);
            good = false;
        }
        let messages = choices.is_empty()
            && build.channels().get(MESSAGES).is_some_and(|c| c.reduce == Reducer::Messages);
        if messages {
            build.writes(&[], MESSAGES);
        } else if params.into.is_none() {
            let message = "the answer goes nowhere: there is no `into`";
            build.report(&[], message, "add `into: CHANNEL`");
            good = false;
        }
        let (ask, into) = (ask?, found(into)?);
        good.then(|| {
            Work::Leaf(Arc::new(Human {
                ask,
                choices,
                expires: params.expires.as_ref().map(|expires| expires.after.0),
                otherwise: otherwise.cloned(),
                into,
                messages,
            }))
        })
    }
}

/// Every choice can be told from the others.
fn check_choices(build: &mut Build<'_>, choices: &[String]) -> bool {
    let mut seen = BTreeSet::new();
    let mut good = true;
    for (i, choice) in choices.iter().enumerate() {
        let place = ["choices", &i.to_string()];
        if choice.trim().is_empty() {
            build.report(&place, "a choice cannot be empty", "write a word, or remove it");
            good = false;
        } else if !seen.insert(choice) {
            build.report(&place, format!("`{choice}` is listed twice"), "keep one");
            good = false;
        }
    }
    good
}

/// The channel takes the answer, which is text.
fn fits(build: &mut Build<'_>, into: &str, choices: &[String]) -> bool {
    let example = choices.first().map_or("text", String::as_str);
    build.literal(&["into"], into, &json!(example))
}

#[derive(Debug)]
struct Human {
    ask: Template,
    choices: Vec<String>,
    expires: Option<Duration>,
    otherwise: Option<String>,
    into: Option<Arc<str>>,
    /// A free text joins the conversation.
    messages: bool,
}

#[async_trait]
impl Node for Human {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let text = render(Some(&self.ask), "ask", state, cx.scope())?.unwrap_or_default();
        let question = Question {
            reason: AskReason::Human,
            text,
            choices: self.choices.clone(),
            schema: self.choices.is_empty().then(|| json!({ "type": "string" })),
            tool: None,
            args: None,
        };
        let ask = Ask {
            call: "ask".to_owned(),
            question,
            expires: self.expires,
            otherwise: self.otherwise.as_ref().map(|answer| json!(answer)),
        };
        match cx.ask(ask).await? {
            Reached::Asked(id) => Ok(Outcome::Suspend(vec![id])),
            Reached::Done(given) => Ok(self.answered(cx, given)),
        }
    }
}

impl Human {
    fn answered(&self, cx: &Cx, given: Given) -> Outcome {
        let Given { value, message } = given;
        let mut writes = Writes::new();
        if self.messages {
            let said = match message {
                Some(message) => Some(message),
                // Given through the API: a message only where it would be nowhere else.
                None if self.into.is_none() => {
                    let text = value.as_str().unwrap_or_default();
                    Some(Arc::new(Message::text(cx.message_id(), Role::User, text)))
                }
                None => None,
            };
            if let Some(said) = said {
                writes.insert(MESSAGES.into(), ChannelValue::message(said));
            }
        }
        if let Some(into) = &self.into {
            writes.insert(into.clone(), value.into());
        }
        Outcome::writes(writes)
    }
}
