//! Facts of people: what they were asked and answered, what a run waits for, and what they changed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calls::Intent;
use super::{Activation, RunError};
use crate::id::{InterruptId, MessageId, RunId, UserId};
use crate::state::Delta;

/// A question of a task to a person: an interrupt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// What an answer names.
    pub id: InterruptId,
    /// The task's path.
    #[serde(rename = "t")]
    pub task: Arc<str>,
    /// Unique within the task, among calls and questions.
    #[serde(rename = "c")]
    pub call: Arc<str>,
    /// What is asked.
    #[serde(rename = "q")]
    pub question: Question,
    /// Milliseconds since 1970 at which nobody is waited for any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// The answer if it expires; without one the task fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Value>,
}

/// What a person is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Why.
    pub reason: AskReason,
    /// For the person.
    pub text: String,
    /// The answers there are; empty: any text, or what `schema` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// JSON Schema that an answer must meet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// On an approval: the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// On an approval: the arguments as they will be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Value>,
}

/// Why a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskReason {
    /// A node of kind `human`.
    Human,
    /// A tool call needs approval.
    Approval,
    /// A tool asks.
    Tool,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Which question.
    #[serde(rename = "i")]
    pub interrupt: InterruptId,
    /// What was answered; null if it expired without a default.
    #[serde(rename = "v")]
    pub value: Value,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// The message of the conversation that was the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageId>,
    /// Nobody answered in time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// A run that goes on only when somebody does something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Which run.
    pub run: RunId,
    /// Questions without an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
    /// Why it needs attention instead: `open_call`, `poison` or `needs_migration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<RunError>,
    /// Of `open_call`: the calls that may or may not have happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Intent>,
}

/// What a person allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The task's path; empty: the run as a whole may go on.
    #[serde(rename = "t", default, skip_serializing_if = "str::is_empty")]
    pub task: Arc<str>,
    /// The open call that may be made again.
    #[serde(rename = "c", default, skip_serializing_if = "str::is_empty")]
    pub call: Arc<str>,
    /// Who.
    pub by: UserId,
}

/// A change of the state by a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edited {
    /// Path of the task whose subgraph is changed; empty for the run's own graph.
    #[serde(rename = "p", default, skip_serializing_if = "str::is_empty")]
    pub path: Arc<str>,
    /// The node in whose name it was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_node: Option<String>,
    /// Who changed it.
    pub by: UserId,
    /// What changed.
    #[serde(rename = "d")]
    pub delta: Delta,
    /// With `as_node`: what is live instead of the tasks there were.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
}
