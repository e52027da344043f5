//! Questions of runs to models: written down before they are sent, streamed to whoever watches,
//! recorded when they are answered. Who is asked, and who next: `model/asking.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::id::ConversationId;
use crate::message::{Message, Role};
use crate::model::asking::{Answered, Asker, Failed};
use crate::model::meter::Payer;
use crate::model::{Chain, Delta, Finish, ModelRef, ModelReply, ModelRequest, Models};
use crate::node::NodeError;
use crate::run::context::{Command, Cx, ModelAnswer, ModelCall, Recorded, millis};
use crate::run::marks::Marks;
use crate::run::record::{Called, Callee, ModelFacts, Reply};

impl Cx {
    /// Asks a model, streaming its answer to whoever watches the run.
    pub async fn call_model(&self, ask: ModelCall) -> Result<ModelAnswer, NodeError> {
        let call: Arc<str> = ask.call.as_str().into();
        if let Some(recorded) = self.replies.get(&call) {
            return replay(recorded);
        }
        let chain = self.chain(&ask.model)?;
        let (shown, request) = (ask.shown, request(ask));
        let models = &self.services.models;
        let able = models.able(chain.models, &request).map_err(NodeError::Provider)?;
        self.intent(&call, Callee::Model(able[0].clone())).await;
        let env = &*self.services.env;
        let began = env.monotonic();
        let chain = Chain { models: able, ..chain };
        let asker = Watched { cx: self, call: &call, shown };
        let asked = models.ask(env, &asker, chain, request).await;
        let took_ms = millis(env.monotonic().saturating_sub(began));
        let (answer, reply, model, message) = match asked.outcome {
            Ok(Answered { model, reply, first_ms }) => {
                let message = self.assistant(&model, &reply);
                let (usage, finish) = (reply.usage, reply.finish);
                let facts = ModelFacts { model, usage, first_ms, finish };
                let reply = Reply::Message { id: message.id.clone(), failed: None };
                let answer = ModelAnswer { message: message.clone(), finish };
                (Ok(answer), reply, Some(facts), Some(message))
            }
            Err(Failed { error, text, reasoning }) => {
                let error = NodeError::Provider(error);
                (Err(error.clone()), Reply::ModelFailed { error, text, reasoning }, None, None)
            }
        };
        let called = Called {
            task: self.task.clone(),
            call: call.clone(),
            took_ms,
            tool: None,
            reply,
            model,
            attempts: asked.attempts,
            marks: Marks::default(),
            shown,
            taints: false,
        };
        self.called(called, message).await;
        answer
    }

    fn chain(&self, name: &str) -> Result<Chain, NodeError> {
        let business = self.options().business.as_deref();
        Models::chain(&self.program.aliases, name, business).ok_or_else(|| NodeError::Missing {
            what: "model".into(),
            name: name.into(),
            remedy: "name it under `models` in exile.yaml, or write provider/model".into(),
        })
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
}

/// A call whose run may be watched.
struct Watched<'a> {
    cx: &'a Cx,
    call: &'a Arc<str>,
    shown: bool,
}

#[async_trait]
impl Asker for Watched<'_> {
    fn conversation(&self) -> Option<&str> {
        self.cx.started.conversation.as_ref().map(ConversationId::as_str)
    }

    fn payer(&self) -> Payer {
        let started = &self.cx.started;
        Payer {
            owner: started.owner.clone(),
            key: started.options.key.clone(),
            business: started.options.business.clone(),
            graph: Some(started.graph.to_string()),
            run: Some(started.run.clone()),
        }
    }

    fn has_time(&self, now: Duration, pause: Duration) -> bool {
        self.cx.bounds.admit(now, pause)
    }

    async fn again(&self, model: &ModelRef) {
        self.cx.intent(self.call, Callee::Model(model.clone())).await;
    }

    async fn piece(&self, delta: Delta) {
        let (task, call) = (self.cx.task.clone(), self.call.clone());
        self.cx.tell(Command::Delta { task, call, shown: self.shown, delta }).await;
    }
}

/// The request of a call.
fn request(ask: ModelCall) -> ModelRequest {
    ModelRequest {
        model: "".into(),
        messages: ask.messages,
        tools: ask.tools,
        tool_choice: ask.tool_choice,
        temperature: ask.temperature,
        max_tokens: ask.max_tokens,
        output_schema: ask.output_schema,
        reasoning: ask.reasoning,
        further: serde_json::Map::new(),
    }
}

fn replay(recorded: &Recorded) -> Result<ModelAnswer, NodeError> {
    match (&recorded.called.reply, &recorded.message) {
        (Reply::Message { .. }, Some(message)) => Ok(ModelAnswer {
            message: Message::clone(message),
            finish: recorded.called.model.as_ref().map_or(Finish::Stop, |m| m.finish),
        }),
        (Reply::ModelFailed { error, .. }, _) => Err(error.clone()),
        _ => Err(NodeError::Internal("a model's record holds no answer".into())),
    }
}
