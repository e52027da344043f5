//! What a problem says to programs and people: code, remedy, and members of its own.
//!
//! Invariant: no wildcard arm where every problem needs an answer: a new problem must choose.

use std::borrow::Cow;
use std::time::Duration;

use exile_engine::id::RunId;
use exile_engine::model::meter::Exceeded;
use exile_engine::model::{ProviderError, ProviderFault, Retry};
use serde_json::{Map, Value, json};

use super::status::{store, tool};
use super::{INTERNAL, Problem, REPORT, UNNAMED};

impl Problem {
    /// Stable, for programs.
    pub(crate) fn code(&self) -> Cow<'_, str> {
        let code = match self {
            Self::Malformed(_) => "malformed_json",
            Self::TooDeep { .. } => "json_too_deep",
            Self::TooMany { .. } => "json_too_many_values",
            Self::Number { .. } => "number_too_long",
            Self::Nul(_) => "nul_in_text",
            Self::Unreadable(_) => "malformed_request",
            Self::BodyTimeout(_) => "body_timeout",
            Self::TooLarge { .. } => "body_too_large",
            Self::Overloaded { .. } => "overloaded",
            Self::MediaType(_) => "unsupported_media_type",
            Self::Field { .. } => "invalid_field",
            Self::UnknownName { what, .. } => return format!("unknown_{what}").into(),
            Self::GraphBroken { .. } => "graph_broken",
            Self::NotConversational(_) => "not_conversational",
            Self::Input(_) => "invalid_input",
            Self::UnknownChannel { .. } => "unknown_channel",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Business { .. } => "business_not_yours",
            Self::TooManyAttempts(_) => "too_many_attempts",
            Self::Insecure => "insecure_origin",
            Self::Origin => "foreign_origin",
            Self::NotFound => "not_found",
            Self::Method => "method_not_allowed",
            Self::NameTaken(_) => "name_taken",
            Self::RunActive => "run_active",
            Self::RunsActive => "runs_active",
            Self::LastAdmin => "last_admin",
            Self::UserDisabled(_) => "user_disabled",
            Self::Run(conflict) => conflict.code(),
            Self::Undecided(_) => "run_undecided",
            Self::InFlight => "idempotency_in_flight",
            Self::KeyReused => "idempotency_key_reused",
            Self::SecretShown => "secret_shown_once",
            Self::AnswerNotKept { .. } => "idempotency_answer_not_kept",
            Self::RunFailed { error, .. } => &error.code,
            Self::RunCancelled(_) => "run_cancelled",
            Self::Tool(error) => tool(error.kind).1,
            Self::Parameter { code, .. } => code.unwrap_or(UNNAMED),
            Self::NoModel(_) => "model_not_found",
            Self::Model(error) => error.fault.code(),
            Self::Quota(_) => "quota_exceeded",
            Self::InFile(_) => "in_file",
            Self::RunWaits(_) => "run_waiting",
            Self::TakenBack(_) => "answer_taken_back",
            Self::NotReady(_) => "not_ready",
            Self::Store(error) => store(error).1,
            Self::Internal(_) => INTERNAL,
        };
        code.into()
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> Cow<'static, str> {
        let remedy = match self {
            Self::Malformed(_) => {
                "send one JSON value in UTF-8, without lone surrogates such as \\ud800"
            }
            Self::TooDeep { .. } => {
                "send flatter JSON; `limits.nesting` in exile.yaml says how deep"
            }
            Self::TooMany { .. } => {
                "send fewer values at once; `limits.values` in exile.yaml says how many"
            }
            Self::Number { .. } => "write it as a string",
            Self::Nul(_) => "take the NUL characters out of the text",
            Self::Unreadable(_) => "see /api/docs for the parameters of this path",
            Self::BodyTimeout(_) => "send it again over a better connection",
            Self::TooLarge { .. } => {
                "send less at once; `limits.body` and `limits.small_body` in exile.yaml say how much"
            }
            Self::Overloaded { .. } => {
                "come back after `Retry-After`; `limits.bodies` in exile.yaml says how much is held"
            }
            Self::MediaType(_) => "send `Content-Type: application/json` (curl: --json)",
            Self::Field { .. } => "see /api/docs for the fields of this body",
            Self::UnknownName { .. } => "use the name of one that exists",
            Self::GraphBroken { graph, .. } => {
                let all = format!("GET /api/graphs/{graph} lists every finding");
                return format!("correct the file; {all}").into();
            }
            Self::NotConversational(_) => {
                "declare `messages: { reduce: messages }` and list it in `input`, or use /api/runs"
            }
            Self::Input(_) => "GET /api/graphs/{name} shows the graph's channels and their types",
            Self::UnknownChannel { under: "input", .. } => {
                "set only channels that the graph lists under `input`"
            }
            Self::UnknownChannel { .. } => "set only channels that the graph declares",
            Self::Unauthorized(_) => {
                "send `Authorization: Bearer KEY`; `exile key create` makes a key, the one in \
                 <home>/local.key works on this machine"
            }
            Self::Forbidden(_) => "ask an administrator",
            Self::Business { .. } => {
                "name one that you are bound to, or have an administrator bind you: \
                 `exile user businesses`, or `exile key create --business`"
            }
            Self::TooManyAttempts(_) => "wait as long as Retry-After says",
            Self::Insecure => {
                "reach exile by https (`public_url` in exile.yaml), or through a tunnel at 127.0.0.1"
            }
            Self::Origin => "send it from a page of this server, or use a key",
            Self::NotFound => "check the name or id; /api/docs lists every path",
            Self::Method => "the Allow header and /api/docs list the methods of this path",
            Self::NameTaken(_) => "choose another name",
            Self::RunActive => "wait for it, or POST /api/runs/{id}/cancel first",
            Self::RunsActive => {
                "wait for it, or cancel it: GET /api/runs?owner=NAME lists the user's runs"
            }
            Self::LastAdmin => "give another user the role admin first",
            Self::UserDisabled(_) => "enable the user first: PATCH /api/users/{id}",
            Self::Run(conflict) => return conflict.remedy(),
            Self::Undecided(run) => {
                return format!(
                    "it will be decided: GET /api/runs/{run} shows what came of it, and the same \
                     request with the same Idempotency-Key is answered with that"
                )
                .into();
            }
            Self::InFlight => "wait, then send the same request again to get its answer",
            Self::KeyReused => "use a new Idempotency-Key for a new request",
            Self::SecretShown => "if it is lost, revoke it and create another under a new key",
            Self::AnswerNotKept { run: Some(run) } => {
                return format!("GET /api/runs/{run}/state has what the run came to").into();
            }
            Self::AnswerNotKept { run: None } => {
                "what it asked for was done; use a new key to ask once more, or have an \
                 administrator raise `limits.kept_answer` in exile.yaml"
            }
            Self::RunFailed { run, .. } | Self::RunCancelled(run) => {
                return format!("GET /api/runs/{run}/events shows what happened").into();
            }
            Self::Parameter { .. } => "correct the field",
            Self::NoModel(_) => "GET /v1/models lists what there is",
            _ if self.exceeded().is_some() => {
                "wait, or have an administrator raise it: `quotas` in exile.yaml, or /api/quotas"
            }
            Self::Model(_) | Self::Quota(_) => "GET /api/models shows which models can be asked",
            Self::InFile(_) => "change it there; the server reads it when it starts",
            Self::RunWaits(run) => {
                return format!("POST /api/runs/{run}/resume takes the answer").into();
            }
            Self::TakenBack(run) => {
                return format!("GET /api/runs/{run}/state has the whole answer once it has ended")
                    .into();
            }
            Self::Tool(_) => "GET /api/tools shows what each tool takes",
            Self::NotReady(_) => "`exile doctor` says what to do about each reason",
            Self::Store(error) => store(error).2,
            Self::Internal(_) => REPORT,
        };
        remedy.into()
    }

    /// Members besides the common ones.
    pub(crate) fn extra(&self) -> Map<String, Value> {
        let extra = match self {
            Self::Parameter { param, .. } => json!({ "field": param }),
            Self::Quota(exceeded) => json!({ "quota": exceeded }),
            Self::Model(ProviderError {
                fault: ProviderFault::QuotaExceeded(exceeded),
                provider,
                model,
            }) => json!({ "quota": exceeded, "provider": provider, "model": model }),
            Self::Model(error) => {
                let field = match error.fault {
                    ProviderFault::ContextTooLong { .. } => Some("messages"),
                    ProviderFault::Incapable { .. } | ProviderFault::ModelUnknown { .. } => {
                        Some("model")
                    }
                    _ => None,
                };
                json!({ "field": field, "provider": error.provider, "model": error.model })
            }
            Self::Field { field, .. } if !field.is_empty() => json!({ "field": field }),
            Self::UnknownName { what: what @ ("graph" | "skill" | "model"), .. } => {
                json!({ "field": what })
            }
            Self::UnknownChannel { under, channel, .. } => {
                json!({ "field": format!("{under}.{channel}") })
            }
            Self::RunFailed { run, error } => match at_fault(&error.code) {
                Some(field) => json!({ "field": field, "run": run, "error": error }),
                None => json!({ "run": run, "error": error }),
            },
            Self::RunCancelled(run) | Self::RunWaits(run) | Self::TakenBack(run) => {
                json!({ "run": run })
            }
            Self::Run(conflict) => conflict.extra(),
            Self::NotReady(reasons) => json!({ "reasons": reasons }),
            Self::Tool(error) => json!({ "error": error }),
            _ => Value::Null,
        };
        match extra {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// The quota that is used up, if one is.
    pub(crate) fn exceeded(&self) -> Option<&Exceeded> {
        match self {
            Self::Quota(exceeded)
            | Self::Model(ProviderError {
                fault: ProviderFault::QuotaExceeded(exceeded), ..
            }) => Some(exceeded),
            _ => None,
        }
    }

    /// When it may be tried again, where that is known.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Some(exceeded) = self.exceeded() {
            return Some(Duration::from_millis(exceeded.retry_after_ms));
        }
        match self {
            Self::Overloaded { retry_after } | Self::TooManyAttempts(retry_after) => {
                Some(*retry_after)
            }
            Self::Model(ProviderError { fault, .. }) => match fault.retry() {
                Retry::After(pause) => Some(pause),
                Retry::Never | Retry::Backoff => None,
            },
            _ => None,
        }
    }

    /// The run that the problem is about.
    pub(crate) fn run(&self) -> Option<&RunId> {
        match self {
            Self::RunFailed { run, .. }
            | Self::RunCancelled(run)
            | Self::RunWaits(run)
            | Self::TakenBack(run)
            | Self::AnswerNotKept { run: Some(run) } => Some(run),
            _ => None,
        }
    }
}

/// The field of a message that a run failed for.
fn at_fault(code: &str) -> Option<&'static str> {
    match code {
        "context_too_long" => Some("content"),
        "model_incapable" => Some("model"),
        _ => None,
    }
}
