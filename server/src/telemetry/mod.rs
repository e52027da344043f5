//! Logs to standard error, and spans to an OpenTelemetry collector if one is named.
//!
//! Invariants:
//! - Exported are the spans that [`exile_engine::span`] makes, nothing else: what a library
//!   traces may hold content or keys.
//! - Log events never reach the exporter, so that none can carry content there.
//! - A collector that cannot be reached costs spans, never a run.
//! - Absent on purpose: attribute names (`engine/src/span.rs`), metrics and log export.

pub mod metrics;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use exile_engine::span::{LISTS, SCHEMA_URL, TARGET, TraceLink};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Array, InstrumentationScope, KeyValue, Value};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

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

/// The layer that turns spans of runs and requests into exported ones.
fn exporting<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let scope = InstrumentationScope::builder("exile")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build();
    let exported = filter_fn(|meta| meta.is_span() && meta.target() == TARGET);
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer_with_scope(scope))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_filter(exported.and(LevelFilter::INFO))
}

fn provider(endpoint: &str, headers: Option<&str>) -> Result<SdkTracerProvider, TelemetryError> {
    exile_nodes::http::install_tls();
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_headers(pairs(headers.unwrap_or_default()).collect())
        .build()?;
    let resource = Resource::builder()
        .with_service_name("exile")
        .with_schema_url([KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))], SCHEMA_URL)
        .build();
    let lists = Lists { exporter };
    Ok(SdkTracerProvider::builder().with_batch_exporter(lists).with_resource(resource).build())
}

/// `a=b,c=d` as pairs; a piece without `=` is no header.
fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + use<'_> {
    let pair = |piece: &str| {
        let (name, value) = piece.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    text.split(',').filter_map(pair)
}

/// Turns the attributes that [`LISTS`] names back into lists before they are sent.
#[derive(Debug)]
struct Lists<E> {
    exporter: E,
}

impl<E: SpanExporter> SpanExporter for Lists<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let attributes = batch.iter_mut().flat_map(|span| &mut span.attributes);
        for attribute in attributes.filter(|a| LISTS.contains(&a.key.as_str())) {
            if let Ok(items) = serde_json::from_str::<Vec<String>>(&attribute.value.as_str()) {
                let items = items.into_iter().map(Into::into).collect();
                attribute.value = Value::Array(Array::String(items));
            }
        }
        self.exporter.export(batch).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Joins spans to traces by W3C trace context.
struct W3c;

const TRACEPARENT: &str = "traceparent";

impl TraceLink for W3c {
    fn adopt(&self, span: &Span, traceparent: &str) {
        let carrier =
            std::collections::HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
        let parent = TraceContextPropagator::new().extract(&carrier);
        if !parent.span().span_context().is_valid() {
            return;
        }
        if let Err(error) = span.set_parent(parent) {
            tracing::debug!(%error, "a span could not join its caller's trace");
        }
    }

    fn traceparent(&self, span: &Span) -> Option<String> {
        let mut carrier = std::collections::HashMap::new();
        TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
        carrier.remove(TRACEPARENT)
    }
}
