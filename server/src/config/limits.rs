//! `limits` in `exile.yaml`: how much one request, run or connection may take of this machine.
//!
//! Every bound has a name and a default that real documents fit into; what is not written keeps its
//! default.

mod transport;

use exile_engine::limits::Limits as EngineLimits;
use exile_engine::period::Period;
use exile_engine::size::Size;
use schemars::JsonSchema;
use serde::Deserialize;

pub use transport::TransportLimits;

/// How much one request, run or connection may take of this machine.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// Deepest nesting of JSON in requests, tool arguments, tool answers, model answers and
    /// channels; 64 by default.
    #[schemars(range(min = 8, max = 96))]
    pub nesting: Option<u8>,
    /// Most values in one JSON text, lists and objects among them; 1,000,000 by default.
    #[schemars(range(min = 1000))]
    pub values: Option<u32>,
    /// Longest answer of a tool, what is longer is cut; 64KiB by default.
    pub tool_result: Option<Size>,
    /// Longest source of one expression or template in a graph; 64KiB by default.
    pub expression_source: Option<Size>,
    /// Longest text that an expression or template may give, also on the way to its result; 4MiB by
    /// default.
    pub expression_result: Option<Size>,
    /// Most steps of one expression or template: an operation is one, and so are 64 bytes that are
    /// made or looked through; 500,000 by default, which is some 50 ms.
    #[schemars(range(min = 1000))]
    pub expression_steps: Option<u64>,
    /// Longest page of a list of conversations, messages or events; one item is given whatever its
    /// size. 4MiB by default.
    pub page: Option<Size>,
    /// Largest graph or skill; 1MiB by default.
    pub file_size: Option<Size>,
    /// Most of all graphs and skills together; 16MiB by default.
    pub folder_size: Option<Size>,
    /// Most values in one graph or skill, counting every alias as all that it stands for; 100,000 by
    /// default.
    #[schemars(range(min = 1000))]
    pub file_values: Option<u32>,
    /// Most text in one graph or skill, counting every alias as all that it stands for; 4MiB by
    /// default.
    pub file_expanded: Option<Size>,
    /// Most steps of what is looked for in a graph as a whole, such as nodes that can run at the
    /// same time; beyond them it loads with a warning. 50,000,000 by default, which is some 200 ms.
    #[schemars(range(min = 1000))]
    pub file_checks: Option<u64>,
    /// Longest answer to a request with an `Idempotency-Key` that is kept to be repeated; a request
    /// whose answer was longer is not repeated. 16MiB by default.
    pub kept_answer: Option<Size>,
    /// Most keys that a user who is no administrator may have at a time; 1000 by default.
    #[schemars(range(min = 1))]
    pub keys: Option<u32>,
    /// Most wrong sign-in links from one address within a minute; 10 by default.
    #[schemars(range(min = 1))]
    pub sign_ins: Option<u32>,
    /// Most wrong sign-in links from all addresses together within a minute; 1,000 by default.
    #[schemars(range(min = 1))]
    pub sign_ins_in_all: Option<u32>,
    /// Most memory that the channels of one graph may take, about; 64MiB by default.
    pub state: Option<Size>,
    /// Most items of a list that one `map` works on; 20,000 by default.
    #[schemars(range(min = 1))]
    pub map_items: Option<u32>,
    /// Most memory that the results of nodes with `cache` take together; those with the least time
    /// left go first. 64MiB by default.
    pub cache: Option<Size>,
    /// Most memory that conversations take between two turns, about, so that the next turn need not
    /// read them again; those that had a turn longest ago go first. 64MiB by default.
    pub histories: Option<Size>,
    /// Most runs that go on at once; others are queued. 16,000 by default: one that waits for a
    /// model or a tool takes some memory and nothing else.
    #[schemars(range(min = 1))]
    pub runs: Option<u32>,
    /// Longest answer of a model, its reasoning and tool calls included; 16MiB by default.
    pub answer: Option<Size>,
    /// Most pieces that an answer of a model may come in; 1,000,000 by default.
    #[schemars(range(min = 1000))]
    pub answer_pieces: Option<u32>,
    /// Longest body of a request that may hold documents or pictures (messages, runs, answers,
    /// calls of tools, `/v1`); 32MiB by default.
    pub body: Option<Size>,
    /// Longest body of every other request; 1MiB by default.
    pub small_body: Option<Size>,
    /// How much of bodies above 64KiB is held at once, from the reading of each to the end of its
    /// answer; 128MiB by default. Whoever finds no room waits.
    pub bodies: Option<Size>,
    /// How long a request waits for that room before it is told to come back; 10s by default.
    pub body_wait: Option<Period>,
    /// How long a body may take to arrive; 1m by default.
    pub body_timeout: Option<Period>,
    /// How much of a body that is refused is read and thrown away, so that its sender gets to read
    /// why; 64MiB by default.
    pub refused_body: Option<Size>,
    /// Longest request line with all its fields, at least 8KiB; 32KiB by default.
    pub head: Option<Size>,
    /// How long a connection may take to send the head of a request, and a new one to begin its
    /// first; 10s by default.
    pub header_timeout: Option<Period>,
    /// How long a connection may rest between two requests; 75s by default, longer than the proxies
    /// that keep connections usually do.
    pub idle_timeout: Option<Period>,
    /// How long a reader may take nothing at all of its answer; 1m by default.
    pub write_timeout: Option<Period>,
    /// Connections at once; 10,000 by default, and never more than half of the files that the
    /// process may open.
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// Connections from one address (IPv6: one network of 64 bits) at once; four fifths of all by
    /// default. Behind a proxy, which is one address, as many as `connections`.
    #[schemars(range(min = 1))]
    pub connections_per_address: Option<u32>,
    /// Streams of one connection of HTTP/2 without encryption (h2c); 0, the default, leaves HTTP/2
    /// off.
    pub http2_streams: Option<u32>,
    /// How long runs and requests in flight may go on once the server is told to stop; 5s by
    /// default. Runs that have not ended by then go on at the next start.
    pub shutdown: Option<Period>,
    /// How long `/readyz` waits for the database before it says that the server is not ready; 1s by
    /// default.
    pub ready_wait: Option<Period>,
}

