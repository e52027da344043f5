//! Spans on their way to an OpenTelemetry collector, and how they join traces of others.
//!
//! Invariant: exported are the spans that [`exile_engine::span`] makes, nothing else.

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
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};

use super::TelemetryError;

/// The layer that turns spans of runs and requests into exported ones.
pub(super) fn exporting<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
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

/// What sends spans to the collector at `endpoint`, with `headers` as `name=value,…`.
pub(super) fn provider(
    endpoint: &str,
    headers: Option<&str>,
) -> Result<SdkTracerProvider, TelemetryError> {
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
pub(super) struct W3c;

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
