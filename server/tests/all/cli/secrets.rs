//! A key is seen by its provider alone: canaries are planted and everything is searched.

use super::installation::Installation;
use super::otlp::Collector;
use super::upstream::{Say, Upstream};

/// A key as it is usually given, and one in a header.
const CANARIES: [&str; 2] = ["sk-canary-3f9a71c2", "hk-canary-b81e04d7"];

/// The worst provider: it echoes its key in its errors.
fn echoes(status: u16, key: &str) -> Upstream {
    let body = format!("{{\"error\": {{\"message\": \"bad key {key}\"}}}}");
    Upstream::start(move |_| Say::Plain(status, body.clone()))
}

#[test]
fn a_key_reaches_its_provider_and_nothing_else() {
    let (first, second) = (echoes(401, CANARIES[0]), echoes(503, CANARIES[1]));
    let collector = Collector::start();
    let config = format!(
        "models: {{ default: {{ development: lab/m, fallback: [shop/m] }} }}\n\
         providers:\n  lab: {{ base_url: {}/v1, api_key: \"${{LAB_KEY}}\" }}\n  \
         shop: {{ base_url: {}/v1, headers: {{ api-key: \"${{SHOP_KEY}}\" }}, retries: 1 }}\n",
        first.url, second.url
    );
    let place = Installation::bare()
        .with("exile.yaml", &config)
        .set("LAB_KEY", CANARIES[0])
        .set("SHOP_KEY", CANARIES[1])
        .set("EXILE_LOG", "trace")
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", "{}").json();
    let path = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let failed = server.ask("POST", &path, r#"{"content": "hello"}"#);
    assert!(failed.status >= 400, "{failed:?}");
    let run = failed.json()["run"].as_str().unwrap().to_owned();
    let events = server.ask("GET", &format!("/api/runs/{run}/events"), "").body;
    assert_eq!(events.matches("\"streamed\"").count(), 3, "each attempt is told: {events}");
    let models = server.ask("GET", "/api/models", "").body;
    let probed = server.ask("POST", "/api/models/probe", r#"{"model": "shop/m"}"#).body;
    assert!(probed.contains("bad key"), "{probed}");
    let doctor = place.run(&["doctor"]);
    let trace = place.run(&["trace", &run]);
    let ended = server.terminate();

    for (upstream, canary) in [(&first, CANARIES[0]), (&second, CANARIES[1])] {
        let asked = upstream.all();
        assert!(asked[0].head.contains(canary), "the provider is given its key: {asked:?}");
    }
    let mut seen: Vec<(String, Vec<u8>)> = vec![
        ("the answer".into(), failed.body.into_bytes()),
        ("the events".into(), events.into_bytes()),
        ("the models".into(), models.into_bytes()),
        ("the probe".into(), probed.into_bytes()),
        ("standard output".into(), ended.out.into_bytes()),
        ("the log".into(), ended.err.into_bytes()),
        ("doctor".into(), format!("{}{}", doctor.out, doctor.err).into_bytes()),
        ("trace".into(), format!("{}{}", trace.out, trace.err).into_bytes()),
    ];
    seen.extend(collector.exports().into_iter().map(|e| ("a span".into(), e.bytes)));
    let files = place.home_files().into_iter();
    seen.extend(files.map(|(path, bytes)| (path.display().to_string(), bytes)));
    assert!(seen.len() > 10, "there is something to search");
    for (place, bytes) in seen {
        for canary in CANARIES {
            let found = bytes.windows(canary.len()).any(|part| part == canary.as_bytes());
            assert!(!found, "a key stands in {place}: {}", String::from_utf8_lossy(&bytes));
        }
    }
}
