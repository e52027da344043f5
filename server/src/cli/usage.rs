//! `exile usage`: what was asked of models and what it cost.

use clap::Args;
use serde_json::Value;

use super::connection::{Connection, part};
use super::error::CliError;
use super::terminal::Terminal;

/// Print what was asked of models, and what it cost
#[derive(Args)]
pub(super) struct Usage {
    /// Put together by any of user, key, provider, model, business, graph, run; commas in between
    #[arg(long, default_value = "model")]
    by: String,
    /// In steps of time: minute, hour, day or month
    #[arg(long)]
    every: Option<String>,
    /// From that day or time on [default: the first of this month]
    #[arg(long)]
    from: Option<String>,
    /// Before that day or time [default: now]
    #[arg(long)]
    to: Option<String>,
    /// Of this user alone
    #[arg(long)]
    user: Option<String>,
    /// Of these models alone: provider/model, or the beginning of such names and a `*`
    #[arg(long)]
    model: Option<String>,
}

impl Usage {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let given = [
            ("every", &self.every),
            ("from", &self.from),
            ("to", &self.to),
            ("user", &self.user),
            ("model", &self.model),
        ];
        let mut path = format!("/api/usage?by={}", part(&self.by));
        for (name, value) in given {
            if let Some(value) = value {
                path = format!("{path}&{name}={}", part(value));
            }
        }
        let mut answer = connection.get(&path).await?;
        while let Some(next) = answer["next"].as_str().map(str::to_owned) {
            let mut more = connection.get(&format!("{path}&after={}", part(&next))).await?;
            if let Some(items) = answer["items"].as_array_mut() {
                items.append(more["items"].as_array_mut().unwrap_or(&mut Vec::new()));
            }
            answer["next"] = more["next"].take();
        }
        let by: Vec<&str> = self.by.split(',').map(str::trim).collect();
        let mut headings: Vec<String> = by.iter().map(|name| name.to_uppercase()).collect();
        if self.every.is_some() {
            headings.insert(0, "FROM".to_owned());
        }
        headings.extend(FIGURES.iter().map(|(_, heading)| (*heading).to_owned()));
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows = items.iter().map(|item| row(item, &by, self.every.is_some())).collect();
        terminal.table(&headings, rows, &answer)
    }
}

/// Columns, each with its heading.
const FIGURES: [(&str, &str); 9] = [
    ("requests", "REQUESTS"),
    ("calls", "CALLS"),
    ("errors", "ERRORS"),
    ("input_tokens", "INPUT"),
    ("cached_tokens", "CACHED"),
    ("output_tokens", "OUTPUT"),
    ("cost", "COST"),
    ("latency_ms", "MS"),
    ("first_token_ms", "FIRST MS"),
];

fn row(item: &Value, by: &[&str], timed: bool) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut row: Vec<String> = by.iter().map(|name| text(&item[name])).collect();
    if timed {
        row.insert(0, text(&item["from"]));
    }
    row.extend(FIGURES.iter().map(|(name, _)| match &item[name] {
        Value::Null => "-".to_owned(),
        cost if *name == "cost" => format!("{cost} {}", item["currency"].as_str().unwrap_or("")),
        figure => figure.to_string(),
    }));
    row
}
