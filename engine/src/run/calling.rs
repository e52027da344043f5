//! Calls of tools: checked, approved where that is needed, written down before they are made.

use std::sync::Arc;

use serde_json::Value;
use tracing::Instrument as _;

use crate::id::InterruptId;
use crate::message::{Message, ToolCall};
use crate::run::approval;
use crate::run::context::{Command, Cx, Reached, millis};
use crate::run::fold::call_text;
use crate::run::marks::Marks;
use crate::run::record::{Called, Callee, Reply};
use crate::span;
use crate::tool::{Effect, Resumed, ToolAnswer, ToolCx, ToolError, ToolErrorKind};

impl Cx {
    /// Makes a call that a model asked for and gives the message that answers it. Whatever goes
    /// wrong with the tool is in the message, for the model to read. With `approve`, a person must
    /// agree first; when else they must, says [`must_be_approved`](Self::must_be_approved).
    pub async fn call_tool(&self, wanted: &ToolCall, approve: bool) -> Reached<Message> {
        let call: Arc<str> = wanted.id.as_str().into();
        if let Some(message) = self.replies.get(&call).and_then(|r| r.message.as_ref()) {
            return Reached::Done(Message::clone(message));
        }
        let made = match self.services.tools.parse_arguments(&wanted.arguments) {
            Ok(args) => self.make_call(&call, &wanted.name, Some(&wanted.id), args, approve).await,
            Err(error) => {
                let args = Value::String(wanted.arguments.clone());
                self.intent(&call, self.callee(&wanted.name, Some(&wanted.id), args)).await;
                Made::answer(ToolAnswer::Failed(error), 0, None)
            }
        };
        let Answered { answer, took_ms, edited: edited_arguments } = match made {
            Made::Answer(answered) => *answered,
            Made::Asked(id) => return Reached::Asked(id),
        };
        let message = Message::tool(self.message_id(), wanted, answer.to_text());
        let message = Message { edited_arguments, ..message };
        let failed = match answer {
            ToolAnswer::Failed(error) => Some(error),
            ToolAnswer::Done(_) | ToolAnswer::Ask(_) => None,
        };
        let reply = Reply::Message { id: message.id.clone(), failed };
        let called = self.tool_called(call, &wanted.name, took_ms, reply);
        self.called(called, Some(message.clone())).await;
        Reached::Done(message)
    }

    /// Makes one named call with given arguments, for a node that wants the value itself. With
    /// `approve`, a person must agree first; when else they must, says
    /// [`must_be_approved`](Self::must_be_approved).
    pub async fn call_tool_value(
        &self,
        call: &str,
        tool: &str,
        args: Value,
        approve: bool,
    ) -> Reached<ToolAnswer> {
        let call: Arc<str> = call.into();
        if let Some(recorded) = self.replies.get(&call) {
            match &recorded.called.reply {
                Reply::Value(value) => return Reached::Done(ToolAnswer::Done(value.clone())),
                Reply::ToolFailed(error) => {
                    return Reached::Done(ToolAnswer::Failed(error.clone()));
                }
                Reply::Message { .. } | Reply::ModelFailed { .. } | Reply::Asked { .. } => {}
            }
        }
        let made = self.make_call(&call, tool, None, args, approve).await;
        let Answered { answer, took_ms, .. } = match made {
            Made::Answer(answered) => *answered,
            Made::Asked(id) => return Reached::Asked(id),
        };
        let reply = match &answer {
            ToolAnswer::Done(value) => Reply::Value(value.clone()),
            ToolAnswer::Failed(error) => Reply::ToolFailed(error.clone()),
            ToolAnswer::Ask(_) => Reply::Value(Value::Null),
        };
        self.called(self.tool_called(call, tool, took_ms, reply), None).await;
        Reached::Done(answer)
    }

    fn effect(&self, tool: &str) -> Effect {
        self.services.tools.spec(tool).map_or(Effect::Pure, |spec| spec.effect)
    }

    fn callee(&self, tool: &str, id: Option<&str>, args: Value) -> Callee {
        let (name, id) = (tool.to_owned(), id.map(str::to_owned));
        Callee::Tool { name, id, args, effect: self.effect(tool) }
    }

    fn tool_called(&self, call: Arc<str>, tool: &str, took_ms: u64, reply: Reply) -> Called {
        let worked = matches!(reply, Reply::Message { failed: None, .. } | Reply::Value(_));
        Called {
            task: self.task.clone(),
            call,
            took_ms,
            tool: Some(tool.into()),
            reply,
            model: None,
            attempts: Vec::new(),
            marks: Marks::default(),
            shown: false,
            taints: worked && self.services.tools.spec(tool).is_some_and(|spec| spec.taints),
        }
    }

