//! Spans of runs and requests, and the only file that names their OpenTelemetry attributes.
//!
//! Names follow open-telemetry/semantic-conventions-genai at commit
//! `06ec68e722c45a7218e23ea1bc1339fe4e21ecae` (schema
//! `https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev`): `invoke_workflow` for a run, `chat`
//! for a model call, `execute_tool` for a tool call. Nodes have no convention and are named
//! `exile.*`. The engine only opens `tracing` spans; `server/src/telemetry.rs` exports them.
//!
//! Invariants:
//! - No attribute holds what people, models or tools said: a failed span carries the error's
//!   stable code, never its message, which may quote them.
//! - Absent on purpose: attributes of things that exile does not have (seeds, choices, agents
//!   with ids) and `cache_write`, which no provider of this version reports.

use std::time::Duration;

use tracing::{Span, field::Empty, info_span};

use crate::model::{Finish, ModelRef, ModelReply, ModelRequest, ProviderError};
use crate::node::NodeError;
use crate::run::record::{RunError, Started};
use crate::tool::ToolAnswer;

/// Schema that the names below belong to; the exporter's resource declares it.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev";

/// The `tracing` target of every span made here, by which the exporter knows them.
pub const TARGET: &str = module_path!();

/// Attributes that are lists. A `tracing` field cannot be one: they are recorded as the text of a
/// JSON list, and the exporter turns them into lists again.
pub const LISTS: &[&str] = &["gen_ai.response.finish_reasons"];

/// Ties spans to traces that begin or go on elsewhere. W3C `traceparent` in and out.
pub trait TraceLink: Send + Sync {
    /// Makes `span` a child of a remote span.
    fn adopt(&self, span: &Span, traceparent: &str);

    /// The `traceparent` that a callee of `span` should be given; `None` without an exporter.
    fn traceparent(&self, span: &Span) -> Option<String>;
}

/// No exporter: spans belong to no trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl TraceLink for NoTrace {
    fn adopt(&self, _: &Span, _: &str) {}

    fn traceparent(&self, _: &Span) -> Option<String> {
        None
    }
}

/// One request to the server, under the conventions of HTTP. `route` is the pattern that matched,
/// e.g. `/api/runs/{id}`; empty if none did.
#[must_use]
pub fn http_request(method: &str, route: &str) -> Span {
    info_span!(
        "request",
        otel.name = format!("{method} {route}").trim_end(),
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        http.request.method = method,
        http.route = (!route.is_empty()).then_some(route),
        http.response.status_code = Empty,
        error.r#type = Empty,
    )
}

/// What the request was answered with. Only a fault of the server marks it as failed.
pub fn http_answered(span: &Span, status: u16) {
    span.record("http.response.status_code", i64::from(status));
    if status >= 500 {
        failed(span, &status.to_string());
    }
}

/// One run of a graph.
#[must_use]
pub fn invoke_workflow(started: &Started) -> Span {
    let conversation = started.conversation.as_ref().map(crate::id::ConversationId::as_str);
    info_span!(
        "invoke_workflow",
        otel.name = format!("invoke_workflow {}", started.graph),
        otel.kind = "internal",
        otel.status_code = Empty,
        otel.status_description = Empty,
        gen_ai.operation.name = "invoke_workflow",
        gen_ai.workflow.name = &*started.graph,
        gen_ai.conversation.id = conversation,
        exile.run.id = started.run.as_str(),
        error.r#type = Empty,
    )
}

/// How the run ended.
pub fn workflow_ended(span: &Span, error: Option<&RunError>) {
    if let Some(error) = error {
        failed(span, &error.code);
    }
}

/// One task of a node.
#[must_use]
pub fn node(parent: Option<&Span>, name: &str, kind: &str, task: &str) -> Span {
    info_span!(
        parent: parent.and_then(Span::id),
        "node",
        otel.name = format!("node {name}"),
        otel.kind = "internal",
        otel.status_code = Empty,
        otel.status_description = Empty,
        exile.node.name = name,
        exile.node.kind = kind,
        exile.task.path = task,
        error.r#type = Empty,
    )
}

