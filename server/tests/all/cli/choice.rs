//! Which model answers, through the binary: fallback, the catalogue, and proving it.

use serde_json::{Value, json};

use super::installation::Installation;
use super::otlp::{Collector, spans};
use super::upstream::{Asked, Say, Upstream};

fn config(first: &Upstream, second: &Upstream, more: &str) -> String {
    format!(
        "models:\n  default: {{ development: first/m, fallback: [second/m] }}\n\
         providers:\n  first: {{ base_url: {}/v1, retries: 0 }}\n  \
         second: {{ base_url: {}/v1, retries: 0 }}\n{more}",
        first.url, second.url
    )
}

#[test]
fn a_fallback_answers_and_every_attempt_is_in_the_run_and_in_its_trace() {
    let down = Upstream::start(|_| Say::Plain(503, r#"{"error":{"message":"down"}}"#.into()));
    let up = Upstream::start(|_| Say::Text("here"));
    let collector = Collector::start();
    let place = Installation::bare()
        .with("exile.yaml", &config(&down, &up, ""))
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", r#"{"graph": "chat"}"#).json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let answer = server.ask("POST", &messages, r#"{"content": "hi"}"#);
    assert_eq!(answer.json()["message"]["content"], "here", "{answer:?}");
    assert_eq!(answer.json()["message"]["model"], "second/m");
    assert_eq!((down.count("hi"), up.count("hi")), (1, 1));

    let run = answer.json()["run"]["id"].as_str().unwrap().to_owned();
    let events = server.ask("GET", &format!("/api/runs/{run}/events"), "").json();
    let finished = |e: &&Value| e["name"] == "model.finished";
    let told = events["items"].as_array().unwrap().iter().find(finished).unwrap();
    let attempt = &told["data"]["attempts"][0];
    assert_eq!(
        (&attempt["model"], &attempt["error"]["code"]),
        (&json!("first/m"), &json!("provider_unavailable")),
        "{told}"
    );
    let doctor = place.run(&["doctor", "--offline"]);
    assert!(doctor.out.contains("default = first/m, then second/m"), "{doctor:?}");
    let trace = place.run(&["trace", &run]);
    let attempt = trace.out.lines().find(|line| line.contains("attempt")).unwrap();
    assert!(attempt.contains("first/m") && attempt.contains("provider_unavailable"), "{trace:?}");
    assert_eq!(server.terminate().code, 0);
    let (spans, _) = spans(&collector.exports());
    let mut chats: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "chat m")
        .map(|span| (span.get("gen_ai.provider.name"), span.get("error.type")))
        .collect();
    chats.sort_unstable();
    assert_eq!(chats, [(Some("first"), Some("provider_unavailable")), (Some("second"), None),]);
}

#[test]
fn an_operator_says_what_a_model_can_do_and_requests_are_held_to_it() {
    let (first, second) =
        (Upstream::start(|_| Say::Text("first")), Upstream::start(|_| Say::Text("second")));
    let more = "catalogue:\n  first/*: { context: 3, source: our own test, date: 2026-11-01 }\n  \
                first/m: { vision: false }\n";
    let place = Installation::bare().with("exile.yaml", &config(&first, &second, more));
    let server = place.serve();
    let models = server.ask("GET", "/api/models", "").json();
    let named = |name: &str| {
        let items = models["items"].as_array().unwrap();
        items.iter().find(|model| model["name"] == name).unwrap().clone()
    };
    assert_eq!(
        named("first/m")["capabilities"]["context"],
        json!({ "value": 3, "source": "our own test", "date": "2026-11-01" })
    );
    let cell = &named("deepseek/deepseek-flash")["capabilities"]["vision"];
    assert!(cell["source"].is_string() && cell["date"].is_string(), "{cell}");
    let alias = models["aliases"].as_array().unwrap().iter().find(|a| a["name"] == "default");
    assert_eq!(alias.unwrap()["fallback"], json!(["second/m"]));

    let made = server.ask("POST", "/api/conversations", r#"{"graph": "chat"}"#).json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let said = r#"{"content": "one two three four"}"#;
    let answer = server.ask("POST", &messages, said).json();
    assert_eq!(answer["message"]["content"], "second", "{answer}");

    let made = json!({ "graph": "chat", "model": "first/m" }).to_string();
    let made = server.ask("POST", "/api/conversations", &made).json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let refused = server.ask("POST", &messages, said);
    let told = (refused.status, refused.json()["code"].clone(), refused.json()["field"].clone());
    assert_eq!(told, (422, json!("context_too_long"), json!("content")), "{refused:?}");
    let picture = json!({ "content": "what?", "images": ["https://example.com/a.png"] });
    let refused = server.ask("POST", &messages, &picture.to_string());
    let told = (refused.status, refused.json()["code"].clone(), refused.json()["field"].clone());
    assert_eq!(told, (422, json!("model_incapable"), json!("model")), "{refused:?}");
    assert!(refused.json()["detail"].as_str().unwrap().contains("takes no images"));
    assert!(first.all().is_empty(), "nothing was sent");

    let unknown = r#"{"graph": "chat", "model": "nobody/m"}"#;
    let refused = server.ask("POST", "/api/conversations", unknown);
    assert_eq!((refused.status, refused.json()["field"].clone()), (422, json!("model")));
}

#[test]
fn the_protocol_names_every_event_of_a_stream() {
    let place = Installation::bare();
    let server = place.serve();
    let protocol = server.ask("GET", "/api/protocol", "").json();
    let events = protocol["stream"]["events"].as_array().unwrap().clone();
    let kind = |name: &str| events.iter().find(|kind| kind["name"] == name).cloned();
    let made = server.ask("POST", "/api/conversations", r#"{"graph": "agent"}"#).json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let said = r#"{"content": "what is 12 * 12?", "stream": true}"#;
    let stream = server.ask("POST", &messages, said).body;
    let mut seen = 0;
    for event in stream.split("event: ").skip(1) {
        let known = kind(event.lines().next().unwrap()).unwrap_or_else(|| panic!("{event}"));
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        for field in data.as_object().unwrap().keys() {
            let fields = known["fields"].as_array().unwrap();
            assert!(fields.iter().any(|f| f == field), "{field} of {event}");
        }
        seen += 1;
    }
    assert!(seen > 10, "{stream}");
    assert_eq!(protocol["message"]["properties"]["role"]["type"], "string");
}

/// A model that streams, calls tools one at a time, and meets no schema.
fn simple(asked: &Asked) -> Say {
    let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
    if asked.line.contains("/embeddings") {
        let vector = |index: usize| json!({ "index": index, "embedding": [0.5, 0.25, index] });
        return Say::Plain(200, json!({ "data": [vector(1), vector(0)] }).to_string());
    }
    if body["stream"] == true {
        return Say::Text("1, 2, 3, 4, 5, 6");
    }
    let message = if body["tools"].is_array() {
        let call = json!({ "id": "c1", "type": "function",
            "function": { "name": "note_number", "arguments": "{\"number\": 7391}" } });
        json!({ "role": "assistant", "content": null, "tool_calls": [call] })
    } else {
        json!({ "role": "assistant", "content": "hello" })
    };
    let answer =
        json!({ "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] });
    Say::Plain(200, answer.to_string())
}

#[test]
fn a_probe_proves_cells_and_tells_drift() {
    let lab = Upstream::start(simple);
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n\
         catalogue: {{ lab/m: {{ tools: true, parallel_tools: true, json_schema: false }},\n  lab/vectors: {{ embeddings: true }} }}\n",
        lab.url
    );
    let place = Installation::bare().with("exile.yaml", &config);
    let probed = place.run(&["model", "probe", "default", "--json"]);
    assert_eq!(probed.code, 1, "a cell drifts: {probed:?}");
    let answer: Value = serde_json::from_str(&probed.out).unwrap();
    let proof = |cell: &str| {
        let proofs = answer["proofs"].as_array().unwrap();
        let proof = proofs.iter().find(|proof| proof["cell"] == cell).unwrap();
        (proof["claimed"].clone(), proof["seen"].clone(), proof["drift"].clone())
    };
    assert_eq!(proof("tools"), (json!(true), json!(true), json!(false)));
    assert_eq!(proof("parallel_tools"), (json!(true), json!(false), json!(true)));
    assert_eq!(proof("json_schema"), (json!(false), json!(false), json!(false)));
    assert_eq!(proof("streaming"), (json!(true), json!(false), json!(true)), "in one piece");
    assert_eq!(answer["drift"], 2);

    let embeds = place.run(&["model", "probe", "lab/vectors", "--json"]);
    assert_eq!(embeds.code, 0, "{embeds:?}");
    let answer: Value = serde_json::from_str(&embeds.out).unwrap();
    assert_eq!(answer["proofs"][0]["cell"], "embeddings");
    assert_eq!(answer["proofs"][0]["detail"], "vectors of [3, 3] numbers");

    let gone = config.replace(&lab.url, "http://127.0.0.1:9");
    let place = place.with("exile.yaml", &gone);
    let unreached = place.run(&["model", "probe", "default"]);
    assert_eq!(unreached.code, 1, "nothing is proved: {unreached:?}");
    assert!(unreached.out.contains("unknown"), "{unreached:?}");

    let listed = place.run(&["model", "list"]);
    assert!(
        listed.out.lines().any(|l| l.trim().starts_with("lab/m") && l.contains("default")),
        "{listed:?}"
    );
}
