//! Runs YAML graphs with these kinds on the real engine, in memory, against a scripted model.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::bundle::{Bundle, Catalog, Source};
use exile_engine::diagnostic::Finding;
use exile_engine::env::StepEnv;
use exile_engine::graph::build::{Known, Names};
use exile_engine::graph::nesting::{self, Graphs, Member};
use exile_engine::id::{InputId, LogId, MessageId, RunId, UserId};
use exile_engine::journal::{IfActive, Input, Journal, MemoryJournal, ResumeRun, StartRun};
use exile_engine::limits::FileLimits;
use exile_engine::message::{Message, Role, ToolCall};
use exile_engine::model::{
    Aliases, Delta, DeltaSender, Finish, ModelAlias, ModelRef, ModelReply, ModelRequest, Models,
    Provider, ProviderError,
};
use exile_engine::run::context::Services;
use exile_engine::run::engine::{Engine, Stopped};
use exile_engine::run::event::Event;
use exile_engine::run::live;
use exile_engine::run::record::{Asked, Ended, RunOptions};
use exile_engine::span::NoTrace;
use exile_engine::tool::{DynTool, Effect, ToolAnswer, ToolCx, ToolRegistry, ToolSet, ToolSpec};
use exile_engine::{skill, yaml};
use exile_nodes::kinds;
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

/// One answer of the model.
#[derive(Clone, Default)]
pub(crate) struct Says {
    text: &'static str,
    calls: Vec<(&'static str, &'static str, &'static str)>,
    cut: bool,
}

/// Text.
pub(crate) fn says(text: &'static str) -> Says {
    Says { text, ..Says::default() }
}

/// Calls: id, tool, arguments.
pub(crate) fn calls(calls: &[(&'static str, &'static str, &'static str)]) -> Says {
    Says { calls: calls.to_vec(), ..Says::default() }
}

impl Says {
    /// Cut at the token limit.
    pub(crate) fn cut(self) -> Self {
        Self { cut: true, ..self }
    }
}

/// What the model says to a request, whenever it comes.
pub(crate) type Replies = fn(&ModelRequest) -> Says;

/// Provider `stage`: gives its answers in order and notes what it was asked.
struct Model {
    answers: Mutex<std::vec::IntoIter<Says>>,
    /// Answers by what is asked, where one is given.
    replies: Option<Replies>,
    asked: Arc<Mutex<Vec<ModelRequest>>>,
}

#[async_trait]
impl Provider for Model {
    fn name(&self) -> &'static str {
        "stage"
    }

    fn ready(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn complete(&self, _: &ModelRequest) -> Result<ModelReply, ProviderError> {
        unreachable!("runs stream")
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        self.asked.lock().unwrap().push(request.clone());
        let next = || self.answers.lock().unwrap().next().unwrap_or(says("nothing more to say"));
        let says = self.replies.map_or_else(next, |replies| replies(request));
        if !says.text.is_empty() {
            let _ = deltas.send(Delta::Text(says.text.into())).await;
        }
        let call = |(id, name, arguments): &(&str, &str, &str)| ToolCall {
            id: (*id).into(),
            name: (*name).into(),
            arguments: (*arguments).into(),
            opaque: None,
        };
        Ok(ModelReply {
            content: says.text.into(),
            reasoning: None,
            tool_calls: says.calls.iter().map(call).collect(),
            finish: if says.cut { Finish::Length } else { Finish::Stop },
            usage: None,
            model: "stage".into(),
            id: None,
            opaque: None,
        })
    }
}

/// `double` doubles `x`, `fails` fails, `meets` answers once two calls of it are under way.
struct Tools(Arc<Barrier>);

struct Tool(ToolSpec, Arc<Barrier>);

#[async_trait]
impl DynTool for Tool {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, _: &ToolCx, args: Value) -> ToolAnswer {
        use exile_engine::tool::{ToolError, ToolErrorKind};
        match self.0.name.as_str() {
            "double" => ToolAnswer::Done(json!(args["x"].as_f64().unwrap_or(0.0) * 2.0)),
            "meets" => {
                self.1.wait().await;
                ToolAnswer::Done(args["x"].clone())
            }
            _ => ToolAnswer::Failed(ToolError::new(ToolErrorKind::Upstream, "it is broken")),
        }
    }
}

impl ToolSet for Tools {
    fn tools(&self) -> Vec<Arc<dyn DynTool>> {
        let schema = json!({ "type": "object", "additionalProperties": false, "required": ["x"],
            "properties": { "x": { "type": "number" } } });
        let tool = |name| -> Arc<dyn DynTool> {
            let spec = ToolSpec::new(name, "", schema.clone(), Effect::Pure, "native");
            Arc::new(Tool(spec, self.0.clone()))
        };
        ["double", "fails", "meets"].map(tool).to_vec()
    }
}

/// A graph, skills, what the conversation chose, and what the model will say.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) graph: &'static str,
    pub(crate) skills: &'static [&'static str],
    /// Graphs that it runs inside.
    pub(crate) inside: &'static [&'static str],
    pub(crate) options: RunOptions,
    pub(crate) answers: Vec<Says>,
    pub(crate) replies: Option<Replies>,
    pub(crate) input: Value,
}

