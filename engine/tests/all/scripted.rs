//! Models and tools for tests: they count who calls them, and do what the test says.

use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use exile_engine::message::{Role, ToolCall};
use exile_engine::model::{
    Delta, DeltaSender, Finish, ModelReply, ModelRequest, Provider, ProviderError, ProviderFault,
    Usage,
};
use exile_engine::tool::{
    DynTool, Effect, ToolAnswer, ToolCx, ToolError, ToolErrorKind, ToolSet, ToolSpec,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Answers a request that holds n answers with line n of its script; the last line repeats. Text
/// is streamed word by word.
pub struct Scripted {
    pub lines: Vec<Line>,
    pub asked: Mutex<Vec<ModelRequest>>,
}

/// One line of a script.
#[derive(Clone)]
pub enum Line {
    Say(&'static str),
    Call(Vec<(&'static str, &'static str, Value)>),
    /// Streams the text, then fails.
    Break(&'static str),
    /// Streams the first text and fails; asked again, says the second.
    #[allow(dead_code, reason = "the benches share this file")]
    Recover(&'static str, &'static str),
    /// Streams the text, tells the test, and never ends.
    Hang(&'static str, Arc<Notify>),
}

impl Scripted {
    pub fn new(lines: Vec<Line>) -> Arc<Self> {
        Arc::new(Self { lines, asked: Mutex::default() })
    }

    pub fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait]
impl Provider for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn retries(&self) -> u32 {
        0
    }

    fn ready(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        let (sender, mut deltas) = tokio::sync::mpsc::channel(64);
        let drain = async { while deltas.recv().await.is_some() {} };
        let answer = async {
            let reply = self.stream(request, &sender).await;
            drop(sender);
            reply
        };
        futures_util::future::join(answer, drain).await.0
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        self.asked.lock().unwrap().push(request.clone());
        let n = request.messages.iter().filter(|m| m.role == Role::Assistant).count();
        let line = match self.lines[n.min(self.lines.len() - 1)].clone() {
            Line::Recover(text, _) if self.calls() == 1 => Line::Break(text),
            Line::Recover(_, text) => Line::Say(text),
            line => line,
        };
        let text = match &line {
            Line::Say(text) | Line::Break(text) | Line::Hang(text, _) => *text,
            Line::Call(_) | Line::Recover(..) => "",
        };
        for word in text.split_inclusive(' ') {
            let _ = deltas.send(Delta::Text(word.into())).await;
        }
        let tool_calls = match line {
            Line::Say(_) | Line::Recover(..) => Vec::new(),
            Line::Call(calls) => calls
                .into_iter()
                .map(|(id, name, args)| ToolCall {
                    id: id.into(),
                    name: name.into(),
                    arguments: args.to_string(),
                    opaque: None,
                })
                .collect(),
            Line::Break(_) => {
                return Err(ProviderError {
                    provider: "scripted".into(),
                    model: request.model.to_string(),
                    fault: ProviderFault::Truncated { detail: "no end mark".into() },
                });
            }
            Line::Hang(_, hangs) => {
                hangs.notify_one();
                std::future::pending().await
            }
        };
        Ok(ModelReply {
            content: text.into(),
            reasoning: None,
            tool_calls,
            finish: Finish::Stop,
            usage: Some(Usage { input: 10, output: 5, ..Usage::default() }),
            model: "scripted-1".into(),
            id: None,
            opaque: None,
        })
    }
}

/// A tool that counts its calls by key and answers its arguments.
pub struct Counting {
    spec: ToolSpec,
    pub keys: Mutex<Vec<String>>,
    /// Never answers when set.
    pub hangs: Option<Arc<Notify>>,
    /// Only its first call never answers.
    once: bool,
    /// Fails every call.
    fails: bool,
}

impl Counting {
    pub fn new(name: &str, effect: Effect) -> Arc<Self> {
        Self::make(name, effect, None, false)
    }

    pub fn hanging(name: &str, effect: Effect, hangs: Arc<Notify>) -> Arc<Self> {
        Self::make(name, effect, Some(hangs), false)
    }

    #[allow(dead_code, reason = "the benches share this file")]
    pub fn failing(name: &str, effect: Effect) -> Arc<Self> {
        Self::make(name, effect, None, true)
    }

    #[allow(dead_code, reason = "the benches share this file")]
    pub fn hanging_once(name: &str, effect: Effect, hangs: Arc<Notify>) -> Arc<Self> {
        let tool = Self::make(name, effect, Some(hangs), false);
        Arc::new(Self { once: true, ..Arc::into_inner(tool).unwrap() })
    }

    /// One whose answers may steer a model.
    #[allow(dead_code, reason = "the benches share this file")]
    pub fn tainting(name: &str) -> Arc<Self> {
        let tool = Self::make(name, Effect::Pure, None, false);
        let mut tool = Arc::into_inner(tool).unwrap();
        tool.spec.taints = true;
        Arc::new(tool)
    }

    fn make(name: &str, effect: Effect, hangs: Option<Arc<Notify>>, fails: bool) -> Arc<Self> {
        let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } } });
        let spec = ToolSpec::new(name, "Counts.", schema, effect, "native");
        // Whether a model may be steered by it is asked elsewhere.
        let spec = ToolSpec { taints: false, ..spec };
        Arc::new(Self { spec, keys: Mutex::default(), hangs, once: false, fails })
    }
}

impl Counting {
    #[allow(dead_code, reason = "the benches share this file")]
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

/// The registry's view of a [`Counting`] that the test keeps.
pub struct Shared(pub Arc<Counting>);

#[async_trait]
impl DynTool for Shared {
    fn spec(&self) -> &ToolSpec {
        &self.0.spec
    }

    async fn call(&self, cx: &ToolCx, args: Value) -> ToolAnswer {
        self.0.keys.lock().unwrap().push(cx.key.clone());
        let first = self.0.keys.lock().unwrap().len() == 1;
        if let Some(hangs) = self.0.hangs.as_ref().filter(|_| first || !self.0.once) {
            hangs.notify_one();
            std::future::pending::<()>().await;
        }
        if self.0.fails {
            let error = ToolError::new(ToolErrorKind::Upstream, "it is down");
            return ToolAnswer::Failed(error);
        }
        ToolAnswer::Done(args)
    }
}

/// Tools of a test.
pub struct Tools(pub Vec<Arc<Counting>>);

impl ToolSet for Tools {
    fn tools(&self) -> Vec<Arc<dyn DynTool>> {
        self.0.iter().map(|t| Arc::new(Shared(t.clone())) as Arc<dyn DynTool>).collect()
    }
}
