//! What a client asks: whom, what, and how it wants the answer.

use exile_engine::id::MessageId;
use exile_engine::message::{Message, Role};
use exile_engine::model::{Chain, Effort, ModelRequest, Models, ToolChoice};
use exile_engine::tool::{Effect, ToolSpec};
use serde_json::{Map, Value};

use super::fields::{Fields, missing, refused, unsupported, unsupported_value, wrong_type};
use super::messages;
use crate::http::app::App;
use crate::http::problem::Problem;

/// What `model` stands for.
#[derive(Debug)]
pub enum Target {
    /// A model, or an alias of some: the call passes through.
    Models(Chain),
    /// A graph: the call is a run of it.
    Graph(String),
    /// A skill: the call is a run of the default graph with it.
    Skill(String),
}

impl Target {
    /// What a name stands for: an alias, a graph, a skill, or `provider/model`.
    ///
    /// # Errors
    /// Nothing has that name.
    pub fn of(app: &App, name: &str, business: Option<&str>) -> Result<Self, Problem> {
        let models = &app.catalog.models;
        let library = app.library.now();
        let alias = models.aliases().contains_key(name);
        if !alias && library.graph(name).is_some() {
            return Ok(Self::Graph(name.to_owned()));
        }
        if !alias && library.skill(name).is_some() {
            return Ok(Self::Skill(name.to_owned()));
        }
        let chain = Models::chain(models.aliases(), name, business);
        let chain = chain.filter(|_| models.knows(name));
        chain.map(Self::Models).ok_or_else(|| Problem::NoModel(name.to_owned()))
    }
}

/// A chat completion as it is asked for.
pub struct Completion {
    /// As the client named it.
    pub model: String,
    /// Whether the answer is to come in pieces.
    pub stream: bool,
    /// Whether the last piece is to tell the tokens.
    pub usage: bool,
    /// The end user, as the client names them.
    pub user: Option<String>,
    fields: Fields,
}

impl Completion {
    /// Reads what every completion has; what is particular is read once it is known who answers.
    pub fn read(body: Value) -> Result<Self, Problem> {
        let mut fields = Fields::of(body, "")?;
        let Some(model) = fields.text("model")? else {
            let what = "you must provide a model parameter".to_owned();
            return Err(Problem::Parameter { param: None, code: None, what });
        };
        let stream = fields.flag("stream")?.unwrap_or(false);
        let mut usage = false;
        if let Some(mut options) = fields.object("stream_options")? {
            if !stream {
                let why = "it is only allowed when `stream` is true";
                return Err(unsupported("stream_options", why));
            }
            usage = options.flag("include_usage")?.unwrap_or(false);
            // Padding against eavesdroppers, which nobody here adds.
            options.flag("include_obfuscation")?;
            options.end()?;
        }
        if let Some(n) = fields.count("n")?.filter(|n| *n != 1) {
            return Err(unsupported_value("n", &n.to_string(), "one call gives one choice"));
        }
        let user = fields.text("user")?;
        Ok(Self { model, stream, usage, user, fields })
    }

    /// What a model is asked; `chain`: who is. `passes_user`: the end user's name goes with it.
    pub fn for_models(
        self,
        app: &App,
        chain: &Chain,
        passes_user: bool,
    ) -> Result<ModelRequest, Problem> {
        let Self { mut fields, user, .. } = self;
        let author = chain.models.first().map(ToString::to_string);
        let items = fields.list("messages")?.ok_or_else(|| missing("messages"))?;
        let mut messages = messages::read(items, author.as_deref(), &*app.env)?;
        let tools = tools(&mut fields)?;
        let tool_choice = tool_choice(&mut fields, &tools)?;
        let limit = limit(&mut fields)?;
        let reasoning = effort(&mut fields)?;
        let temperature = fields.number("temperature")?;
        let (schema, format) = format(&mut fields)?;
        for (field, why) in REFUSED {
            fields.refuse(field, why)?;
        }
        let silent = |flag: &Value| flag == &Value::Bool(false);
        if fields.take("logprobs").is_some_and(|flag| !silent(&flag)) {
            return Err(unsupported("logprobs", "leave it out"));
        }
        if let Some(kinds) = fields.list("modalities")?
            && kinds != ["text"]
        {
            return Err(unsupported_value("modalities", "anything but [\"text\"]", "leave it out"));
        }
        let mut further = fields.rest();
        if tools.is_empty() && further.contains_key("parallel_tool_calls") {
            return Err(unsupported("parallel_tool_calls", "there are no `tools`"));
        }
        if let Some(user) = user.filter(|_| passes_user) {
            further.insert("user".into(), user.into());
        }
        match (&schema, format) {
            (Some(schema), _) if loose(app, chain) => {
                let told =
                    format!("Answer with JSON alone, which meets this JSON Schema: {schema}");
                let id = MessageId::new(&*app.env);
                messages.insert(0, Message::text(id, Role::System, told));
            }
            (_, Some(format)) => _ = further.insert("response_format".into(), format),
            (_, None) => {}
        }
        Ok(ModelRequest {
            model: "".into(),
            messages: messages.into_iter().map(std::sync::Arc::new).collect(),
            tools,
            tool_choice,
            temperature,
            max_tokens: limit,
            output_schema: schema,
            reasoning,
            further,
        })
    }

