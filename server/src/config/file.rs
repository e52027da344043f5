//! The shape of `exile.yaml`: one struct per section. The JSON Schema comes from these types.
//!
//! Invariants:
//! - An unknown key is an error wherever it stands.
//! - A section of the design that this version cannot serve is in the shape, so that editors know
//!   it, and is refused by `unsupported.rs`, so that it is never silently ignored.

use std::collections::BTreeMap;

use exile_engine::model::AfterFirstToken;
use exile_engine::model::card::Claim;
use exile_engine::period::Period;
use exile_nodes::providers::profile::Protocol;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::limits::LimitsFile;
use crate::usage::{Currency, QuotaFile};

/// `exile.yaml`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// `development` (default) or `production`.
    pub environment: Option<Environment>,
    /// Address and port to listen on, e.g. `127.0.0.1:8080`; port 0 takes a free one.
    pub bind: Option<String>,
    /// Where people reach exile through a proxy, e.g. `https://exile.example.com`: sign-in links lead
    /// there, and its pages may change things.
    pub public_url: Option<String>,
    /// Addresses and networks of proxies whose `X-Forwarded-*` are believed, e.g. `172.16.0.0/12`.
    /// Those on this machine always are.
    pub trusted_proxies: Vec<String>,
    /// IANA name, e.g. `Asia/Shanghai`: quota days, off-peak prices, `current_time`.
    pub timezone: Option<String>,
    /// What money is counted in.
    pub currency: Option<Currency>,
    /// The graph of a conversation that names none.
    pub default_graph: Option<String>,
    /// Where things are stored.
    pub store: StoreSettings,
    /// How long what is stored stays; everything forever unless told otherwise.
    pub retention: Retention,
    /// Names that graphs and skills use for models.
    pub models: BTreeMap<String, Alias>,
    /// What is known of models, above what ships: `provider/model`, or the beginning of such names
    /// and a `*`.
    pub catalogue: BTreeMap<String, Claim>,
    /// Who serves models. `deepseek`, `openai`, `gemini` and `anthropic` are known without an entry;
    /// of `azure`, `openrouter`, `mistral`, `groq`, `xai`, `ollama`, `vllm` and `llamacpp` the rules
    /// are known, so that they need a `base_url`. A name like `azure-eu` has the rules of `azure`.
    pub providers: BTreeMap<String, Provider>,
    /// What tools may reach of the local network.
    pub outbound: Outbound,
    /// What spans hold.
    pub traces: Traces,
    /// How much users, keys, businesses and models may take, in which time.
    pub quotas: QuotaFile,
    /// How much one request, run or connection may take of this machine.
    pub limits: LimitsFile,
    /// Operations of HTTP services as tools. Not supported by this version.
    pub http_tools: Option<Value>,
    /// MCP servers whose tools are bridged in. Not supported by this version.
    pub mcp_servers: Option<Value>,
    /// What plugins may reach. Not supported by this version.
    pub plugins: Option<Value>,
    /// Sets of documents. Not supported by this version.
    pub collections: Option<Value>,
}

/// Where exile runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// A person's machine: without any key the mock answers.
    #[default]
    Development,
    /// Users depend on it: a missing key is an error.
    Production,
}

impl Environment {
    /// As written in `exile.yaml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
        }
    }
}

/// Where things are stored.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Store")]
pub struct StoreSettings {
    /// `sqlite`: a file in the home. Nothing else in this version.
    pub database: Option<String>,
    /// Empty: none. Nothing else in this version.
    pub redis: Option<String>,
}

/// How long what is stored stays.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// How long records stay after their run has ended, e.g. `90d`; none: forever. Then the run's
    /// events, stream and checkpoints are gone; the run itself and the messages of conversations
    /// stay.
    pub records: Option<Period>,
    /// How long usage stays after its call, e.g. `400d`; none: forever. Quotas of a month need what
    /// is of that month.
    pub usage: Option<Period>,
}

/// What a name stands for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Alias {
    /// `provider/model`, everywhere.
    One(String),
    /// By environment and business.
    Table(AliasTable),
}

/// What a name stands for, by environment and business.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AliasTable {
    /// `provider/model` in development.
    pub development: Option<String>,
    /// `provider/model` in production.
    pub production: Option<String>,
    /// Business → `provider/model`, before the environment's.
    pub business: BTreeMap<String, String>,
    /// Who is asked next when it fails before its answer began, in order: `provider/model`.
    pub fallback: Vec<String>,
    /// What becomes of an answer that breaks off: `fail` (default), or `restart`, which voids what
    /// was streamed and asks for the whole answer again.
    pub after_first_token: AfterFirstToken,
}

/// Who serves models.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Provider {
    /// The key, best as `"${NAME:-}"`.
    pub api_key: Option<String>,
    /// Address before `/chat/completions` or `/messages`; needed for names that are not built in.
    pub base_url: Option<String>,
    /// What is spoken: `chat` (OpenAI's chat completions) or `anthropic` (its Messages). Default: what
    /// the name stands for, else `chat`.
    pub protocol: Option<Protocol>,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
    /// Added to every address.
    pub query: BTreeMap<String, String>,
    /// `http://` address that requests go through; empty: none.
    pub proxy: Option<String>,
    /// How long it may take to begin an answer, and between two pieces of one; `1m` by default.
    pub timeout: Option<Period>,
    /// How often a call that failed before its answer began is made again; 2 by default.
    #[schemars(range(max = 10))]
    pub retries: Option<u32>,
    /// How long it may take to begin an answer, if that differs from `timeout`.
    pub first_byte_timeout: Option<Period>,
    /// How long it may be silent between two pieces, if that differs from `timeout`. With nothing but
    /// signs of life it may take ten times as long.
    pub idle_timeout: Option<Period>,
    /// How long a whole call may take; `1h` by default.
    pub total_timeout: Option<Period>,
}

/// What tools may reach of the local network.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// Hosts, `host:port` or addresses.
    pub allow: Vec<String>,
}

/// What spans hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// Whether messages, arguments and results are exported. Only `false` in this version.
    pub content: bool,
}
