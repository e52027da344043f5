//! Runs of graphs, their nodes, agents and tools.

use std::time::Duration;

use exile_engine::observer::NodeEnd;
use jiff::Timestamp;
use prometheus::{GaugeVec, HistogramVec, IntGaugeVec};

use super::{GRAPH, Made, quick, seconds};
use crate::store::OpenRuns;

/// The kind of nodes that are agents.
const AGENT: &str = "agent";

pub(super) struct Runs {
    workflows: HistogramVec,
    nodes: HistogramVec,
    agents: HistogramVec,
    /// Of models and of tools.
    agent_calls: [HistogramVec; 2],
    tools: HistogramVec,
    open: IntGaugeVec,
    oldest: GaugeVec,
}

impl Runs {
    pub(super) fn new(made: &Made<'_>) -> Result<Self, prometheus::Error> {
        let few = [0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0];
        let calls = |name: &str, help: &str| {
            made.histogram(name, help, &few, &[GRAPH, "gen_ai_agent_name"])
        };
        Ok(Self {
            workflows: made.histogram(
                "gen_ai_invoke_workflow_duration_seconds",
                "How long runs of graphs took, from their start or, after a restart, from then on.",
                &seconds()?,
                &[GRAPH, "error_type"],
            )?,
            nodes: made.histogram(
                "exile_node_duration_seconds",
                "How long nodes took.",
                &quick()?,
                &[GRAPH, "exile_node_kind", "error_type"],
            )?,
            agents: made.histogram(
                "gen_ai_invoke_agent_duration_seconds",
                "How long agents took.",
                &seconds()?,
                &[GRAPH, "gen_ai_agent_name", "error_type"],
            )?,
            agent_calls: [
                calls("gen_ai_invoke_agent_inference_calls", "Calls of models by one agent.")?,
                calls("gen_ai_invoke_agent_tool_calls", "Calls of tools by one agent.")?,
            ],
            tools: made.histogram(
                "gen_ai_execute_tool_duration_seconds",
                "How long calls of tools took.",
                &quick()?,
                &["gen_ai_tool_name", GRAPH, "error_type"],
            )?,
            open: made.gauge("exile_runs", "Runs that have not ended.", &["status"])?,
            oldest: made.seconds(
                "exile_oldest_run_age_seconds",
                "How long ago the oldest run that has not ended was asked for; 0 if there is none.",
                &["status"],
            )?,
        })
    }

    /// Sets what stands in the store; nothing is shown where that cannot be known.
    pub(super) fn open(&self, open: &[OpenRuns], now: Timestamp) {
        if open.is_empty() {
            self.open.reset();
            self.oldest.reset();
        }
        for OpenRuns { status, count, oldest } in open {
            let labels = [status.as_str()];
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.open.with_label_values(&labels).set(count);
            let age = oldest.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
            self.oldest.with_label_values(&labels).set(age);
        }
    }

    pub(super) fn tool(&self, graph: &str, tool: &str, took: Duration, error: Option<&str>) {
        let labels = [tool, graph, error.unwrap_or_default()];
        self.tools.with_label_values(&labels).observe(took.as_secs_f64());
    }

    pub(super) fn node(&self, end: &NodeEnd<'_>) {
        let (took, error) = (end.took.as_secs_f64(), end.error.unwrap_or_default());
        self.nodes.with_label_values(&[end.graph, end.kind, error]).observe(took);
        if end.kind != AGENT {
            return;
        }
        self.agents.with_label_values(&[end.graph, end.node, error]).observe(took);
        for (metric, calls) in self.agent_calls.iter().zip([end.model_calls, end.tool_calls]) {
            metric.with_label_values(&[end.graph, end.node]).observe(f64::from(calls));
        }
    }

    pub(super) fn run(&self, graph: &str, took: Duration, error: Option<&str>) {
        let labels = [graph, error.unwrap_or_default()];
        self.workflows.with_label_values(&labels).observe(took.as_secs_f64());
    }
}
