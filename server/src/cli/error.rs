//! What makes a command fail.

use std::io;

use exile_engine::http::HttpError;

use crate::config::ConfigError;
use crate::config::home::HomeError;
use crate::process::compose::ComposeError;
use crate::store::{BackupError, StoreError};
use crate::telemetry::TelemetryError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The terminal, a file, or the network card said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another process has the home.
    #[error("{0}")]
    Held(String),
    /// No answer from the server.
    #[error("the server does not answer: {0}")]
    Http(#[from] HttpError),
    /// The server said no.
    #[error("{detail}{}", hint(remedy))]
    Refused { code: String, detail: String, remedy: String },
    /// The server's answer is not what its interface says.
    #[error("the server's answer cannot be read: {0}")]
    Answer(String),
    /// An argument that the parser cannot judge.
    #[error("{0}")]
    Usage(String),
    /// A run that ended otherwise than `finished`.
    #[error("{0}")]
    Run(String),
    /// Something was checked and found wrong; what is already printed.
    #[error("")]
    Shown,
}

impl CliError {
    /// 1 failed, 2 usage. No wildcard arm: a new error must choose.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Config(_)
            | Self::Home(_)
            | Self::Compose(_)
            | Self::Store(_)
            | Self::Backup(_)
            | Self::Telemetry(_)
            | Self::Io(_)
            | Self::Held(_)
            | Self::Http(_)
            | Self::Refused { .. }
            | Self::Answer(_)
            | Self::Run(_)
            | Self::Shown => 1,
        }
    }

    /// The stable code that `--json` prints.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Config(_) => "config",
            Self::Home(_) | Self::Held(_) => "home",
            Self::Compose(_) => "start",
            Self::Store(_) => "store",
            Self::Backup(_) => "backup",
            Self::Telemetry(_) => "telemetry",
            Self::Io(_) => "io",
            Self::Http(_) => "no_answer",
            Self::Refused { code, .. } => code,
            Self::Answer(_) => "answer",
            Self::Usage(_) => "usage",
            Self::Run(_) => "run",
            Self::Shown => "findings",
        }
    }
}

fn hint(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}