/// What came of it.
pub(crate) struct Played {
    pub(crate) ended: Ended,
    pub(crate) state: Map<String, Value>,
    pub(crate) events: Vec<Event>,
    pub(crate) asked: Vec<ModelRequest>,
}

impl Played {
    /// The `messages` channel, a line each.
    pub(crate) fn messages(&self) -> Vec<String> {
        let list = self.state["messages"].as_array().cloned().unwrap_or_default();
        list.iter().map(|m| line(&serde_json::from_value(m.clone()).unwrap())).collect()
    }

    /// What the model was sent the n-th time, a line each.
    pub(crate) fn sent(&self, n: usize) -> Vec<String> {
        self.asked[n].messages.iter().map(|message| line(message)).collect()
    }

    /// The tools that it was offered the n-th time.
    pub(crate) fn offered(&self, n: usize) -> Vec<&str> {
        self.asked[n].tools.iter().map(|t| t.name.as_str()).collect()
    }

    /// The text of all deltas of that event.
    pub(crate) fn deltas(&self, name: &str) -> String {
        let deltas = self.events.iter().filter(|e| e.name == name);
        deltas.filter_map(|e| e.data["text"].as_str()).collect()
    }

    /// The run's error, `code: message`.
    pub(crate) fn error(&self) -> String {
        let error = self.ended.error.as_ref();
        error.map(|e| format!("{}: {}", e.code, e.message)).unwrap_or_default()
    }
}

fn line(message: &Message) -> String {
    let calls: Vec<&str> = message.tool_calls.iter().map(|c| c.id.as_str()).collect();
    let calls = if calls.is_empty() { String::new() } else { format!(" {calls:?}") };
    format!("{}: {}{calls}", message.role.as_str(), message.content)
}

fn catalog(
    answers: Vec<Says>,
    replies: Option<Replies>,
    asked: &Arc<Mutex<Vec<ModelRequest>>>,
) -> Catalog {
    let answers = Mutex::new(answers.into_iter());
    let model = Model { answers, replies, asked: asked.clone() };
    let alias = |name: &str, model: &str| {
        let model = ModelRef::parse(model).unwrap();
        (name.to_owned(), ModelAlias::from(model))
    };
    let aliases = Aliases::from([alias("default", "stage/default"), alias("fast", "stage/fast")]);
    let tools = ToolRegistry::new(&[&Tools(Arc::new(Barrier::new(2)))]).unwrap();
    Catalog {
        kinds: kinds::all(),
        tools: Arc::new(tools),
        models: Arc::new(Models::new(vec![Arc::new(model)], aliases)),
        limits: Arc::default(),
    }
}

/// What loading a graph finds: `line: message → fix` where the words are a kind's, `line: code`
/// where they are the engine's.
pub(crate) fn findings(graph: &str, skills: &[&str]) -> Vec<String> {
    findings_with(graph, skills, &[])
}

/// The same beside other graphs.
pub(crate) fn findings_with(graph: &str, skills: &[&str], others: &[&str]) -> Vec<String> {
    let catalog = catalog(Vec::new(), None, &Arc::default());
    let (none, graphs) = (BTreeMap::new(), Graphs::none());
    let known = Known { catalog: &catalog, skills: &none, graphs, names: Names::Checked };
    let compiled = skills.iter().map(|text| {
        let (skill, findings) = skill::compile(&yaml::parse("skill.yaml", text).unwrap(), known);
        let skill = skill.unwrap_or_else(|| panic!("{findings:?}"));
        (skill.name.to_string(), Some(Arc::new(skill)))
    });
    let skills = compiled.collect();
    let read = |text: &&str| {
        let source = Source { path: "graph.yaml".into(), text: (*text).to_owned() };
        Member::read(&source, &FileLimits::default()).unwrap()
    };
    let members: Vec<Member> = [&graph].into_iter().chain(others).map(read).collect();
    let mut compiled = nesting::compile_all(&members, &catalog, &skills, Names::Checked);
    let show = |f: &Finding| match f.code {
        "invalid_node" => format!("{}: {} → {}", f.line, f.message, f.fix),
        code => format!("{}: {code}", f.line),
    };
    compiled.swap_remove(0).unwrap().findings.iter().map(show).collect()
}

/// A run that is going on or waits.
pub(crate) struct Show {
    engine: Arc<Engine>,
    pub(crate) env: Arc<StepEnv>,
    log: LogId,
    run: RunId,
    asked: Arc<Mutex<Vec<ModelRequest>>>,
    events: Vec<Event>,
    /// What it waited for when it last stopped.
    waited: Vec<Asked>,
    stop: CancellationToken,
}

