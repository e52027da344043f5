//! `current_time`: what a model cannot know by itself.

use async_trait::async_trait;
use exile_engine::tool::{Effect, Tool, ToolCx, ToolError, ToolErrorKind};
use jiff::Unit;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The tool.
pub(super) struct CurrentTime {
    /// Used when no zone is asked for.
    timezone: TimeZone,
}

impl CurrentTime {
    /// Answers in `timezone` unless asked otherwise.
    pub(super) fn new(timezone: TimeZone) -> Self {
        Self { timezone }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// IANA name, e.g. `Asia/Shanghai` or `Europe/Paris`; without it, the installation's zone.
    #[serde(default)]
    timezone: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Output {
    /// ISO 8601 to the second, with the offset from UTC.
    time: String,
    /// In English.
    weekday: String,
    /// IANA name, or the offset of a zone without one.
    timezone: String,
}

#[async_trait]
impl Tool for CurrentTime {
    type Args = Args;
    type Output = Output;
    const NAME: &'static str = "current_time";
    const DESCRIPTION: &'static str =
        "Tells the current date, time and weekday in a time zone, by default the user's own.";
    // A clock gives another answer each time, yet reading it changes nothing.
    const EFFECT: Effect = Effect::Pure;
    const TAINTS: bool = false;

    async fn call(&self, cx: &ToolCx, args: Args) -> Result<Output, ToolError> {
        let timezone = match args.timezone.as_deref() {
            None | Some("") => self.timezone.clone(),
            Some(name) => TimeZone::get(name).map_err(|_| {
                let message = format!(
                    "`{name}` is no IANA time zone; write one such as Asia/Shanghai or UTC"
                );
                ToolError::new(ToolErrorKind::InvalidArgs, message)
            })?,
        };
        let now = cx.env.now().to_zoned(timezone);
        let now = now
            .round(Unit::Second)
            .map_err(|e| ToolError::new(ToolErrorKind::Internal, e.to_string()))?;
        let offset = now.offset();
        let timezone =
            now.time_zone().iana_name().map_or_else(|| offset.to_string(), str::to_owned);
        Ok(Output {
            time: now.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            weekday: now.strftime("%A").to_string(),
            timezone,
        })
    }
}
