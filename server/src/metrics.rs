//! What Prometheus reads: how much is asked, how long it takes, what fails, what it costs.
//!
//! Names and attributes of `gen_ai_*` are those of
//! open-telemetry/semantic-conventions-genai at the commit that `engine/src/span.rs` names, as
//! OpenTelemetry writes them for Prometheus: dots become underscores, units and `_total` are
//! suffixes. `http_*` is of the general conventions.
//!
//! Invariants:
//! - Callers cannot make labels up without end: of models, the first [`MODELS`] have their names.
//! - Every attempt is counted once, where it is settled.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use exile_engine::model::Usage;
use exile_engine::model::price::Micros;
use exile_engine::observer::Observer;
use prometheus::{
    CounterVec, Encoder as _, HistogramVec, IntCounterVec, Registry, TextEncoder,
    exponential_buckets, histogram_opts, opts,
};

use crate::ledger::{Kind, Unit};

/// What a scrape of [`Metrics::text`] is declared as.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

const WHICH: [&str; 4] = [
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_workflow_name",
];

/// Kinds of tokens, as metrics are named after them.
const TOKENS: [&str; 5] =
    ["input", "output", "cache_read_input", "cache_write_input", "reasoning_output"];

/// As many models as are told apart.
const MODELS: usize = 256;

/// An attempt to get an answer of a model.
pub struct Attempt<'a> {
    /// Vectors were asked for, not an answer.
    pub embeds: bool,
    /// Before the slash.
    pub provider: &'a str,
    /// After it.
    pub model: &'a str,
    /// The graph that asked; empty outside of runs.
    pub graph: &'a str,
    /// Why it failed; empty if it did not.
    pub error: &'a str,
    /// How long it took.
    pub took: Duration,
    /// To its first piece.
    pub first: Option<Duration>,
    /// How many pieces came.
    pub pieces: u64,
    /// Images were asked about.
    pub images: bool,
    /// Tokens.
    pub usage: Usage,
    /// What they cost, and in which currency.
    pub cost: Option<(Micros, &'a str)>,
}

/// Every figure of the process.
pub struct Metrics {
    registry: Registry,
    duration: HistogramVec,
    first_chunk: HistogramVec,
    chunk: HistogramVec,
    /// As [`TOKENS`] names them.
    tokens: Vec<IntCounterVec>,
    input: HistogramVec,
    output: HistogramVec,
    cost: CounterVec,
    refusals: IntCounterVec,
    tools: HistogramVec,
    runs: HistogramVec,
    http: HistogramVec,
    models: Mutex<HashSet<String>>,
}