/// How the task ended.
pub fn node_ended(span: &Span, error: Option<&NodeError>) {
    if let Some(error) = error {
        failed(span, error.code());
    }
}

/// One model call.
#[must_use]
pub fn chat(model: &ModelRef, ask: &ModelRequest, conversation: Option<&str>) -> Span {
    info_span!(
        "chat",
        otel.name = format!("chat {}", model.model),
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = &*model.provider,
        gen_ai.request.model = &*model.model,
        gen_ai.request.stream = true,
        gen_ai.request.temperature = ask.temperature,
        gen_ai.request.max_tokens = ask.max_tokens,
        gen_ai.output.r#type = ask.output_schema.as_ref().map(|_| "json"),
        gen_ai.conversation.id = conversation,
        server.address = Empty,
        server.port = Empty,
        gen_ai.response.id = Empty,
        gen_ai.response.model = Empty,
        gen_ai.response.finish_reasons = Empty,
        gen_ai.response.time_to_first_chunk = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        gen_ai.usage.cache_read.input_tokens = Empty,
        gen_ai.usage.reasoning.output_tokens = Empty,
        error.r#type = Empty,
    )
}

/// Where the model call of the current span goes to. Outside such a span it does nothing.
pub fn reached(host: &str, port: u16) {
    let span = Span::current();
    span.record("server.address", host);
    span.record("server.port", i64::from(port));
}

/// How long the model call of the current span took to its first piece.
pub fn first_chunk(after: Duration) {
    Span::current().record("gen_ai.response.time_to_first_chunk", after.as_secs_f64());
}

/// What the model answered.
pub fn chat_ended(span: &Span, outcome: Result<&ModelReply, &ProviderError>) {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(error) => return failed(span, error.fault.code()),
    };
    span.record("gen_ai.response.model", &*reply.model);
    if let Some(id) = &reply.id {
        span.record("gen_ai.response.id", &**id);
    }
    let finish = match reply.finish {
        Finish::Stop if !reply.tool_calls.is_empty() => "tool_calls",
        Finish::ToolCalls => "tool_calls",
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Filtered | Finish::Refused => "content_filter",
    };
    span.record("gen_ai.response.finish_reasons", format!("[\"{finish}\"]"));
    if let Some(usage) = &reply.usage {
        // The exporter has signed integers only: an unsigned one would leave as text.
        let tokens = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        span.record("gen_ai.usage.input_tokens", tokens(usage.input));
        span.record("gen_ai.usage.output_tokens", tokens(usage.output));
        span.record("gen_ai.usage.cache_read.input_tokens", tokens(usage.cached));
        span.record("gen_ai.usage.reasoning.output_tokens", tokens(usage.reasoning));
    }
}

/// One tool call.
#[must_use]
pub fn execute_tool(tool: &str, id: Option<&str>, started: &Started) -> Span {
    let conversation = started.conversation.as_ref().map(crate::id::ConversationId::as_str);
    info_span!(
        "execute_tool",
        otel.name = format!("execute_tool {tool}"),
        otel.kind = "internal",
        otel.status_code = Empty,
        otel.status_description = Empty,
        gen_ai.operation.name = "execute_tool",
        gen_ai.tool.name = tool,
        gen_ai.tool.call.id = id,
        gen_ai.tool.r#type = "function",
        gen_ai.tool.description = Empty,
        gen_ai.conversation.id = conversation,
        error.r#type = Empty,
    )
}

/// What the tool is for, in its author's words.
pub fn tool_described(span: &Span, description: &str) {
    span.record("gen_ai.tool.description", description);
}

/// What the tool answered.
pub fn tool_ended(span: &Span, answer: &ToolAnswer) {
    if let Some(kind) = tool_error(answer) {
        failed(span, &kind);
    }
}

/// What kind of failure the tool's was; `None` if it was none.
#[must_use]
pub fn tool_error(answer: &ToolAnswer) -> Option<String> {
    let ToolAnswer::Failed(error) = answer else { return None };
    let kind = serde_json::to_value(error.kind).unwrap_or_default();
    Some(kind.as_str().unwrap_or("_OTHER").to_owned())
}

fn failed(span: &Span, code: &str) {
    span.record("error.type", code);
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", code);
}
