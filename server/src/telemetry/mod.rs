//! Logs to standard error, and spans to an OpenTelemetry collector if one is named.
//!
//! | file | holds |
//! |---|---|
//! | `traces.rs` | spans on their way to the collector |
//! | `metrics/` | what Prometheus reads |
//!
//! Invariants:
//! - Exported are the spans that [`exile_engine::span`] makes, nothing else: what a library
//!   traces may hold content or keys.
//! - Log events never reach the exporter, so that none can carry content there.
//! - A collector that cannot be reached costs spans, never a run.
//! - Absent on purpose: attribute names (`engine/src/span.rs`), export of metrics and logs.

pub mod metrics;
mod traces;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use exile_engine::span::TraceLink;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry};

use traces::{W3c, exporting, provider};

/// What the log shows unless `EXILE_LOG` says otherwise.
const DEFAULT_FILTER: &str = "warn,exile_engine=info,exile_nodes=info,exile_plugins=info,\
                              exile_server=info,exile=info";

/// Longest wait for the collector at shutdown.
const FLUSH: Duration = Duration::from_secs(3);

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line, its fields at the top.
    Json,
}

impl LogFormat {
    /// As flags and variables spell it.
    ///
    /// # Errors
    /// It is none that there is.
    pub fn parse(text: &str) -> Result<Self, TelemetryError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(TelemetryError::Format(other.to_owned())),
        }
    }
}

/// What is logged and where spans go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// `EXILE_LOG`: directives like `info` or `exile_server=debug`; empty: the default.
    pub log: Option<String>,
    /// `--log-format`, else `EXILE_LOG_FORMAT`.
    pub format: LogFormat,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: base address of a collector that takes OTLP over HTTP.
    pub otlp_endpoint: Option<String>,
    /// `OTEL_EXPORTER_OTLP_HEADERS`: `name=value,…`, sent with every export.
    pub otlp_headers: Option<String>,
}

/// Why there are no logs or spans.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("EXILE_LOG is no filter: {0}; write e.g. EXILE_LOG=info,exile_server=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is no such format.
    #[error("EXILE_LOG_FORMAT is `{0}`; write `text` or `json`")]
    Format(String),
    /// The exporter cannot be built.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Something else has set the process's subscriber.
    #[error("logs are already set up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// The process's logs and spans. [`shutdown`](Self::shutdown) sends what is left.
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up logs, and the exporter if an endpoint is given. Once per process.
    pub fn start(settings: &TelemetrySettings) -> Result<Self, TelemetryError> {
        let directives = settings.log.as_deref().unwrap_or(DEFAULT_FILTER);
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let log = match settings.format {
            LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => log.json().flatten_event(true).with_span_list(false).boxed(),
        };
        let log = log.with_filter(EnvFilter::try_new(directives)?);
        let provider = match settings.otlp_endpoint.as_deref().filter(|e| !e.is_empty()) {
            Some(endpoint) => Some(provider(endpoint, settings.otlp_headers.as_deref())?),
            None => None,
        };
        let spans = provider.as_ref().map(exporting);
        Registry::default().with(spans).with(log).try_init()?;
        Ok(Self { provider })
    }

    /// How runs join traces.
    #[must_use]
    pub fn link(&self) -> Arc<dyn TraceLink> {
        match self.provider {
            Some(_) => Arc::new(W3c),
            None => Arc::new(exile_engine::span::NoTrace),
        }
    }

    /// Sends what has not been sent. Blocks for at most three seconds.
    pub fn shutdown(self) {
        let Some(provider) = self.provider else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}
