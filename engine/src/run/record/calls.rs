//! Facts of calls: what was about to be asked of a model or a tool, and what came of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::MessageId;
use crate::model::asking::Attempt;
use crate::model::{Finish, ModelRef, Usage};
use crate::node::NodeError;
use crate::run::marks::Marks;
use crate::tool::ToolError;

/// A call about to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The task's path, e.g. `answer:1/tools:2`.
    #[serde(rename = "t")]
    pub task: Arc<str>,
    /// Unique within the task.
    #[serde(rename = "c")]
    pub call: Arc<str>,
    /// To whom.
    #[serde(flatten)]
    pub to: Callee,
    /// What an earlier attempt streamed of this message is void.
    #[serde(rename = "a", default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl Intent {
    /// What resolving it names: `task#call`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}#{}", self.task, self.call)
    }
}

/// Whom a call is made to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Callee {
    /// A model. Its effect is `idempotent`.
    Model(ModelRef),
    /// A tool.
    Tool {
        /// Its name.
        name: String,
        /// The model's id of the call, if a model asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// As they will be sent.
        args: Value,
        /// What calling it does.
        effect: crate::tool::Effect,
    },
}

/// A call that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Called {
    /// The task's path.
    #[serde(rename = "t")]
    pub task: Arc<str>,
    /// As in the intent.
    #[serde(rename = "c")]
    pub call: Arc<str>,
    /// How long it took, in milliseconds.
    #[serde(rename = "took")]
    pub took_ms: u64,
    /// The tool, if it was one.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Arc<str>>,
    /// What it gave.
    #[serde(rename = "r")]
    pub reply: Reply,
    /// What is known of a model's answer.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelFacts>,
    /// A model's attempts that failed, in order; of a call that failed, the last one as well.
    #[serde(rename = "tries", default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Where its deltas stood in the stream.
    #[serde(rename = "marks", default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
    /// Whether its deltas are the conversation's answer (`message.delta`) or internal
    /// (`node.delta`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shown: bool,
    /// Its answer holds text that is not the user's, and that may try to steer a model.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub taints: bool,
}

/// What is known of a model's answer besides its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Whom it came from.
    pub model: ModelRef,
    /// Tokens, if the provider said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Milliseconds to the first delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_ms: Option<u64>,
    /// Why it stopped.
    pub finish: Finish,
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A message, whose content is in the message rows; `failed` if it holds a tool's error.
    Message {
        /// Its id.
        id: MessageId,
        /// A tool that failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<ToolError>,
    },
    /// A tool's value, for a node that makes no message of it.
    Value(Value),
    /// A tool's error, for a node that makes no message of it.
    ToolFailed(ToolError),
    /// A model's error, and what had been streamed before it.
    ModelFailed {
        /// Why.
        error: NodeError,
        /// Text that was streamed.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
        /// Reasoning that was streamed.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reasoning: String,
    },
    /// A tool's question to a person; the call goes on, under its key, with the answer.
    Asked {
        /// The call name of the question, [`Asked::call`](super::Asked::call).
        ask: Arc<str>,
        /// What the tool wants back together with the answer.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        resume: Value,
    },
}
