//! `exile checkpoints`, `fork` and `migrate`: a run's history, and going on from elsewhere in it.

use clap::Args;
use serde_json::json;

use super::connection::{Connection, part, view, views};
use super::error::CliError;
use super::terminal::Terminal;
use crate::api::{CheckpointView, MigrationView};

/// List the checkpoints of a run: where it can be read and forked from.
#[derive(Args)]
pub(super) struct Checkpoints {
    /// The run's id
    run: String,
}

impl Checkpoints {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let path = format!("/api/runs/{}/checkpoints?limit=200", part(&self.run));
        let mut answer = connection.get(&path).await?;
        while let Some(next) = answer["next"].as_str().map(str::to_owned) {
            let mut more = connection.get(&format!("{path}&after={}", part(&next))).await?;
            if let (Some(all), Some(items)) =
                (answer["items"].as_array_mut(), more["items"].as_array_mut())
            {
                all.append(items);
            }
            answer["next"] = more["next"].take();
        }
        let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows = views(items)?.into_iter().map(row).collect();
        terminal.table(&["NUMBER", "WHAT", "STEP", "STATUS", "ENDED", "NEXT"], rows, &answer)
    }
}

fn row(checkpoint: CheckpointView) -> Vec<String> {
    vec![
        checkpoint.number.to_string(),
        checkpoint.kind.into_owned(),
        checkpoint.step.to_string(),
        checkpoint.status.into_owned(),
        checkpoint.ended.join(" "),
        checkpoint.next.join(" "),
    ]
}

/// Go on from a checkpoint of a run as another run.
#[derive(Args)]
pub(super) struct Fork {
    /// The run's id
    run: String,
    /// The checkpoint's number [default: the last one before the run's end]
    #[arg(long, value_name = "NUMBER")]
    at: Option<u64>,
    /// Channels to change first, as a JSON object
    #[arg(long, value_name = "JSON")]
    values: Option<String>,
    /// The node in whose name they are changed: what follows it goes on
    #[arg(long, value_name = "NODE")]
    as_node: Option<String>,
}

impl Fork {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let mut body = json!({});
        if let Some(at) = self.at {
            body["at"] = at.into();
        }
        if let Some(values) = &self.values {
            let wrong = |e| CliError::Usage(format!("--values is no JSON: {e}"));
            body["values"] = serde_json::from_str(values).map_err(wrong)?;
        }
        if let Some(node) = self.as_node {
            body["as_node"] = node.into();
        }
        let path = format!("/api/runs/{}/fork", part(&self.run));
        let run = connection.post(&path, &body).await?;
        if terminal.json() {
            return terminal.value(&run);
        }
        terminal.line(run["id"].as_str().unwrap_or_default())
    }
}

/// Move a run that waits to its graph as it is now.
#[derive(Args)]
pub(super) struct Migrate {
    /// The run's id
    run: String,
    /// Only say what would stand in the way
    #[arg(long)]
    dry_run: bool,
}

impl Migrate {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let path = format!("/api/runs/{}/migrate", part(&self.run));
        let tried = connection.post(&path, &json!({ "dry_run": true })).await?;
        let tried_view: MigrationView = view(&tried)?;
        let fits = tried_view.ok;
        if fits && !self.dry_run {
            let done = connection.post(&path, &json!({})).await?;
            return if terminal.json() { terminal.value(&done) } else { terminal.line("moved") };
        }
        if terminal.json() {
            terminal.value(&tried)?;
        } else if fits {
            terminal.line("it fits the graph as it is now")?;
        }
        if !terminal.json() {
            for problem in tried_view.problems {
                let path = match problem.path.as_str() {
                    "" => String::new(),
                    path => format!("{path}: "),
                };
                terminal.line(&format!("{path}{}", problem.message))?;
            }
        }
        if fits { Ok(()) } else { Err(CliError::Shown) }
    }
}
