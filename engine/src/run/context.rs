//! What a node reaches while it runs: its run's facts, and the only ways out of it.
//!
//! Every call goes check → approval → intent record → call → bound → result record. Its key is the
//! run, the task's path and the call's name, never the step or the attempt: on resume a recorded
//! result is answered from the record, and no finished call is made twice.
//!
//! A question to a person does not wait in place: the task answers `Suspend` and is run again
//! from its top once there is an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::bundle::Program;
use crate::env::Env;
use crate::expr::Scope;
use crate::id::{InterruptId, MessageId};
use crate::message::Message;
use crate::model::{Delta, Effort, Finish, Models, ToolChoice};
use crate::node::NodeError;
use crate::observer::Observer;
use crate::run::attempt::Bounds;
use crate::run::record::{Asked, Called, Callee, Intent, Question, RunOptions, Started};
use crate::run::task::{Answer, Question as Asking};
use crate::skill::Skill;
use crate::span::TraceLink;
use crate::tool::{ToolRegistry, ToolSpec};

/// What every run of the process shares.
#[derive(Clone)]
pub struct Services {
    /// Clock, ids, randomness.
    pub env: Arc<dyn Env>,
    /// Model providers.
    pub models: Arc<Models>,
    /// Tools.
    pub tools: Arc<ToolRegistry>,
    /// The trace that spans belong to.
    pub trace: Arc<dyn TraceLink>,
    /// Who measures.
    pub observer: Arc<dyn Observer>,
}

/// One task's view of its run.
#[derive(Clone)]
pub struct Cx {
    pub(crate) services: Arc<Services>,
    pub(crate) program: Arc<Program>,
    pub(crate) started: Arc<Started>,
    pub(crate) scope: Scope,
    /// The task's path, e.g. `answer:1/llm:2`.
    pub(crate) task: Arc<str>,
    /// Calls of this task that have a recorded result, by name.
    pub(crate) replies: Arc<BTreeMap<Arc<str>, Recorded>>,
    /// Questions of this task, by name.
    pub(crate) asks: Arc<BTreeMap<Arc<str>, Asking>>,
    /// Text that is not the user's came into the run.
    pub(crate) tainted: bool,
    /// Calls of the run that may or may not have happened.
    pub(crate) unknown: Arc<BTreeSet<String>>,
    /// The time that the run and the nodes around the task have left.
    pub(crate) bounds: Bounds,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// What a call or a question came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reached<T> {
    /// It has a result.
    Done(T),
    /// A person was asked: the node answers [`Outcome::Suspend`](crate::node::Outcome::Suspend).
    Asked(InterruptId),
}

/// A question to a person.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Unique within the task.
    pub call: String,
    /// What is asked.
    pub question: Question,
    /// How long an answer is waited for; `None`: for ever.
    pub expires: Option<Duration>,
    /// The answer if it expires; without one the task fails.
    pub otherwise: Option<Value>,
}

/// A person's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// What was answered.
    pub value: Value,
    /// The message of the conversation that was the answer.
    pub message: Option<Arc<Message>>,
}

/// A recorded result and the message it names.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The record.
    pub called: Arc<Called>,
    /// The message, for [`Reply::Message`].
    pub message: Option<Arc<Message>>,
}

/// What a task asks of its driver, the only writer of the log.
pub(crate) enum Command {
    /// Store the intent, then answer.
    Intent(Intent, oneshot::Sender<()>),
    /// Store the question, then answer, if somebody waits for that.
    Asked(Box<Asked>, Option<oneshot::Sender<()>>),
    /// Number a delta and show it.
    Delta { task: Arc<str>, call: Arc<str>, shown: bool, delta: Delta },
    /// Store the result, then answer.
    Called { called: Box<Called>, message: Option<Message>, ack: oneshot::Sender<()> },
}

