//! `limits` in `exile.yaml`: how much one request, run or connection may take of this machine.
//!
//! Every bound has a name and a default that real documents fit into; what is not written keeps its
//! default.

use exile_engine::limits::Limits as EngineLimits;
use exile_engine::size::Size;
use schemars::JsonSchema;
use serde::Deserialize;

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
    /// Longest answer to a request with an `Idempotency-Key` that is kept to be repeated; a request
    /// whose answer was longer is not repeated. 16MiB by default.
    pub kept_answer: Option<Size>,
    /// Most keys that a user who is no administrator may have at a time; 1000 by default.
    #[schemars(range(min = 1))]
    pub keys: Option<u32>,
}

/// The bounds that apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of what graphs, tools and models hand to the engine.
    pub engine: EngineLimits,
    /// Bytes of an answer that is kept for those who send the same request again.
    pub kept_answer: usize,
    /// Keys that work, of one user who is no administrator.
    pub keys: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let (kept_answer, keys) = (16 * 1024 * 1024, 1000);
        Self { engine: EngineLimits::default(), kept_answer, keys }
    }
}

impl Limits {
    /// What is written, else the default.
    #[must_use]
    pub(super) fn of(file: &LimitsFile) -> Self {
        let Self { mut engine, mut kept_answer, keys } = Self::default();
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
        if let Some(Size(bytes)) = file.kept_answer {
            kept_answer = bytes;
        }
        Self { engine, kept_answer, keys: file.keys.map_or(keys, u64::from) }
    }
}
