//! `exile backup`: the home's rows in one file, while a server may go on.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::terminal::Terminal;
use crate::config::Config;
use crate::config::home::Home;
use crate::store::back_up;

/// Copy everything that is stored to a new file; a server may go on meanwhile.
#[derive(Args)]
pub(super) struct Backup {
    /// The file to make
    file: PathBuf,
}

impl Backup {
    pub(super) async fn run(
        &self,
        config: &Config,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let bytes = back_up(&Home::database_in(&config.places.home), &self.file).await?;
        let file = self.file.display().to_string();
        if terminal.json() {
            return terminal.value(&json!({ "file": file, "bytes": bytes }));
        }
        terminal.line(&format!(
            "{file}, {bytes} bytes; to restore it, make it `exile.db` of a new home"
        ))
    }
}