    /// What a graph is asked. Everything else is the graph's own to say.
    pub fn for_graph(self, app: &App) -> Result<Vec<Message>, Problem> {
        let Self { mut fields, .. } = self;
        let items = fields.list("messages")?.ok_or_else(|| missing("messages"))?;
        let messages = messages::read(items, None, &*app.env)?;
        let rest = fields.rest();
        match rest.keys().next() {
            None => Ok(messages),
            Some(field) => Err(unsupported(field, "a graph's nodes and skills say so themselves")),
        }
    }
}

/// Fields that ask for what exile's answers have no place for.
const REFUSED: [(&str, &str); 7] = [
    ("functions", "write `tools`"),
    ("function_call", "write `tool_choice`"),
    ("audio", "exile has no audio"),
    ("top_logprobs", "leave it out"),
    ("models", "an alias with a `fallback` chooses among models"),
    ("route", "an alias with a `fallback` chooses among models"),
    ("web_search_options", "give the model a tool"),
];

/// Whether somebody of the chain is known not to be held to a schema.
fn loose(app: &App, chain: &Chain) -> bool {
    let catalogue = app.catalog.models.catalogue();
    chain
        .models
        .iter()
        .any(|model| catalogue.card(model).json_schema.as_ref().is_some_and(|cell| !cell.value))
}

/// Most tokens of the answer, under either of its names.
fn limit(fields: &mut Fields) -> Result<Option<u32>, Problem> {
    let new = fields.count("max_completion_tokens")?;
    let old = fields.count("max_tokens")?;
    if new.is_some() && old.is_some() && new != old {
        let why = "`max_completion_tokens` says something else";
        return Err(unsupported("max_tokens", why));
    }
    Ok(new.or(old))
}

