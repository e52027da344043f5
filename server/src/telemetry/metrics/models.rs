//! Calls to models, and quotas.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use exile_engine::model::Usage;
use exile_engine::model::price::Micros;
use prometheus::{CounterVec, HistogramVec, IntCounterVec, exponential_buckets};

use super::{GRAPH, Made, quick, seconds};

/// As many models as are told apart.
pub(super) const MODELS: usize = 256;

const WHICH: [&str; 4] =
    ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", GRAPH];

/// Kinds of tokens, as metrics are named after them.
const TOKENS: [&str; 5] =
    ["input", "output", "cache_read_input", "cache_write_input", "reasoning_output"];

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

pub(super) struct Models {
    duration: HistogramVec,
    first_chunk: HistogramVec,
    chunk: HistogramVec,
    /// As [`TOKENS`] names them.
    tokens: Vec<IntCounterVec>,
    input: HistogramVec,
    output: HistogramVec,
    cost: CounterVec,
    refusals: IntCounterVec,
    known: Mutex<HashSet<String>>,
}

impl Models {
    pub(super) fn new(made: &Made<'_>) -> Result<Self, prometheus::Error> {
        let failing: Vec<&str> = WHICH.into_iter().chain(["error_type"]).collect();
        let of_tokens: Vec<&str> = WHICH.into_iter().chain(["gen_ai_token_modality"]).collect();
        let tokens = |kind: &str| {
            let name = format!("gen_ai_client_inference_usage_{kind}_tokens_total");
            made.counter(&name, &format!("Tokens, {}.", kind.replace('_', " ")), &of_tokens)
        };
        let (seconds, counts) = (seconds()?, exponential_buckets(1.0, 4.0, 14)?);
        Ok(Self {
            duration: made.histogram(
                "gen_ai_client_inference_duration_seconds",
                "How long attempts to get an answer of a model took.",
                &seconds,
                &failing,
            )?,
            first_chunk: made.histogram(
                "gen_ai_client_inference_time_to_first_chunk_seconds",
                "How long the first piece of an answer took.",
                &seconds,
                &WHICH,
            )?,
            chunk: made.histogram(
                "gen_ai_client_inference_time_per_output_chunk_seconds",
                "Mean time between the pieces of an answer.",
                &quick()?,
                &WHICH,
            )?,
            tokens: TOKENS.map(tokens).into_iter().collect::<Result<_, _>>()?,
            input: made.histogram(
                "gen_ai_client_inference_operation_input_tokens",
                "Tokens of one request.",
                &counts,
                &WHICH,
            )?,
            output: made.histogram(
                "gen_ai_client_inference_operation_output_tokens",
                "Tokens of one answer.",
                &counts,
                &WHICH,
            )?,
            cost: made.amount(
                "exile_cost_total",
                "What calls to models cost, in units of the currency.",
                &["currency", WHICH[1], WHICH[2], WHICH[3]],
            )?,
            refusals: made.counter(
                "exile_quota_refusals_total",
                "Calls that were refused because a quota was used up.",
                &["quota_kind", "quota_unit"],
            )?,
            known: Mutex::default(),
        })
    }

    /// Begins counting refusals of every kind of quota in every unit: what is not there before the
    /// first one has no rate when that comes.
    pub(super) fn know_quotas(&self, kinds: &[&str], units: &[&str]) {
        for kind in kinds {
            for unit in units {
                self.refusals.with_label_values(&[kind, unit]);
            }
        }
    }

    pub(super) fn attempt(&self, attempt: &Attempt<'_>) {
        let operation = if attempt.embeds { "embeddings" } else { "chat" };
        let which = [operation, attempt.provider, self.name(attempt), attempt.graph];
        let [_, provider, model, graph] = which;
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
        let Usage { input, cached, written, output, reasoning } = attempt.usage;
        if attempt.error.is_empty() {
            self.input.with_label_values(&which).observe(float(input));
            if !attempt.embeds {
                self.output.with_label_values(&which).observe(float(output));
            }
        }
        // Providers do not say how many tokens of a request were of its images.
        let asked = if attempt.images { "unknown" } else { "text" };
        let modalities = [asked, "text", asked, asked, "text"];
        let counts = [input, output, cached, written, reasoning].into_iter().zip(modalities);
        for (metric, (count, modality)) in self.tokens.iter().zip(counts) {
            if count > 0 {
                let labels = [operation, provider, model, graph, modality];
                metric.with_label_values(&labels).inc_by(count);
            }
        }
        if let Some((cost, currency)) = attempt.cost {
            let labels = [currency, provider, model, graph];
            self.cost.with_label_values(&labels).inc_by(float(cost) / 1e6);
        }
    }

    pub(super) fn refused(&self, kind: &str, unit: &str) {
        self.refusals.with_label_values(&[kind, unit]).inc();
    }

    /// Models that have their names whatever else is asked for.
    pub(super) fn know(&self, models: impl Iterator<Item = String>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).extend(models);
    }

    /// The model's name, if it is known, or has answered while there were not too many: callers make
    /// names up.
    fn name<'a>(&self, attempt: &Attempt<'a>) -> &'a str {
        // The lock guards whole names: nothing panics while it is held.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(attempt.model) {
            return attempt.model;
        }
        if known.len() >= MODELS || !attempt.error.is_empty() {
            return "_OTHER";
        }
        known.insert(attempt.model.to_owned());
        attempt.model
    }
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has nothing but floats")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use exile_engine::model::Usage;

    use jiff::Timestamp;

    use super::{Attempt, MODELS};
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn callers_cannot_make_up_labels_without_end() {
        let metrics = Metrics::new().unwrap();
        for n in 0..MODELS + 10 {
            let model = format!("made-up-{n}");
            metrics.attempt(&Attempt {
                embeds: false,
                provider: "lab",
                model: &model,
                graph: "",
                error: "",
                took: std::time::Duration::ZERO,
                first: None,
                pieces: 0,
                images: false,
                usage: Usage { input: 1, ..Usage::default() },
                cost: None,
            });
        }
        let text = String::from_utf8(metrics.text(&[], Timestamp::UNIX_EPOCH).unwrap()).unwrap();
        let series =
            |line: &&str| line.starts_with("gen_ai_client_inference_usage_input_tokens_total{");
        let series: Vec<&str> = text.lines().filter(series).collect();
        assert_eq!(series.len(), MODELS + 1);
        assert!(series.iter().any(|line| line.contains("\"_OTHER\"") && line.ends_with(" 10")));
    }
}