impl Metrics {
    /// All at nothing.
    ///
    /// # Errors
    /// Two metrics of one name: a defect of exile.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        // 10 ms, doubled thirteen times.
        let seconds = exponential_buckets(0.01, 2.0, 14)?;
        let counts = exponential_buckets(1.0, 4.0, 14)?;
        let quick = exponential_buckets(0.000_5, 2.0, 18)?;
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let metric = HistogramVec::new(histogram_opts!(name, help, buckets.to_vec()), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(opts!(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let failing: Vec<&str> = WHICH.into_iter().chain(["error_type"]).collect();
        let of_tokens: Vec<&str> = WHICH.into_iter().chain(["gen_ai_token_modality"]).collect();
        let tokens = |kind: &str| {
            let name = format!("gen_ai_client_inference_usage_{kind}_tokens_total");
            counter(&name, &format!("Tokens, {}.", kind.replace('_', " ")), &of_tokens)
        };
        let cost = CounterVec::new(
            opts!("exile_cost_total", "What calls to models cost, in units of the currency."),
            &["currency", WHICH[1], WHICH[2], WHICH[3]],
        )?;
        registry.register(Box::new(cost.clone()))?;
        let tokens = TOKENS.map(tokens).into_iter().collect::<Result<_, _>>()?;
        let metrics = Self {
            duration: histogram(
                "gen_ai_client_inference_duration_seconds",
                "How long attempts to get an answer of a model took.",
                &seconds,
                &failing,
            )?,
            first_chunk: histogram(
                "gen_ai_client_inference_time_to_first_chunk_seconds",
                "How long the first piece of an answer took.",
                &seconds,
                &WHICH,
            )?,
            chunk: histogram(
                "gen_ai_client_inference_time_per_output_chunk_seconds",
                "Mean time between the pieces of an answer.",
                &quick,
                &WHICH,
            )?,
            tokens,
            input: histogram(
                "gen_ai_client_inference_operation_input_tokens",
                "Tokens of one request.",
                &counts,
                &WHICH,
            )?,
            output: histogram(
                "gen_ai_client_inference_operation_output_tokens",
                "Tokens of one answer.",
                &counts,
                &WHICH,
            )?,
            cost,
            refusals: counter(
                "exile_quota_refusals_total",
                "Calls that were refused because a quota was used up.",
                &["quota_kind", "quota_unit"],
            )?,
            tools: histogram(
                "gen_ai_execute_tool_duration_seconds",
                "How long calls of tools took.",
                &quick,
                &["gen_ai_tool_name", "gen_ai_workflow_name", "error_type"],
            )?,
            runs: histogram(
                "gen_ai_invoke_workflow_duration_seconds",
                "How long runs of graphs took, from their start or, after a restart, from then on.",
                &seconds,
                &["gen_ai_workflow_name", "error_type"],
            )?,
            http: histogram(
                "http_server_request_duration_seconds",
                "How long requests took until their answer began.",
                &quick,
                &["http_request_method", "http_route", "http_response_status_code"],
            )?,
            registry,
            models: Mutex::default(),
        };
        // What is not there before the first one has no rate when that comes.
        for kind in Kind::ALL {
            for unit in Unit::ALL {
                metrics.refusals.with_label_values(&[kind.as_str(), unit.as_str()]);
            }
        }
        Ok(metrics)
    }

    /// Counts an attempt.
    pub fn attempt(&self, attempt: &Attempt<'_>) {
        let operation = if attempt.embeds { "embeddings" } else { "chat" };
        let model = self.model(attempt);
        let which = [operation, attempt.provider, model, attempt.graph];
        let [operation, provider, model, graph] = which;
        let failing = [operation, provider, model, graph, attempt.error];
        self.duration.with_label_values(&failing).observe(attempt.took.as_secs_f64());
        if let Some(first) = attempt.first {
            self.first_chunk.with_label_values(&which).observe(first.as_secs_f64());
            let gaps = u32::try_from(attempt.pieces.saturating_sub(1)).unwrap_or(u32::MAX);
            if gaps > 0 {
                let mean = attempt.took.saturating_sub(first) / gaps;
                self.chunk.with_label_values(&which).observe(mean.as_secs_f64());
            }
        }
        if attempt.error.is_empty() {
            self.input.with_label_values(&which).observe(float(attempt.usage.input));
            if !attempt.embeds {
                self.output.with_label_values(&which).observe(float(attempt.usage.output));
            }
        }
        let Usage { input, cached, written, output, reasoning } = attempt.usage;
        // Providers do not say how many tokens of a request were of its images.
        let asked = if attempt.images { "unknown" } else { "text" };
        let counts = [
            (input, asked),
            (output, "text"),
            (cached, asked),
            (written, asked),
            (reasoning, "text"),
        ];
        for (metric, (count, modality)) in self.tokens.iter().zip(counts) {
            if count > 0 {
                metric
                    .with_label_values(&[operation, provider, model, graph, modality])
                    .inc_by(count);
            }
        }
        if let Some((cost, currency)) = attempt.cost {
            let labels = [currency, provider, model, graph];
            self.cost.with_label_values(&labels).inc_by(float(cost) / 1e6);
        }
    }

    /// The model's name, as long as there are not too many: callers make names up.
    fn model<'a>(&self, attempt: &Attempt<'a>) -> &'a str {
        // The lock guards whole names: nothing panics while it is held.
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let known = models.contains(attempt.model);
        if !known && models.len() >= MODELS {
            return "_OTHER";
        }
        if !known {
            models.insert(attempt.model.to_owned());
        }
        attempt.model
    }

    /// Counts a call that a quota refused.
    pub fn refused(&self, kind: &str, unit: &str) {
        self.refusals.with_label_values(&[kind, unit]).inc();
    }

    /// Counts a request to the server; `route` is the pattern that matched.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = [method, route, &status.to_string()];
        self.http.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// Everything, as Prometheus reads it.
    ///
    /// # Errors
    /// A metric that cannot be written: a defect of exile.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Observer for Metrics {
    fn tool(&self, graph: &str, tool: &str, took: Duration, error: Option<&str>) {
        let labels = [tool, graph, error.unwrap_or_default()];
        self.tools.with_label_values(&labels).observe(took.as_secs_f64());
    }

    fn run(&self, graph: &str, took: Duration, error: Option<&str>) {
        let labels = [graph, error.unwrap_or_default()];
        self.runs.with_label_values(&labels).observe(took.as_secs_f64());
    }
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has nothing but floats")]
fn float(count: u64) -> f64 {
    count as f64
}