/// One question to a model.
#[derive(Clone, Debug)]
pub struct ModelCall {
    /// Unique within the task.
    pub call: String,
    /// Alias or `provider/model`.
    pub model: String,
    /// Complete, in order, system texts included.
    pub messages: Vec<Arc<Message>>,
    /// What the model may call.
    pub tools: Vec<ToolSpec>,
    /// Whether it must.
    pub tool_choice: ToolChoice,
    /// 0.0–2.0.
    pub temperature: Option<f64>,
    /// Upper bound of the answer, in tokens.
    pub max_tokens: Option<u32>,
    /// JSON Schema that the answer must meet.
    pub output_schema: Option<Value>,
    /// How hard the model thinks; `None`: as the provider does by itself.
    pub reasoning: Option<Effort>,
    /// Whether the user watches the answer being written (`message.delta`), or it is internal
    /// (`node.delta`).
    pub shown: bool,
}

/// A model's answer, recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelAnswer {
    /// What it said.
    pub message: Message,
    /// Why it stopped.
    pub finish: Finish,
}

impl Cx {
    /// What templates and expressions may read besides the state.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What the conversation or the caller set for the whole run.
    #[must_use]
    pub fn options(&self) -> &RunOptions {
        &self.started.options
    }

    /// The skill of that name, as pinned when the run started.
    pub fn skill(&self, name: &str) -> Result<&Arc<Skill>, NodeError> {
        self.program.skills.get(name).ok_or_else(|| NodeError::Missing {
            what: "skill".into(),
            name: name.into(),
            remedy: "it was not there when the run started".into(),
        })
    }

    /// The installation's tools.
    #[must_use]
    pub fn tools(&self) -> &ToolRegistry {
        &self.services.tools
    }

    /// A new message's id.
    #[must_use]
    pub fn message_id(&self) -> MessageId {
        MessageId::new(&*self.services.env)
    }

    /// Asks a person, once: the second run of the task gets what the first one asked for.
    ///
    /// # Errors
    /// [`NodeError::Expired`]: nobody answered in time, and the question has no default.
    pub async fn ask(&self, ask: Ask) -> Result<Reached<Given>, NodeError> {
        let call: Arc<str> = ask.call.as_str().into();
        match self.asks.get(&call) {
            Some(Asking { answer: Some(answer), asked }) => {
                let Answer { value, message, expired } = answer.clone();
                if expired && value.is_null() {
                    return Err(NodeError::Expired(asked.question.text.clone()));
                }
                Ok(Reached::Done(Given { value, message }))
            }
            Some(Asking { answer: None, asked }) => Ok(Reached::Asked(asked.id.clone())),
            None => Ok(Reached::Asked(self.put(call, ask).await)),
        }
    }

    pub(super) async fn put(&self, call: Arc<str>, ask: Ask) -> InterruptId {
        let asked = self.asked(call, ask);
        let id = asked.id.clone();
        let (ack, stored) = oneshot::channel();
        self.tell(Command::Asked(Box::new(asked), Some(ack))).await;
        acknowledged(stored).await;
        id
    }

    pub(super) fn asked(&self, call: Arc<str>, ask: Ask) -> Asked {
        let now = self.services.env.now().as_millisecond();
        let after = |period: Duration| i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
        Asked {
            id: InterruptId::new(&*self.services.env),
            task: self.task.clone(),
            call,
            question: ask.question,
            expires_ms: ask.expires.map(|period| now.saturating_add(after(period))),
            otherwise: ask.otherwise,
        }
    }

    pub(super) async fn intent(&self, call: &Arc<str>, to: Callee) {
        let (ack, stored) = oneshot::channel();
        // Whether something was streamed before is known where the log is written.
        let intent = Intent { task: self.task.clone(), call: call.clone(), to, again: false };
        self.tell(Command::Intent(intent, ack)).await;
        acknowledged(stored).await;
    }

    pub(super) async fn called(&self, called: Called, message: Option<Message>) {
        let (ack, stored) = oneshot::channel();
        self.tell(Command::Called { called: Box::new(called), message, ack }).await;
        acknowledged(stored).await;
    }

    pub(super) async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            // The driver is gone and will drop this task: nothing may happen any more.
            std::future::pending::<()>().await;
        }
    }
}

async fn acknowledged(stored: oneshot::Receiver<()>) {
    if stored.await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub(super) fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
