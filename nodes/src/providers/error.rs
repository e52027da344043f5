//! What a refused or failed call means: status, headers and body become one [`ProviderFault`].
//!
//! The same for every protocol. Bodies are parsed by content, never by their type header (wire fact 18): an object, an array
//! of one (wire fact 22), a bare string, or a page of HTML.

use std::time::Duration;

use exile_engine::http::HttpError;
use exile_engine::limits::AnswerLimits;
use exile_engine::model::ProviderFault;
use jiff::Timestamp;
use serde_json::Value;

/// An answer with a status other than 2xx.
pub(crate) struct Refusal<'a> {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: &'a [(String, String)],
    /// As received, cut to a bounded length by the reader.
    pub body: &'a [u8],
    /// The variable that holds the key.
    pub key_variable: &'a str,
    /// For a Retry-After that is a date.
    pub now: Timestamp,
}

impl Refusal<'_> {
    /// What it means.
    pub(crate) fn fault(&self) -> ProviderFault {
        let text = String::from_utf8_lossy(self.body);
        let json = serde_json::from_str(text.trim()).unwrap_or(Value::Null);
        let said = Said::read(&json, &text);
        let variable = self.key_variable.to_owned();
        let detail = said.detail.clone();
        match self.status {
            _ if said.is_too_long() => ProviderFault::ContextTooLong { detail },
            401 | 403 => ProviderFault::Unauthorized { variable, detail },
            400 if said.is_bad_key() => ProviderFault::Unauthorized { variable, detail },
            402 => ProviderFault::NoBalance { detail },
            400 | 429 if said.is_out_of_balance() => ProviderFault::NoBalance { detail },
            429 => ProviderFault::RateLimited {
                retry_after_ms: self.retry_after().or(said.retry_delay).map(millis),
                detail,
            },
            400 | 404 | 422 if said.is_unknown_model() => ProviderFault::ModelUnknown { detail },
            408 | 425 | 500.. => ProviderFault::Unavailable { status: self.status, detail },
            status => ProviderFault::BadRequest { status, detail },
        }
    }

    /// `retry-after-ms`, or `retry-after` in seconds or as a date (wire fact 13).
    fn retry_after(&self) -> Option<Duration> {
        let header =
            |name: &str| self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.trim());
        let seconds =
            |text: &str| text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        if let Some(wait) = header("retry-after-ms").and_then(seconds) {
            return Some(wait / 1000);
        }
        let text = header("retry-after")?;
        seconds(text).or_else(|| {
            let until = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
            Some(Duration::try_from(until.duration_since(self.now)).unwrap_or(Duration::ZERO))
        })
    }
}

/// An error inside an answer of status 200 (wire fact 4); `None` if there is none. Its code, if
/// it is a number, is the status that it would have had.
pub(crate) fn inside_answer(chunk: &Value) -> Option<ProviderFault> {
    let error = chunk.get("error").or_else(|| chunk.get(0)?.get("error"))?;
    if error.is_null() {
        return None;
    }
    let said = Said::read(chunk, "");
    let code = error["code"].as_u64().and_then(|c| u16::try_from(c).ok());
    let detail = said.detail.clone();
    Some(match code.or(said.status()) {
        _ if said.is_too_long() => ProviderFault::ContextTooLong { detail },
        _ if said.is_out_of_balance() => ProviderFault::NoBalance { detail },
        Some(429) => {
            ProviderFault::RateLimited { retry_after_ms: said.retry_delay.map(millis), detail }
        }
        Some(402) => ProviderFault::NoBalance { detail },
        Some(400 | 404 | 422) if said.is_unknown_model() => ProviderFault::ModelUnknown { detail },
        Some(status @ 400..500) => ProviderFault::BadRequest { status, detail },
        _ => ProviderFault::Unavailable { status: 200, detail },
    })
}

/// What a failure on the way means. `answering`: the head of the answer had come.
pub(crate) fn transport(error: HttpError, answering: bool) -> ProviderFault {
    match error {
        HttpError::Timeout { phase, after } => timeout(phase, after),
        HttpError::Broken(detail) if answering => ProviderFault::Truncated { detail },
        HttpError::Broken(detail) => {
            ProviderFault::Truncated { detail: format!("no answer came: {detail}") }
        }
        // None of these has reached the provider.
        HttpError::Connect { host, why } => {
            ProviderFault::Connect { detail: format!("{host}: {why}") }
        }
        error @ (HttpError::Denied { .. } | HttpError::Invalid(_)) => {
            ProviderFault::Connect { detail: error.to_string() }
        }
    }
}

