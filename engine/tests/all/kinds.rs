//! Two small node kinds, to build graphs from YAML without the crate `nodes`.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::bundle::Catalog;
use exile_engine::expr::Expression;
use exile_engine::graph::build::Build;
use exile_engine::model::{ModelAlias, ModelRef, Models};
use exile_engine::node::{Node, NodeError, NodeKind, NodeKinds, Outcome, Work};
use exile_engine::run::context::Cx;
use exile_engine::state::{Reducer, State, Writes};
use exile_engine::tool::{DynTool, Effect, Tool, ToolCx, ToolError, ToolRegistry, ToolSet, Typed};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Kinds `set` and `probe`, the tools `echo`, `shop__order` and `shop__refund`, the alias `fast`.
pub fn catalog() -> Catalog {
    let model = ModelRef::parse("test/small").unwrap();
    let alias = ModelAlias::from(model);
    Catalog {
        kinds: NodeKinds(vec![Arc::new(SetKind), Arc::new(ProbeKind)]),
        tools: Arc::new(ToolRegistry::new(&[&Tools]).unwrap()),
        models: Arc::new(Models::new(Vec::new(), [("fast".to_owned(), alias)].into())),
        limits: Arc::default(),
    }
}

/// Writes channels: text is an expression, anything else a literal.
struct SetKind;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SetKeys {
    set: Map<String, Value>,
}

impl NodeKind for SetKind {
    fn name(&self) -> &'static str {
        "set"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        SetKeys::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let keys: SetKeys = build.params()?;
        let mut writes = Vec::new();
        for (channel, value) in &keys.set {
            let place = ["set", channel.as_str()];
            let written = build.writes(&place, channel);
            if value.is_string() {
                writes.push((written, Ok(build.expression(&place))));
            } else {
                build.literal(&place, channel, value);
                writes.push((written, Err(value.clone())));
            }
        }
        let ready = |(channel, value): (Option<Arc<str>>, Result<Option<Expression>, Value>)| {
            Some((channel?, value.map_or_else(|v| Some(Err(v)), |e| Some(Ok(e?)))?))
        };
        let set = Set { writes: writes.into_iter().map(ready).collect::<Option<_>>()? };
        Some(Work::Leaf(Arc::new(set)))
    }
}

#[derive(Debug)]
struct Set {
    writes: Vec<(Arc<str>, Result<Expression, Value>)>,
}

#[async_trait]
impl Node for Set {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let mut writes = Writes::new();
        for (channel, value) in &self.writes {
            let value = match value {
                Ok(expression) => expression
                    .eval(state, cx.scope())
                    .map_err(|error| NodeError::expression(channel, &error))?,
                Err(literal) => literal.clone(),
            };
            writes.insert(channel.clone(), value.into());
        }
        Ok(Outcome::writes(writes))
    }
}

/// Does nothing, and asks [`Build`] for everything that there is to ask for.
struct ProbeKind;

/// What a probe may name.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ProbeKeys {
    /// A template.
    #[serde(rename = "text")]
    _text: Option<String>,
    /// Templates.
    #[serde(rename = "args")]
    _args: Option<Value>,
    /// A channel.
    reads: Option<String>,
    /// A channel.
    into: Option<String>,
    /// Whether it writes `messages`.
    #[serde(default)]
    replies: bool,
    skill: Option<String>,
    model: Option<String>,
    tool: Option<String>,
    graph: Option<String>,
    #[serde(default)]
    tools: Vec<String>,
    /// A JSON Schema.
    output: Option<Value>,
    /// At most ten.
    #[schemars(range(max = 10))]
    level: Option<u8>,
}

impl NodeKind for ProbeKind {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        ProbeKeys::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let keys: ProbeKeys = build.params()?;
        build.template(&["text"]);
        build.value_template(&["args"]);
        build.json_schema(&["output"]);
        keys.reads.map(|channel| build.reads(&["reads"], &channel));
        keys.into.map(|channel| build.writes(&["into"], &channel));
        keys.skill.map(|skill| build.skill(&["skill"], &skill));
        keys.model.map(|model| build.model(&["model"], &model));
        keys.graph.map(|graph| build.graph(&["graph"], &graph).is_some());
        let tool = keys.tool.inspect(|tool| {
            build.tool(&["tool"], tool);
        });
        build.tools(&["tools"], &keys.tools);
        build.calls_tools(&keys.tools);
        build.calls_tools(tool.as_slice());
        if keys.replies {
            build.writes_reduced(&["replies"], "messages", Reducer::Messages);
        }
        if keys.output.is_some() && keys.level.is_some() {
            build.report(&["level"], "`level` and `output` exclude each other", "remove one");
        }
        Some(Work::Leaf(Arc::new(Probe)))
    }
}

#[derive(Debug)]
struct Probe;

#[async_trait]
impl Node for Probe {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        Ok(Outcome::nothing())
    }
}

struct Tools;

impl ToolSet for Tools {
    fn tools(&self) -> Vec<Arc<dyn DynTool>> {
        vec![Typed::native(Echo), Typed::native(Order), Typed::native(Refund)]
    }
}

struct Echo;
struct Order;
struct Refund;

#[derive(Deserialize, JsonSchema)]
struct Text {
    text: String,
}

#[async_trait]
impl Tool for Echo {
    type Args = Text;
    type Output = String;
    const NAME: &'static str = "echo";
    const DESCRIPTION: &'static str = "Says it again.";
    const EFFECT: Effect = Effect::Pure;

    async fn call(&self, _: &ToolCx, args: Text) -> Result<String, ToolError> {
        Ok(args.text)
    }
}

#[async_trait]
impl Tool for Order {
    type Args = Text;
    type Output = String;
    const NAME: &'static str = "shop__order";
    const DESCRIPTION: &'static str = "Finds an order.";
    const EFFECT: Effect = Effect::Pure;

    async fn call(&self, _: &ToolCx, args: Text) -> Result<String, ToolError> {
        Ok(args.text)
    }
}

#[async_trait]
impl Tool for Refund {
    type Args = Text;
    type Output = String;
    const NAME: &'static str = "shop__refund";
    const DESCRIPTION: &'static str = "Pays back.";
    const EFFECT: Effect = Effect::Unsafe;

    async fn call(&self, _: &ToolCx, args: Text) -> Result<String, ToolError> {
        Ok(args.text)
    }
}
