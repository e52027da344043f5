//! `exile graph`: a graph as a picture. It reads the graphs' folder alone and needs no server.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use exile_engine::diagnostic::suggest;
use exile_engine::env::{Env, SystemEnv};
use exile_engine::graph::picture;
use exile_engine::span::{NoTrace, TraceLink};

use super::error::CliError;
use super::terminal::Terminal;
use crate::config::Config;
use crate::process::compose;

/// Draw a graph.
#[derive(Args)]
pub(super) struct Graph {
    /// The graph's name
    name: String,
    /// What to draw it as
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    format: Format,
}

/// What a picture is written in.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For Markdown
    Mermaid,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
}

impl Graph {
    pub(super) fn run(&self, config: &Config, terminal: &mut Terminal) -> Result<(), CliError> {
        let (trace, env): (Arc<dyn TraceLink>, Arc<dyn Env>) =
            (Arc::new(NoTrace), Arc::new(SystemEnv::new()));
        let library = compose::library(config, &compose::catalog(config, &trace, &env)?);
        let name = &self.name;
        let Some(graph) = library.graph(name) else {
            let known = library.graphs().iter().map(|g| g.name.as_str());
            let fix = suggest(name, known);
            return Err(CliError::Run(format!("no graph is named `{name}`; {fix}")));
        };
        let Some(program) = &graph.program else {
            let sources = [(graph.source.path.clone(), graph.source.text.clone())];
            terminal.findings(&graph.findings, &sources.into())?;
            return Err(CliError::Run(format!("`{name}` does not load")));
        };
        match self.format {
            Format::Mermaid => terminal.line(picture::mermaid(&program.graph).trim_end()),
            Format::Dot => terminal.line(picture::dot(&program.graph).trim_end()),
            Format::Json => terminal.value(&picture::json(&program.graph)),
        }
    }
}
