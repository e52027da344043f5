//! Error bodies as providers send them.

use super::*;

fn fault(status: u16, headers: &[(&str, &str)], body: &str) -> ProviderFault {
    let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let body = body.as_bytes();
    Refusal { status, headers: &headers, body, key_variable: "X_API_KEY", now }.fault()
}

fn check(status: u16, body: &str, code: &str, detail: &str) {
    let fault = fault(status, &[], body);
    assert_eq!(fault.code(), code, "{status} {body}");
    assert!(fault.to_string().contains(detail), "{fault} lacks {detail}");
}

#[test]
fn classes_follow_status_and_code() {
    let unknown =
        r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#;
    check(404, unknown, "provider_model_unknown", "does not exist");
    check(401, "no key", "provider_unauthorized", "X_API_KEY");
    check(403, "{}", "provider_unauthorized", "X_API_KEY");
    check(402, r#"{"error":{"message":"Insufficient Balance"}}"#, "provider_no_balance", "Balance");
    check(500, "<html><body>oops</body></html>", "provider_unavailable", "oops");
    check(503, "", "provider_unavailable", "no reason given");
    check(408, "", "provider_unavailable", "408");
    check(400, r#"{"error":"bad thing"}"#, "provider_refused_request", "bad thing");
    check(404, "404 page not found", "provider_refused_request", "page");
    check(422, r#"{"detail":[{"loc":["body"]}]}"#, "provider_refused_request", "loc");
}

#[test]
fn fact_13_quota_is_not_a_rate_and_plain_text_is_read() {
    let body = r#"{"error":{"message":"You exceeded your quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    check(429, body, "provider_no_balance", "quota");
    assert_eq!(fault(429, &[], body).retry(), exile_engine::model::Retry::Never);
    check(401, "Unauthorized: bad token", "provider_unauthorized", "bad token");
    check(429, "slow down", "provider_rate_limited", "slow down");
}

#[test]
fn fact_18_bodies_are_parsed_by_content() {
    let headers = [("content-type", "application/octet-stream")];
    let body = r#"{"error":{"message":"Model Not Exist","code":"invalid_request_error"}}"#;
    assert_eq!(fault(400, &headers, body).code(), "provider_model_unknown");
}

#[test]
fn fact_22_an_array_holds_the_error_and_the_delay() {
    let body = r#"[{"error":{"code":429,"message":"Resource exhausted","status":"RESOURCE_EXHAUSTED",
        "details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.4s"}]}}]"#;
    let ProviderFault::RateLimited { retry_after_ms, detail } = fault(429, &[], body) else {
        panic!("not a rate limit");
    };
    assert_eq!((retry_after_ms, detail.as_str()), (Some(34_400), "Resource exhausted"));
    let key =
        r#"[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT"}}]"#;
    check(400, key, "provider_unauthorized", "not valid");
}

#[test]
fn retry_after_in_all_its_forms() {
    for (headers, expected) in [
        (vec![("retry-after-ms", "1500")], Some(1500)),
        (vec![("retry-after", "2")], Some(2000)),
        (vec![("retry-after", "0.5")], Some(500)),
        (vec![("retry-after", "Sun, 22 Nov 2026 12:00:30 GMT")], Some(30_000)),
        (vec![("retry-after", "Sun, 22 Nov 2026 11:00:00 GMT")], Some(0)),
        (vec![("retry-after", "-3")], None),
        (vec![("retry-after", "soon")], None),
        (vec![], None),
    ] {
        let ProviderFault::RateLimited { retry_after_ms, .. } = fault(429, &headers, "") else {
            panic!("not a rate limit");
        };
        assert_eq!(retry_after_ms, expected, "{headers:?}");
    }
}

#[test]
fn fact_27_a_long_context_has_many_names() {
    let openai = r#"{"error":{"message":"This model's maximum context length is 8192 tokens","code":"context_length_exceeded"}}"#;
    check(400, openai, "context_too_long", "8192");
    let llama = r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#;
    check(400, llama, "context_too_long", "context size");
    let gemini = r#"[{"error":{"code":400,"message":"The input token count (2000000) exceeds the maximum"}}]"#;
    check(400, gemini, "context_too_long", "2000000");
}

#[test]
fn fact_04_an_error_inside_an_answer() {
    let read = |text: &str| inside_answer(&serde_json::from_str(text).unwrap());
    assert_eq!(read(r#"{"choices":[],"error":null}"#), None);
    let code = |text: &str| read(text).unwrap().code();
    assert_eq!(code(r#"{"error":{"message":"overloaded"}}"#), "provider_unavailable");
    assert_eq!(code(r#"{"error":"overloaded"}"#), "provider_unavailable");
    assert_eq!(code(r#"[{"error":{"code":429,"message":"x"}}]"#), "provider_rate_limited");
    assert_eq!(code(r#"{"error":{"code":402,"message":"x"}}"#), "provider_no_balance");
}