/// A wait that had its end. `phase`: `first byte`, `idle` or `total`.
pub(crate) fn timeout(phase: &str, after: Duration) -> ProviderFault {
    ProviderFault::Timeout { phase: phase.to_owned(), after_ms: millis(after) }
}

/// An answer that is not of the protocol.
pub(crate) fn garbage(what: impl std::fmt::Display) -> ProviderFault {
    ProviderFault::Garbage { detail: what.to_string() }
}

/// An answer that holds more than it may.
pub(crate) fn too_long(limits: AnswerLimits) -> ProviderFault {
    garbage(format!("longer than {} bytes, which `limits.answer` admits", limits.bytes))
}

/// An answer in more pieces than it may come in.
pub(crate) fn too_many_pieces(limits: AnswerLimits) -> ProviderFault {
    garbage(format!("more than {} pieces, which `limits.answer_pieces` admits", limits.pieces))
}

/// What a provider said about an error.
struct Said {
    /// Its words, whole: they are cut after our secrets were taken out of them.
    detail: String,
    /// Its code, type, status and reasons, in lower case.
    codes: Vec<String>,
    /// Its words in lower case.
    words: String,
    /// `details[].retryDelay` (wire fact 22).
    retry_delay: Option<Duration>,
}

impl Said {
    fn read(json: &Value, text: &str) -> Self {
        let json = json.get(0).unwrap_or(json);
        let error = match &json["error"] {
            Value::Null => json,
            error => error,
        };
        let words = [&error["message"], error, &json["message"], &json["detail"]]
            .into_iter()
            .find_map(Value::as_str)
            .map_or_else(
                || if json.is_null() { text.to_owned() } else { error.to_string() },
                str::to_owned,
            );
        let details = || error["details"].as_array().into_iter().flatten();
        let codes = [&error["code"], &error["type"], &error["status"]]
            .into_iter()
            .chain(details().map(|d| &d["reason"]))
            .filter_map(|v| v.as_str().map(str::to_ascii_lowercase))
            .collect();
        let retry_delay = details()
            .find_map(|d| d["retryDelay"].as_str()?.strip_suffix('s')?.parse().ok())
            .and_then(|s| Duration::try_from_secs_f64(s).ok());
        let lower = words.to_lowercase();
        let detail = match error["metadata"]["raw"].as_str() {
            // What an aggregator was told by the provider behind it.
            Some(raw) => format!("{words} ({raw})"),
            None if words.trim().is_empty() => "no reason given".to_owned(),
            None => words,
        };
        Self { detail, codes, words: lower, retry_delay }
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        self.codes.iter().any(|c| codes.contains(&c.as_str()))
    }

    /// The status that an error inside an answer would have had, by its type.
    fn status(&self) -> Option<u16> {
        let statuses = [
            ("invalid_request_error", 400),
            ("not_found_error", 404),
            ("billing_error", 402),
            ("request_too_large", 413),
            ("rate_limit_error", 429),
            ("rate_limit_exceeded", 429),
            ("resource_exhausted", 429),
        ];
        statuses.iter().find(|(code, _)| self.has_code(&[code])).map(|(_, status)| *status)
    }

    /// There is no common code (wire fact 27).
    fn is_too_long(&self) -> bool {
        let phrases = [
            "maximum context length",
            "context length exceeded",
            "exceeds the context",
            "exceed context size",
            "exceeds the available context size",
            "input token count exceeds",
            "prompt is too long",
            "too many tokens",
            "context window",
        ];
        self.has_code(&["context_length_exceeded", "exceed_context_size_error"])
            || phrases.iter().any(|p| self.words.contains(p))
            || (self.words.contains("input token count") && self.words.contains("exceeds"))
    }

    fn is_bad_key(&self) -> bool {
        self.has_code(&["api_key_invalid", "invalid_api_key", "authentication_error"])
            || self.words.contains("api key not valid")
            || self.words.contains("incorrect api key")
    }

    fn is_out_of_balance(&self) -> bool {
        let codes = ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"];
        // A spend limit comes as a 429 that names no time (wire fact 25).
        let phrases =
            ["insufficient balance", "credit balance is too low", "spend limit", "usage limits"];
        self.has_code(&codes) || phrases.iter().any(|p| self.words.contains(p))
    }

    fn is_unknown_model(&self) -> bool {
        let missing =
            ["not exist", "not found", "unknown model", "unsupported model", "invalid model"];
        self.has_code(&["model_not_found", "unknown_model"])
            || (self.has_code(&["not_found_error"]) && self.words.starts_with("model:"))
            || (self.words.contains("model") && missing.iter().any(|m| self.words.contains(m)))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