fn tools(fields: &mut Fields) -> Result<Vec<ToolSpec>, Problem> {
    let items = fields.list("tools")?.unwrap_or_default();
    let mut tools: Vec<ToolSpec> = Vec::with_capacity(items.len());
    for (n, item) in items.into_iter().enumerate() {
        let tool = tool(item, &format!("tools[{n}]"))?;
        if tools.iter().any(|other| other.name == tool.name) {
            let place = format!("tools[{n}].function.name");
            let what = format!("Invalid '{place}': the name '{}' stands twice.", tool.name);
            return Err(refused(&place, "invalid_value", what));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn tool(item: Value, place: &str) -> Result<ToolSpec, Problem> {
    let mut fields = Fields::of(item, place)?;
    let kind = fields.required("type")?;
    if kind != "function" {
        let kind = format!("'{kind}'");
        return Err(unsupported_value(&fields.place("type"), &kind, "write 'function'"));
    }
    let at = fields.place("function");
    let mut function = fields.object("function")?.ok_or_else(|| missing(&at))?;
    fields.end()?;
    let name = function.required("name")?;
    let at = function.place("name");
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !(1..=64).contains(&name.len()) || !name.chars().all(letter) {
        let what = format!(
            "Invalid '{at}': string does not match pattern. Expected a string that matches the \
             pattern '^[a-zA-Z0-9_-]{{1,64}}$'."
        );
        return Err(refused(&at, "invalid_value", what));
    }
    let description = function.text("description")?.unwrap_or_default();
    let strict = function.flag("strict")?.unwrap_or(false);
    let at = function.place("parameters");
    let parameters = match function.take("parameters") {
        None => serde_json::json!({ "type": "object", "properties": {} }),
        Some(schema @ Value::Object(_)) => schema,
        Some(other) => return Err(wrong_type(&at, "an object", &other)),
    };
    function.end()?;
    if parameters.get("type").is_some_and(|kind| kind != "object") {
        let what = format!(
            "Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \
             \"object\"', got 'type: {}'.",
            parameters["type"]
        );
        return Err(refused(&at, "invalid_function_parameters", what));
    }
    Ok(ToolSpec {
        strict,
        ..ToolSpec::new(name, description, parameters, Effect::Unsafe, "caller")
    })
}

fn tool_choice(fields: &mut Fields, tools: &[ToolSpec]) -> Result<ToolChoice, Problem> {
    let place = "tool_choice";
    let choice = match fields.take(place) {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            other => {
                let what = format!(
                    "Invalid value: '{other}'. Supported values are: 'none', 'auto', and 'required'."
                );
                return Err(refused(place, "invalid_value", what));
            }
        },
        Some(other) => {
            let mut choice = Fields::of(other, place)?;
            let kind = choice.required("type")?;
            if kind != "function" {
                let place = choice.place("type");
                return Err(unsupported_value(&place, &format!("'{kind}'"), "write 'function'"));
            }
            let at = choice.place("function");
            let mut function = choice.object("function")?.ok_or_else(|| missing(&at))?;
            let name = function.required("name")?;
            if !tools.iter().any(|tool| tool.name == name) {
                let what = format!("Tool choice '{name}' not found in 'tools' parameter.");
                return Err(refused(place, "invalid_value", what));
            }
            function.end()?;
            choice.end()?;
            ToolChoice::Named(name)
        }
    };
    if tools.is_empty() && choice != ToolChoice::None && choice != ToolChoice::Auto {
        let what = "'tool_choice' is only allowed when 'tools' are specified.".to_owned();
        return Err(refused(place, "invalid_value", what));
    }
    Ok(choice)
}

fn effort(fields: &mut Fields) -> Result<Option<Effort>, Problem> {
    let Some(word) = fields.text("reasoning_effort")? else { return Ok(None) };
    Ok(Some(match word.as_str() {
        "none" => Effort::None,
        "minimal" => Effort::Minimal,
        "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" => Effort::High,
        "xhigh" | "max" => Effort::Max,
        other => {
            let what = format!(
                "Invalid value: '{other}'. Supported values are: 'none', 'minimal', 'low', \
                 'medium', 'high', and 'xhigh'."
            );
            return Err(refused("reasoning_effort", "invalid_value", what));
        }
    }))
}

/// The schema that the answer must meet, and the format as it was written.
fn format(fields: &mut Fields) -> Result<(Option<Value>, Option<Value>), Problem> {
    let place = "response_format";
    let Some(written) = fields.take(place) else { return Ok((None, None)) };
    let mut format = Fields::of(written.clone(), place)?;
    match format.required("type")?.as_str() {
        "text" => Ok((None, None)),
        "json_object" => Ok((None, Some(written))),
        "json_schema" => {
            let at = format.place("json_schema");
            let mut wrapped = format.object("json_schema")?.ok_or_else(|| missing(&at))?;
            wrapped.required("name")?;
            let at = wrapped.place("schema");
            match wrapped.take("schema") {
                Some(schema @ Value::Object(_)) => Ok((Some(schema), Some(written))),
                Some(other) => Err(wrong_type(&at, "an object", &other)),
                None => Ok((None, Some(written))),
            }
        }
        other => {
            let what = format!(
                "Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and \
                 'text'."
            );
            Err(refused(&format.place("type"), "invalid_value", what))
        }
    }
}

/// Texts to be turned into vectors.
pub struct Embedding {
    /// As the client named it.
    pub model: String,
    /// One vector each.
    pub texts: Vec<String>,
    /// Whether vectors are written in Base64.
    pub base64: bool,
    /// The end user, as the client names them.
    pub user: Option<String>,
    /// Everything else, for the provider.
    pub further: Map<String, Value>,
}

impl Embedding {
    /// Reads a body.
    pub fn read(body: Value) -> Result<Self, Problem> {
        let mut fields = Fields::of(body, "")?;
        let Some(model) = fields.text("model")? else {
            let what = "you must provide a model parameter".to_owned();
            return Err(Problem::Parameter { param: None, code: None, what });
        };
        let items = match fields.take("input").ok_or_else(|| missing("input"))? {
            Value::Array(items) => items,
            one => vec![one],
        };
        let text = |(n, item): (usize, Value)| match item {
            Value::String(text) if !text.is_empty() => Ok(text),
            Value::String(_) => {
                let what = "Invalid 'input': input cannot be an empty string.".to_owned();
                Err(refused("input", "invalid_value", what))
            }
            Value::Number(_) | Value::Array(_) => {
                let why = "write texts, not tokens: each model has tokens of its own";
                Err(unsupported("input", why))
            }
            other => Err(wrong_type(&format!("input[{n}]"), "a string", &other)),
        };
        let texts: Vec<String> =
            items.into_iter().enumerate().map(text).collect::<Result<_, _>>()?;
        if texts.is_empty() {
            let what = "Invalid 'input': empty array.".to_owned();
            return Err(refused("input", "empty_array", what));
        }
        let base64 = match fields.text("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let what = format!(
                    "Invalid value: '{other}'. Supported values are: 'float' and 'base64'."
                );
                return Err(refused("encoding_format", "invalid_value", what));
            }
        };
        let user = fields.text("user")?;
        Ok(Self { model, texts, base64, user, further: fields.rest() })
    }
}