impl Stage {
    /// Runs it to its end.
    pub(crate) async fn play(self) -> Played {
        self.begin().await.end().await
    }

    /// Begins to run it.
    pub(crate) async fn begin(self) -> Show {
        let env = Arc::new(StepEnv::new());
        let journal = Arc::new(MemoryJournal::new(env.clone()));
        self.begin_over(journal, env).await
    }

    /// Begins, or goes on, over a store.
    pub(crate) async fn begin_over(self, journal: Arc<dyn Journal>, env: Arc<StepEnv>) -> Show {
        let asked = Arc::default();
        let catalog = catalog(self.answers, self.replies, &asked);
        let services = Arc::new(Services {
            env: env.clone(),
            models: catalog.models.clone(),
            tools: catalog.tools.clone(),
            trace: Arc::new(NoTrace),
            observer: Arc::new(exile_engine::observer::Unobserved),
        });
        let source = |text: &str| {
            let name = text.trim().lines().next().unwrap().split(": ").nth(1).unwrap();
            (name.to_owned(), Source { path: format!("{name}.yaml"), text: text.to_owned() })
        };
        let bundle = Bundle {
            graph: source(self.graph).1,
            graphs: self.inside.iter().map(|text| source(text)).collect(),
            skills: self.skills.iter().map(|text| source(text)).collect(),
            aliases: catalog.models.aliases().clone(),
        };
        let program = Arc::new(bundle.compile(&catalog).unwrap());
        let engine = Engine::new(journal, live::memory(), services, catalog);
        let pinned = engine.pin(program, &bundle.to_bytes()).await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(engine.clone().serve(stop.clone(), Duration::ZERO));
        let (log, run) = (LogId::from("log"), RunId::from("run_1"));
        let start = StartRun {
            run: run.clone(),
            graph: "test".into(),
            bundle: pinned,
            owner: UserId::from("user_1"),
            conversation: None,
            options: self.options,
            input: input(self.input),
            traceparent: None,
            if_active: IfActive::default(),
            durability: None,
        };
        engine.start(&log, &InputId::from("in_1"), start).await.unwrap();
        Show { engine, env, log, run, asked, events: Vec::new(), waited: Vec::new(), stop }
    }
}

impl Show {
    /// What the run waits for, once it does.
    pub(crate) async fn waits(&mut self) -> Vec<Asked> {
        match self.stops().await {
            Stopped::Waiting(waiting) => waiting.asked,
            other => panic!("it waits for nobody: {other:?}"),
        }
    }

    /// Answers one question.
    pub(crate) async fn answer(&mut self, question: &Asked, value: Value) {
        self.resume(question, value, None).await;
    }

    /// Answers with a message of the conversation.
    pub(crate) async fn say(&mut self, question: &Asked, text: &str) {
        let message = Message::text(MessageId::from("msg_said"), Role::User, text);
        self.resume(question, json!(text), Some(Box::new(message))).await;
    }

    async fn resume(&mut self, of: &Asked, value: Value, message: Option<Box<Message>>) {
        let resume = Input::Resume(Box::new(ResumeRun {
            run: self.run.clone(),
            answers: [(of.id.clone(), value)].into(),
            by: UserId::from("user_1"),
            message,
        }));
        let id = InputId::from(format!("answer_{}", of.id));
        self.engine.send(&self.log, &id, &resume).await.unwrap();
    }

    /// Every request to the model so far.
    pub(crate) fn asked(&self) -> Vec<ModelRequest> {
        self.asked.lock().unwrap().clone()
    }

    /// The end, and what came of it.
    pub(crate) async fn end(mut self) -> Played {
        let ended = match self.stops().await {
            Stopped::Ended(ended) => ended,
            other => panic!("it has not ended: {other:?}"),
        };
        let state = self.engine.state(&self.log).await.unwrap();
        let asked = self.asked();
        Played { ended, state, events: std::mem::take(&mut self.events), asked }
    }

    /// The next time that it ends, or waits for something else.
    pub(crate) async fn stops(&mut self) -> Stopped {
        loop {
            let seen = self.events.last().map_or(0, |event| event.number);
            let events = self.engine.events(self.run.clone(), seen);
            self.events.extend(events.map(Result::unwrap).collect::<Vec<_>>().await);
            let stopped = self.engine.wait(&self.run).await.unwrap();
            let same =
                matches!(&stopped, Stopped::Waiting(waiting) if self.waited == waiting.asked);
            if !same {
                if let Stopped::Waiting(waiting) = &stopped {
                    self.waited.clone_from(&waiting.asked);
                }
                return stopped;
            }
            // The answer has not been read yet.
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Text stands for a user's message.
fn input(input: Value) -> Map<String, Value> {
    match input {
        Value::Object(map) => map,
        Value::String(text) => {
            let message = Message::text(MessageId::from("msg_u"), Role::User, text);
            Map::from_iter([("messages".to_owned(), json!([message]))])
        }
        _ => Map::new(),
    }
}
