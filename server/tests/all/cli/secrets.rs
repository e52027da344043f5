//! A key is seen by its provider alone: a canary is planted and everything is searched.

use super::installation::Installation;
use super::otlp::Collector;
use super::upstream::{Say, Upstream};

const CANARY: &str = "sk-canary-3f9a71c2";

#[test]
fn a_key_reaches_its_provider_and_nothing_else() {
    // The worst provider: it echoes the key in its error.
    let body = format!("{{\"error\": {{\"message\": \"bad key {CANARY}\"}}}}");
    let upstream = Upstream::start(move |_| Say::Plain(401, body.clone()));
    let collector = Collector::start();
    let config = format!(
        "models: {{ default: lab/m }}\n\
         providers: {{ lab: {{ base_url: {}/v1, api_key: \"${{LAB_KEY}}\" }} }}\n",
        upstream.url
    );
    let place = Installation::bare()
        .with("exile.yaml", &config)
        .set("LAB_KEY", CANARY)
        .set("EXILE_LOG", "trace")
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", "{}").json();
    let path = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let failed = server.ask("POST", &path, r#"{"content": "hello"}"#);
    assert!(failed.status >= 400, "{failed:?}");
    let doctor = place.run(&["doctor"]);
    let ended = server.terminate();

    let asked = upstream.all();
    assert!(asked[0].head.contains(CANARY), "the provider is given its key: {asked:?}");
    let mut seen: Vec<(String, Vec<u8>)> = vec![
        ("the answer".into(), failed.body.into_bytes()),
        ("standard output".into(), ended.out.into_bytes()),
        ("the log".into(), ended.err.into_bytes()),
        ("doctor".into(), format!("{}{}", doctor.out, doctor.err).into_bytes()),
    ];
    seen.extend(collector.exports().into_iter().map(|e| ("a span".into(), e.bytes)));
    let files = place.home_files().into_iter();
    seen.extend(files.map(|(path, bytes)| (path.display().to_string(), bytes)));
    assert!(seen.len() > 6, "there is something to search");
    for (place, bytes) in seen {
        let found = bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes());
        assert!(!found, "the key stands in {place}: {}", String::from_utf8_lossy(&bytes));
    }
}
