//! What a node reaches while it runs: its run's facts, and the only ways out of it.
//!
//! Every call goes intent record → call → bound → result record. Its key is the run, the task's
//! path and the call's name, never the step or the attempt: on resume a recorded result is
//! answered from the record, and no finished call is made twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument as _;

use crate::bundle::Program;
use crate::env::Env;
use crate::expr::Scope;
use crate::id::MessageId;
use crate::message::{Message, Role, ToolCall};
use crate::model::{
    Delta, Finish, ModelRef, ModelReply, ModelRequest, Models, ProviderError, ProviderFault,
    ToolChoice,
};
use crate::node::NodeError;
use crate::run::record::{Called, Callee, Intent, ModelFacts, Reply, RunOptions, Started};
use crate::skill::Skill;
use crate::span::{self, TraceLink};
use crate::tool::{Effect, ToolAnswer, ToolCx, ToolRegistry, ToolSpec};

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
    pub(crate) commands: mpsc::Sender<Command>,
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
    pub messages: Vec<Message>,
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

    /// Asks a model, streaming its answer to whoever watches the run.
    pub async fn call_model(&self, ask: ModelCall) -> Result<ModelAnswer, NodeError> {
        let call: Arc<str> = ask.call.as_str().into();
        if let Some(recorded) = self.replies.get(&call) {
            return replay_model(recorded);
        }
        let model = self.resolve(&ask.model)?;
        self.intent(&call, Callee::Model(model.clone())).await;
        let span = span::chat(&model, &ask, &self.started);
        let began = self.services.env.monotonic();
        let outcome = self.stream(&call, &model, &ask, began).instrument(span.clone()).await;
        let (answer, partial) = match outcome {
            Ok(streamed) => (Ok(streamed.reply), streamed.partial),
            Err((error, partial)) => (Err(error), partial),
        };
        let took_ms = millis(self.services.env.monotonic().saturating_sub(began));
        let mut called = Called {
            task: self.task.clone(),
            call,
            took_ms,
            tool: None,
            reply: Reply::Value(Value::Null),
            model: None,
            marks: crate::run::record::Marks::default(),
            shown: ask.shown,
        };
        match answer {
            Ok(reply) => {
                span::chat_ended(&span, Ok(&reply));
                let message = self.assistant(&model, &reply);
                called.reply = Reply::Message { id: message.id.clone(), failed: None };
                called.model = Some(ModelFacts {
                    model,
                    usage: reply.usage,
                    first_ms: partial.first_ms,
                    finish: reply.finish,
                });
                self.called(called, Some(message.clone())).await;
                Ok(ModelAnswer { message, finish: reply.finish })
            }
            Err(error) => {
                span::chat_ended(&span, Err(&error));
                let error = NodeError::Provider(error);
                called.reply = Reply::ModelFailed {
                    error: error.clone(),
                    text: partial.text,
                    reasoning: partial.reasoning,
                };
                self.called(called, None).await;
                Err(error)
            }
        }
    }

    /// Makes a call that a model asked for and gives the message that answers it. Whatever goes
    /// wrong with the tool is in the message, for the model to read.
    pub async fn call_tool(&self, wanted: &ToolCall) -> Message {
        let call: Arc<str> = wanted.id.as_str().into();
        if let Some(message) = self.replies.get(&call).and_then(|r| r.message.as_ref()) {
            return Message::clone(message);
        }
        let answer = match ToolRegistry::parse_arguments(&wanted.arguments) {
            Ok(args) => self.make_call(&call, &wanted.name, Some(&wanted.id), args).await,
            Err(error) => (ToolAnswer::Failed(error), 0),
        };
        let (answer, took_ms) = answer;
        let message = Message::tool(self.message_id(), wanted, answer.to_text());
        let failed = match answer {
            ToolAnswer::Failed(error) => Some(error),
            ToolAnswer::Done(_) => None,
        };
        let reply = Reply::Message { id: message.id.clone(), failed };
        let called = self.tool_called(call, &wanted.name, took_ms, reply);
        self.called(called, Some(message.clone())).await;
        message
    }

    /// Makes one named call with given arguments, for a node that wants the value itself.
    pub async fn call_tool_value(&self, call: &str, tool: &str, args: Value) -> ToolAnswer {
        let call: Arc<str> = call.into();
        if let Some(recorded) = self.replies.get(&call) {
            match &recorded.called.reply {
                Reply::Value(value) => return ToolAnswer::Done(value.clone()),
                Reply::ToolFailed(error) => return ToolAnswer::Failed(error.clone()),
                Reply::Message { .. } | Reply::ModelFailed { .. } => {}
            }
        }
        let (answer, took_ms) = self.make_call(&call, tool, None, args).await;
        let reply = match &answer {
            ToolAnswer::Done(value) => Reply::Value(value.clone()),
            ToolAnswer::Failed(error) => Reply::ToolFailed(error.clone()),
        };
        self.called(self.tool_called(call, tool, took_ms, reply), None).await;
        answer
    }

    fn tool_called(&self, call: Arc<str>, tool: &str, took_ms: u64, reply: Reply) -> Called {
        Called {
            task: self.task.clone(),
            call,
            took_ms,
            tool: Some(tool.into()),
            reply,
            model: None,
            marks: crate::run::record::Marks::default(),
            shown: false,
        }
    }

    /// Validate → intent → call → bound.
    async fn make_call(
        &self,
        call: &Arc<str>,
        tool: &str,
        id: Option<&str>,
        args: Value,
    ) -> (ToolAnswer, u64) {
        let tools = &self.services.tools;
        let effect = tools.spec(tool).map_or(Effect::Pure, |s| s.effect);
        let to = Callee::Tool {
            name: tool.to_owned(),
            id: id.map(str::to_owned),
            args: args.clone(),
            effect,
        };
        if let Err(error) = tools.validate(tool, &args) {
            // Nothing will be called, yet the reader of the run sees what was asked.
            self.intent(call, to).await;
            return (ToolAnswer::Failed(error), 0);
        }
        self.intent(call, to).await;
        let span = span::execute_tool(tool, id, &self.started);
        if let Some(spec) = tools.spec(tool) {
            span::tool_described(&span, &spec.description);
        }
        let cx = ToolCx {
            key: format!("{}/{}/{call}", self.started.run, self.task),
            user: self.started.owner.clone(),
            run: Some(self.started.run.clone()),
            env: self.services.env.clone(),
        };
        let began = self.services.env.monotonic();
        let answer = tools.call(&cx, tool, args).instrument(span.clone()).await;
        span::tool_ended(&span, &answer);
        (answer, millis(self.services.env.monotonic().saturating_sub(began)))
    }

    fn resolve(&self, name: &str) -> Result<ModelRef, NodeError> {
        let business = self.options().business.as_deref();
        Models::resolve(&self.program.aliases, name, business).ok_or_else(|| NodeError::Missing {
            what: "model".into(),
            name: name.into(),
            remedy: "name it under `models` in exile.yaml, or write provider/model".into(),
        })
    }

    /// Streams one answer, handing deltas on as they come.
    async fn stream(
        &self,
        call: &Arc<str>,
        model: &ModelRef,
        ask: &ModelCall,
        began: std::time::Duration,
    ) -> Result<Streamed, (ProviderError, Partial)> {
        let mut partial = Partial::default();
        let Some(provider) = self.services.models.provider(&model.provider) else {
            let fault = ProviderFault::ProviderUnknown;
            return Err((provider_error(model, fault), partial));
        };
        let request = ModelRequest {
            model: model.model.clone(),
            messages: ask.messages.clone(),
            tools: ask.tools.clone(),
            tool_choice: ask.tool_choice.clone(),
            temperature: ask.temperature,
            max_tokens: ask.max_tokens,
            output_schema: ask.output_schema.clone(),
        };
        let (sender, mut deltas) = mpsc::channel(64);
        let answer = async {
            let reply = provider.stream(&request, &sender).await;
            drop(sender);
            reply
        };
        let pump = async {
            while let Some(delta) = deltas.recv().await {
                let first = self.services.env.monotonic().saturating_sub(began);
                if partial.first_ms.is_none() {
                    span::first_chunk(first);
                    partial.first_ms = Some(millis(first));
                }
                match &delta {
                    Delta::Text(text) => partial.text.push_str(text),
                    Delta::Reasoning(text) => partial.reasoning.push_str(text),
                }
                let (task, call) = (self.task.clone(), call.clone());
                self.tell(Command::Delta { task, call, shown: ask.shown, delta }).await;
            }
        };
        let (reply, ()) = futures_util::future::join(answer, pump).await;
        match reply {
            Ok(reply) => Ok(Streamed { reply, partial }),
            Err(error) => Err((error, partial)),
        }
    }

    fn assistant(&self, model: &ModelRef, reply: &ModelReply) -> Message {
        Message {
            reasoning: reply.reasoning.clone(),
            tool_calls: reply.tool_calls.clone(),
            model: Some(model.to_string()),
            opaque: reply.opaque.clone(),
            ..Message::text(self.message_id(), Role::Assistant, reply.content.clone())
        }
    }

    async fn intent(&self, call: &Arc<str>, to: Callee) {
        let (ack, stored) = oneshot::channel();
        let intent = Intent { task: self.task.clone(), call: call.clone(), to };
        self.tell(Command::Intent(intent, ack)).await;
        acknowledged(stored).await;
    }

    async fn called(&self, called: Called, message: Option<Message>) {
        let (ack, stored) = oneshot::channel();
        self.tell(Command::Called { called: Box::new(called), message, ack }).await;
        acknowledged(stored).await;
    }

    async fn tell(&self, command: Command) {
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

struct Streamed {
    reply: ModelReply,
    partial: Partial,
}

/// What had been streamed when the call ended.
#[derive(Default)]
struct Partial {
    text: String,
    reasoning: String,
    first_ms: Option<u64>,
}

fn provider_error(model: &ModelRef, fault: ProviderFault) -> ProviderError {
    ProviderError { provider: model.provider.to_string(), model: model.model.to_string(), fault }
}

fn replay_model(recorded: &Recorded) -> Result<ModelAnswer, NodeError> {
    match (&recorded.called.reply, &recorded.message) {
        (Reply::Message { .. }, Some(message)) => Ok(ModelAnswer {
            message: Message::clone(message),
            finish: recorded.called.model.as_ref().map_or(Finish::Stop, |m| m.finish),
        }),
        (Reply::ModelFailed { error, .. }, _) => Err(error.clone()),
        _ => Err(NodeError::Internal("a model's record holds no answer".into())),
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
