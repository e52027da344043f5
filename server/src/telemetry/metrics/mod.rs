//! What Prometheus reads: how much is asked, how long it takes, what fails, what it costs.
//!
//! | file | holds |
//! |---|---|
//! | `models.rs` | calls to models and quotas |
//! | `runs.rs` | runs, their nodes, agents and tools |
//!
//! Names and attributes of `gen_ai_*` are those of
//! open-telemetry/semantic-conventions-genai at the commit that `engine/src/span.rs` names, as
//! OpenTelemetry writes them for Prometheus: dots become underscores, units and `_total` are
//! suffixes. `http_*` is of the general conventions.
//!
//! Invariants:
//! - Callers cannot make labels up without end: of models that nobody configured, those have their
//!   names that answered while there were not [`models::MODELS`].
//! - Every attempt is counted once, where it is settled.

mod models;
mod runs;

use std::time::Duration;

use exile_engine::observer::{NodeEnd, Observer};
use jiff::Timestamp;
use prometheus::{
    CounterVec, Encoder as _, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry,
    TextEncoder, exponential_buckets, histogram_opts, opts,
};

use crate::store::OpenRuns;

pub use models::Attempt;

/// What a scrape of [`Metrics::text`] is declared as.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The label of a graph.
const GRAPH: &str = "gen_ai_workflow_name";

/// Every figure of the process.
pub struct Metrics {
    registry: Registry,
    models: models::Models,
    runs: runs::Runs,
    http: HistogramVec,
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
        let made = Made(&registry);
        let http = made.histogram(
            "http_server_request_duration_seconds",
            "How long requests took until their answer began.",
            &quick()?,
            &["http_request_method", "http_route", "http_response_status_code"],
        )?;
        let (models, runs) = (models::Models::new(&made)?, runs::Runs::new(&made)?);
        Ok(Self { registry, models, runs, http })
    }

    /// Tells which kinds of quotas there are, and in which units they count.
    pub fn know_quotas(&self, kinds: &[&str], units: &[&str]) {
        self.models.know_quotas(kinds, units);
    }

    /// Tells which models are no invention of callers.
    pub fn know(&self, models: impl Iterator<Item = String>) {
        self.models.know(models);
    }

    /// Counts an attempt to get an answer of a model.
    pub fn attempt(&self, attempt: &Attempt<'_>) {
        self.models.attempt(attempt);
    }

    /// Counts a call that a quota refused.
    pub fn refused(&self, kind: &str, unit: &str) {
        self.models.refused(kind, unit);
    }

    /// Counts a request to the server; `route` is the pattern that matched.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = [method, route, &status.to_string()];
        self.http.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// Everything, as Prometheus reads it. `open`: the runs that have not ended, as of `now`.
    ///
    /// # Errors
    /// A metric that cannot be written: a defect of exile.
    pub fn text(&self, open: &[OpenRuns], now: Timestamp) -> Result<Vec<u8>, prometheus::Error> {
        self.runs.open(open, now);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Observer for Metrics {
    fn tool(&self, graph: &str, tool: &str, took: Duration, error: Option<&str>) {
        self.runs.tool(graph, tool, took, error);
    }

    fn node(&self, end: &NodeEnd<'_>) {
        self.runs.node(end);
    }

    fn run(&self, graph: &str, took: Duration, error: Option<&str>) {
        self.runs.run(graph, took, error);
    }
}

/// Makes metrics that are in a registry.
struct Made<'r>(&'r Registry);

impl Made<'_> {
    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let metric = HistogramVec::new(histogram_opts!(name, help, buckets.to_vec()), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(opts!(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(opts!(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn seconds(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        let metric = GaugeVec::new(opts!(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn amount(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<CounterVec, prometheus::Error> {
        let metric = CounterVec::new(opts!(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

/// Seconds of what models do: 10 ms, doubled thirteen times, as the conventions say.
fn seconds() -> Result<Vec<f64>, prometheus::Error> {
    exponential_buckets(0.01, 2.0, 14)
}

/// Seconds of what is mostly quicker: half a millisecond, doubled seventeen times.
fn quick() -> Result<Vec<f64>, prometheus::Error> {
    exponential_buckets(0.000_5, 2.0, 18)
}
