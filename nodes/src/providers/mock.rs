//! A provider without a network: it stands in where no key is set, and in tests.
//!
//! It follows a script: the first rule that fits the last message answers. Without a script it
//! echoes, and works sums out with `calculator` if that tool is offered.
//!
//! Invariants:
//! - Every answer says that it is the mock: its text begins with `[mock]`. Where the caller wants
//!   JSON the text is left bare, and the model's name alone says so.
//! - The same request gives the same answer, ids of tool calls included.

mod echo;
mod script;

use std::time::Duration;

use async_trait::async_trait;
use exile_engine::message::{Role, ToolCall};
use exile_engine::model::{
    Delta, DeltaSender, Finish, ModelReply, ModelRequest, Provider, ProviderError, ProviderFault,
    Usage,
};

pub use script::{Call, Fail, FailKind, Rule, Script};

/// The name before the slash.
pub const NAME: &str = "mock";

/// The mock provider.
#[derive(Clone, Debug, Default)]
pub struct Mock {
    script: Script,
}

impl Mock {
    /// Follows a script; where no rule of it fits, it echoes.
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self { script }
    }

    fn turn(&self, request: &ModelRequest) -> Turn {
        let last = request.messages.iter().rfind(|m| matches!(m.role, Role::User | Role::Tool));
        let mut turn = match last.and_then(|last| Some((self.script.rule(last)?, last))) {
            Some((rule, last)) => rule.turn(last),
            None => echo::turn(request, last.map(|last| &**last)),
        };
        if request.output_schema.is_none() {
            turn.text.insert_str(0, "[mock] ");
            turn.text.truncate(turn.text.trim_end().len());
        }
        turn
    }
}

/// What the mock is about to say.
#[derive(Clone, Debug, Default, PartialEq)]
struct Turn {
    reasoning: Option<String>,
    text: String,
    calls: Vec<(String, String)>,
    /// Characters per delta.
    chunk: usize,
    /// Before each delta.
    delay: Duration,
    /// At the end, in place of an answer.
    fault: Option<ProviderFault>,
}

impl Turn {
    /// Its deltas: reasoning first.
    fn deltas(&self) -> impl Iterator<Item = Delta> {
        let reasoning = pieces(self.reasoning.as_deref().unwrap_or_default(), self.chunk);
        let text = pieces(&self.text, self.chunk);
        reasoning.map(Delta::Reasoning).chain(text.map(Delta::Text))
    }

    fn reply(self, request: &ModelRequest) -> ModelReply {
        let said = self.reasoning.iter().map(|r| chars(r)).sum::<usize>() + chars(&self.text);
        let usage = Usage {
            input: tokens(request.messages.iter().map(|m| chars(&m.content)).sum()),
            output: tokens(said + self.calls.iter().map(|(_, args)| chars(args)).sum::<usize>()),
            reasoning: tokens(self.reasoning.as_deref().map_or(0, chars)),
            ..Usage::default()
        };
        let turn = request.messages.iter().filter(|m| m.role == Role::Assistant).count() + 1;
        let call = |(i, (name, arguments))| ToolCall {
            id: format!("call_mock_{turn}_{}", i + 1),
            name,
            arguments,
            opaque: None,
        };
        ModelReply {
            content: self.text,
            reasoning: self.reasoning,
            tool_calls: self.calls.into_iter().enumerate().map(call).collect(),
            finish: Finish::Stop,
            usage: Some(usage),
            model: NAME.into(),
            id: None,
            opaque: None,
        }
    }
}

#[async_trait]
impl Provider for Mock {
    fn name(&self) -> &str {
        NAME
    }

    /// It fails as its script says.
    fn retries(&self) -> u32 {
        0
    }

    fn ready(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        let (deltas, mut shown) = tokio::sync::mpsc::channel(64);
        let drain = async { while shown.recv().await.is_some() {} };
        let answer = async move { self.stream(request, &deltas).await };
        futures_util::future::join(answer, drain).await.0
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        let turn = self.turn(request);
        for delta in turn.deltas() {
            if !turn.delay.is_zero() {
                tokio::time::sleep(turn.delay).await;
            }
            // Nobody listening is no failure: the reply holds everything.
            let _ = deltas.send(delta).await;
        }
        match turn.fault.clone() {
            None => Ok(turn.reply(request)),
            Some(fault) => {
                let model = request.model.to_string();
                Err(ProviderError { provider: NAME.into(), model, fault })
            }
        }
    }
}

fn pieces(text: &str, size: usize) -> impl Iterator<Item = String> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(size.max(1)).map_or(rest.len(), |(at, _)| at);
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        (!piece.is_empty()).then(|| piece.to_owned())
    })
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Four characters are about one token.
fn tokens(chars: usize) -> u64 {
    chars.div_ceil(4) as u64
}

#[cfg(test)]
mod tests;
