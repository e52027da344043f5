//! What a run waits for, as its owner sees it: questions, and calls whose outcome is unknown.

use std::borrow::Cow;

use exile_engine::id::InterruptId;
use exile_engine::run::record::{AskReason, Asked, Callee, Intent};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A question of a run to a person.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InterruptView {
    /// What an answer names.
    #[schema(value_type = String)]
    pub id: InterruptId,
    /// The node that asks.
    pub node: String,
    /// Its task's path.
    pub task: String,
    /// `human`, `approval` (of a tool call) or `tool` (a tool asks).
    #[schema(value_type = String)]
    pub reason: Cow<'static, str>,
    /// For the person.
    pub text: String,
    /// The answers there are; empty: any text, or what `schema` says. An approval is answered
    /// with `"approve"`, `"reject"`, `{"edit": {…}}` or `{"reject": "why"}`.
    pub choices: Vec<String>,
    /// JSON Schema that an answer must meet.
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Value>,
    /// On an approval: the tool.
    pub tool: Option<String>,
    /// On an approval: the arguments as they will be sent.
    #[schema(value_type = Option<Object>)]
    pub arguments: Option<Value>,
    /// When nobody is waited for any more.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

impl From<Asked> for InterruptView {
    fn from(asked: Asked) -> Self {
        let question = asked.question;
        Self {
            id: asked.id,
            node: node(&asked.task).to_owned(),
            task: asked.task.to_string(),
            reason: Cow::Borrowed(match question.reason {
                AskReason::Human => "human",
                AskReason::Approval => "approval",
                AskReason::Tool => "tool",
            }),
            text: question.text,
            choices: question.choices,
            schema: question.schema,
            tool: question.tool,
            arguments: question.args,
            expires_at: asked.expires_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        }
    }
}

/// The node as its author knows it: the outermost one of a task's path.
fn node(task: &str) -> &str {
    let outer = task.split_once('/').map_or(task, |(outer, _)| outer);
    outer.rsplit_once(':').map_or(outer, |(node, _)| node)
}

/// A call that may or may not have happened.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OpenCallView {
    /// What resolving it names: `task#call`.
    pub call: String,
    /// The tool; null if a model was asked.
    pub tool: Option<String>,
    /// The arguments as they were sent.
    #[schema(value_type = Option<Object>)]
    pub arguments: Option<Value>,
}

impl From<Intent> for OpenCallView {
    fn from(intent: Intent) -> Self {
        let call = intent.name();
        let (tool, arguments) = match intent.to {
            Callee::Tool { name, args, .. } => (Some(name), Some(args)),
            Callee::Model(_) => (None, None),
        };
        Self { call, tool, arguments }
    }
}