    /// Validate → approval → intent → call → bound.
    async fn make_call(
        &self,
        call: &Arc<str>,
        tool: &str,
        id: Option<&str>,
        args: Value,
        approve: bool,
    ) -> Made {
        let tools = &self.services.tools;
        if let Err(error) = tools.validate(tool, &args) {
            // Nothing will be called, yet the reader of the run sees what was asked.
            self.intent(call, self.callee(tool, id, args)).await;
            return Made::answer(ToolAnswer::Failed(error), 0, None);
        }
        let approve = approve || self.must_be_approved(tool, &args);
        let approved = match self.approved(call, tool, &args, approve).await {
            Ok(approved) => approved,
            Err(interrupt) => return Made::Asked(interrupt),
        };
        let (args, edited) = match approved.edited {
            Some(edited) => (edited.clone(), Some(edited)),
            None => (args, None),
        };
        if let Err(error) = approved.verdict {
            self.intent(call, self.callee(tool, id, args)).await;
            return Made::answer(ToolAnswer::Failed(error), 0, edited);
        }
        let resumed = match self.resumed(call) {
            Some(Reached::Asked(interrupt)) => return Made::Asked(interrupt),
            Some(Reached::Done(resumed)) => Some(resumed),
            None => None,
        };
        self.intent(call, self.callee(tool, id, args.clone())).await;
        let (answer, took_ms) = self.send(call, tool, id, args, resumed).await;
        match answer {
            ToolAnswer::Ask(question) => {
                let resume = question.resume.clone();
                let (ask, name) = approval::of_tool(call, &self.asks, tool, question);
                let asked = self.asked(name.clone(), ask);
                let id = asked.id.clone();
                // The question first: a call whose end is recorded must not be made again.
                self.tell(Command::Asked(Box::new(asked), None)).await;
                let reply = Reply::Asked { ask: name, resume };
                self.called(self.tool_called(call.clone(), tool, took_ms, reply), None).await;
                Made::Asked(id)
            }
            ToolAnswer::Failed(error)
                if self.effect(tool) == Effect::Unsafe && error.kind.may_have_happened() =>
            {
                let error = ToolError::new(ToolErrorKind::OutcomeUnknown, error.message);
                Made::answer(ToolAnswer::Failed(error), took_ms, edited)
            }
            answer => Made::answer(answer, took_ms, edited),
        }
    }

    /// Whether a person must agree to a call whatever its node says: it is `unsafe`, and text from
    /// elsewhere that may steer a model has come into the log; or the same call may have happened
    /// before.
    fn must_be_approved(&self, tool: &str, args: &Value) -> bool {
        (self.effect(tool) == Effect::Unsafe && self.tainted)
            || self.unknown.contains(&call_text(tool, args))
    }

    /// What a person made of the call, if one need be asked; `Err`: one is asked.
    async fn approved(
        &self,
        call: &Arc<str>,
        tool: &str,
        args: &Value,
        approve: bool,
    ) -> Result<Approved, InterruptId> {
        let name = approval::call(call);
        if !approve && !self.asks.contains_key(name.as_str()) {
            return Ok(Approved { edited: None, verdict: Ok(()) });
        }
        let given = match self.ask(approval::ask(name, tool, args)).await {
            Ok(Reached::Asked(interrupt)) => return Err(interrupt),
            Ok(Reached::Done(given)) => given,
            Err(error) => {
                let error = ToolError::new(ToolErrorKind::Denied, error.to_string());
                return Ok(Approved { edited: None, verdict: Err(error) });
            }
        };
        Ok(match approval::decide(&given.value, args.clone()) {
            Ok(decided) => Approved {
                verdict: self.services.tools.validate(tool, &decided),
                edited: (decided != *args).then_some(decided),
            },
            Err(error) => Approved { edited: None, verdict: Err(error) },
        })
    }

    /// What a tool asked, and what was answered; `None` if it asked nothing.
    fn resumed(&self, call: &Arc<str>) -> Option<Reached<Resumed>> {
        let Reply::Asked { ask, resume } = &self.replies.get(call)?.called.reply else {
            return None;
        };
        let asking = self.asks.get(ask)?;
        Some(match &asking.answer {
            None => Reached::Asked(asking.asked.id.clone()),
            Some(answer) => {
                let (resume, answer) = (resume.clone(), answer.value.clone());
                Reached::Done(Resumed { resume, answer })
            }
        })
    }

    async fn send(
        &self,
        call: &Arc<str>,
        tool: &str,
        id: Option<&str>,
        args: Value,
        resumed: Option<Resumed>,
    ) -> (ToolAnswer, u64) {
        let tools = &self.services.tools;
        let span = span::execute_tool(tool, id, &self.started);
        if let Some(spec) = tools.spec(tool) {
            span::tool_described(&span, &spec.description);
        }
        let cx = ToolCx {
            key: format!("{}/{}/{call}", self.started.run, self.task),
            user: self.started.owner.clone(),
            run: Some(self.started.run.clone()),
            env: self.services.env.clone(),
            resumed,
            limits: tools.limits().clone(),
        };
        let began = self.services.env.monotonic();
        let answer = tools.call(&cx, tool, args).instrument(span.clone()).await;
        span::tool_ended(&span, &answer);
        let took = self.services.env.monotonic().saturating_sub(began);
        let error = span::tool_error(&answer);
        self.services.observer.tool(&self.started.graph, tool, took, error.as_deref());
        (answer, millis(took))
    }
}

/// What a tool call came to.
enum Made {
    /// An answer.
    Answer(Box<Answered>),
    /// A person was asked.
    Asked(InterruptId),
}

/// An answer, and how it came about.
struct Answered {
    answer: ToolAnswer,
    took_ms: u64,
    /// What a person changed the arguments to.
    edited: Option<Value>,
}

impl Made {
    fn answer(answer: ToolAnswer, took_ms: u64, edited: Option<Value>) -> Self {
        Self::Answer(Box::new(Answered { answer, took_ms, edited }))
    }
}

/// What a person made of a call.
struct Approved {
    /// The arguments, if they changed them.
    edited: Option<Value>,
    /// Why it is not made, if so: they said no, or the tool does not take what they wrote.
    verdict: Result<(), ToolError>,
}
