//! `exile validate`: every finding of graphs and skills, each with its source line and fix.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use exile_engine::env::{Env, SystemEnv};
use exile_engine::library;
use exile_engine::span::{NoTrace, TraceLink};

use super::error::CliError;
use super::terminal::Terminal;
use crate::config::Config;
use crate::process::compose;

/// Check graphs and skills: files, or folders like graphs/.
#[derive(Args)]
pub(super) struct Validate {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Validate {
    pub(super) fn run(&self, config: &Config, terminal: &mut Terminal) -> Result<(), CliError> {
        if let Some(missing) = self.paths.iter().find(|path| !path.exists()) {
            return Err(CliError::Usage(format!("{} does not exist", missing.display())));
        }
        let (trace, env): (Arc<dyn TraceLink>, Arc<dyn Env>) =
            (Arc::new(NoTrace), Arc::new(SystemEnv::new()));
        let catalog = compose::catalog(config, &trace, &env)?;
        let validation = library::validate(&self.paths, &catalog);
        if terminal.json() || !validation.findings.is_empty() {
            terminal.findings(&validation.findings, &validation.sources)?;
        }
        let (files, findings) = (validation.files.len(), validation.findings.len());
        if !terminal.json() {
            terminal.line(&format!("{files} file(s), {findings} finding(s)"))?;
        }
        if validation.failed() { Err(CliError::Shown) } else { Ok(()) }
    }
}