/// The bounds that apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of what graphs, tools and models hand to the engine.
    pub engine: EngineLimits,
    /// Bytes of one page of conversations, messages or events.
    pub page: usize,
    /// Bytes of an answer that is kept for those who send the same request again.
    pub kept_answer: usize,
    /// Keys that work, of one user who is no administrator.
    pub keys: u64,
    /// Wrong sign-in links from one address within a minute.
    pub sign_ins: u32,
    /// Wrong sign-in links from all addresses together within a minute.
    pub sign_ins_in_all: u32,
    /// Of requests and connections.
    pub transport: TransportLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            engine: EngineLimits::default(),
            page: 4 * 1024 * 1024,
            kept_answer: 16 * 1024 * 1024,
            keys: 1000,
            sign_ins: 10,
            sign_ins_in_all: 1000,
            transport: TransportLimits::default(),
        }
    }
}

impl Limits {
    /// What is written, else the default.
    #[must_use]
    pub(super) fn of(file: &LimitsFile) -> Self {
        let mut limits = Self { transport: TransportLimits::of(file), ..Self::default() };
        let engine = &mut limits.engine;
        if let Some(depth) = file.nesting {
            engine.json.depth = depth.into();
            engine.expression.nesting = depth.into();
        }
        if let Some(values) = file.values {
            engine.json.values = usize::try_from(values).unwrap_or(usize::MAX);
        }
        if let Some(Size(bytes)) = file.tool_result {
            engine.tool_result = bytes;
        }
        if let Some(Size(bytes)) = file.expression_source {
            engine.expression.source = bytes;
        }
        if let Some(Size(bytes)) = file.expression_result {
            engine.expression.result = bytes;
        }
        if let Some(steps) = file.expression_steps {
            engine.expression.steps = steps;
        }
        if let Some(Size(bytes)) = file.file_size {
            engine.files.size = bytes;
        }
        if let Some(Size(bytes)) = file.folder_size {
            engine.files.folder = bytes;
        }
        if let Some(values) = file.file_values {
            engine.files.values = usize::try_from(values).unwrap_or(usize::MAX);
        }
        if let Some(Size(bytes)) = file.file_expanded {
            engine.files.expanded = bytes;
        }
        if let Some(steps) = file.file_checks {
            engine.files.checks = steps;
        }
        if let Some(Size(bytes)) = file.state {
            engine.state = bytes;
        }
        if let Some(items) = file.map_items {
            engine.map_items = usize::try_from(items).unwrap_or(usize::MAX);
        }
        // None at all would begin nothing.
        if let Some(Size(bytes)) = file.cache {
            engine.cache = bytes;
        }
        if let Some(Size(bytes)) = file.histories {
            engine.histories = bytes;
        }
        if let Some(runs) = file.runs {
            engine.runs = usize::try_from(runs).unwrap_or(usize::MAX).max(1);
        }
        if let Some(Size(bytes)) = file.answer {
            engine.answer.bytes = bytes;
        }
        if let Some(pieces) = file.answer_pieces {
            engine.answer.pieces = usize::try_from(pieces).unwrap_or(usize::MAX);
        }
        if let Some(Size(bytes)) = file.page {
            limits.page = bytes;
        }
        if let Some(Size(bytes)) = file.kept_answer {
            limits.kept_answer = bytes;
        }
        if let Some(keys) = file.keys {
            limits.keys = keys.into();
        }
        // None at all would keep everybody out.
        if let Some(most) = file.sign_ins {
            limits.sign_ins = most.max(1);
        }
        if let Some(most) = file.sign_ins_in_all {
            limits.sign_ins_in_all = most.max(1);
        }
        limits
    }
}
