//! What reaches a collector: the tree of a run, with the attributes of the conventions and
//! without anything that was said.

use super::installation::Installation;
use super::otlp::{Collector, Seen, spans};
use super::upstream::{Say, Upstream};
use super::web::ask_with;

const QUESTION: &str = "what is 17001 * 23002, my secret question?";

/// One run of the shipped agent over the mock: question, calculator, answer.
fn run_of_an_agent() -> (Vec<Seen>, Vec<(String, String)>, String) {
    let collector = Collector::start();
    let place = Installation::bare().set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", r#"{"graph": "agent"}"#).json();
    let id = made["id"].as_str().unwrap().to_owned();
    let body = serde_json::json!({ "content": QUESTION }).to_string();
    let said = server.ask("POST", &format!("/api/conversations/{id}/messages"), &body);
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(server.terminate().code, 0);
    let exports = collector.exports();
    assert!(exports.iter().all(|e| e.path == "/v1/traces"));
    let everything: Vec<u8> = exports.iter().flat_map(|e| e.bytes.clone()).collect();
    let everything = String::from_utf8_lossy(&everything).into_owned();
    for said in ["17001", "391057002", "secret question"] {
        assert!(!everything.contains(said), "content left: {said}");
    }
    let (spans, resources) = spans(&exports);
    (spans, resources, id)
}

/// The tree below a span, one line per span.
fn tree(spans: &[Seen], root: &Seen, depth: usize) -> String {
    let mut text = format!("{}{}\n", "  ".repeat(depth), root.name);
    for child in spans.iter().filter(|s| s.parent == root.id) {
        text += &tree(spans, child, depth + 1);
    }
    text
}

fn find<'s>(spans: &'s [Seen], name: &str) -> &'s Seen {
    let all: Vec<&str> = spans.iter().map(|s| s.name.as_str()).collect();
    spans.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no {name} in {all:?}"))
}

#[test]
fn a_run_is_one_tree_under_its_request() {
    let (spans, resources, conversation) = run_of_an_agent();
    let schema = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev".to_owned();
    assert!(resources.iter().all(|r| *r == ("exile".to_owned(), schema.clone())), "{resources:?}");

    let request = find(&spans, "POST /api/conversations/{id}/messages");
    assert_eq!(request.kind, 2);
    assert_eq!(request.get("http.response.status_code"), Some("int 200"));
    let workflow = find(&spans, "invoke_workflow agent");
    assert_eq!(workflow.parent, request.id);
    assert!(spans.iter().filter(|s| s.trace == workflow.trace).count() >= 6);
    assert_eq!(workflow.get("gen_ai.operation.name"), Some("invoke_workflow"));
    assert_eq!(workflow.get("gen_ai.workflow.name"), Some("agent"));
    assert_eq!(workflow.get("gen_ai.conversation.id"), Some(conversation.as_str()));
    let tree = tree(&spans, workflow, 0);
    let names: Vec<&str> = tree.lines().map(str::trim).collect();
    let count = |name: &str| names.iter().filter(|n| **n == name).count();
    assert_eq!((count("chat mock"), count("execute_tool calculator")), (2, 1), "{tree}");
    for call in ["chat mock", "execute_tool calculator"] {
        let parent = &find(&spans, call).parent;
        let parent = spans.iter().find(|s| s.id == *parent).unwrap();
        assert!(parent.name.starts_with("node "), "{call} lies in {}", parent.name);
    }
}

#[test]
fn calls_carry_the_attributes_of_the_conventions() {
    let (spans, _, conversation) = run_of_an_agent();
    let chat = find(&spans, "chat mock");
    assert_eq!(chat.kind, 3);
    let expected = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "mock"),
        ("gen_ai.request.model", "mock"),
        ("gen_ai.request.stream", "true"),
        ("gen_ai.conversation.id", &conversation),
        ("gen_ai.response.finish_reasons", "[tool_calls]"),
    ];
    for (name, value) in expected {
        assert_eq!(chat.get(name), Some(value), "{name} of {chat:?}");
    }
    for name in ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"] {
        assert!(chat.get(name).is_some_and(|v| v.starts_with("int ")), "{name} of {chat:?}");
    }
    let tool = find(&spans, "execute_tool calculator");
    assert_eq!((tool.kind, tool.status), (1, 0));
    let expected = [
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "calculator"),
        ("gen_ai.tool.type", "function"),
        ("gen_ai.conversation.id", &conversation),
    ];
    for (name, value) in expected {
        assert_eq!(tool.get(name), Some(value), "{name} of {tool:?}");
    }
    assert!(tool.get("gen_ai.tool.call.id").is_some(), "{tool:?}");
    assert!(tool.get("gen_ai.tool.description").is_some(), "{tool:?}");
}

#[test]
fn a_failed_call_carries_its_code_and_no_words() {
    let collector = Collector::start();
    let upstream = Upstream::start(|_| Say::Plain(401, "{\"error\": \"my secret words\"}".into()));
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n",
        upstream.url
    );
    let place = Installation::bare().with("exile.yaml", &config);
    let place = place.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    assert_eq!(place.run_with(&["chat"], "hello\n").code, 1);
    let exports = collector.exports();
    let (spans, _) = spans(&exports);
    for name in ["chat m", "invoke_workflow chat"] {
        let span = find(&spans, name);
        assert_eq!(span.status, 2, "{span:?}");
        assert_eq!(span.get("error.type"), Some("provider_unauthorized"), "{span:?}");
    }
    let bytes: Vec<u8> = exports.into_iter().flat_map(|e| e.bytes).collect();
    assert!(!String::from_utf8_lossy(&bytes).contains("secret words"));
}

#[test]
fn a_provider_is_told_the_span_of_its_call() {
    let upstream = Upstream::start(|_| Say::Text("fine"));
    let collector = Collector::start();
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n",
        upstream.url
    );
    let place = Installation::bare().with("exile.yaml", &config);
    let place = place.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    assert_eq!(place.run_with(&["chat"], "hello\n").code, 0);
    let (spans, _) = spans(&collector.exports());
    let chat = find(&spans, "chat m");
    let hex = |bytes: &[u8]| exile_engine::hex(bytes);
    let header = format!("traceparent: 00-{}-{}-01", hex(&chat.trace), hex(&chat.id));
    let port = upstream.url.rsplit(':').next().unwrap();
    assert_eq!(chat.get("server.address"), Some("127.0.0.1"), "{chat:?}");
    assert_eq!(chat.get("server.port"), Some(format!("int {port}").as_str()), "{chat:?}");
    assert!(chat.get("gen_ai.response.time_to_first_chunk").is_some(), "{chat:?}");
    assert_eq!(chat.get("gen_ai.response.model"), Some("m"), "{chat:?}");
    assert_eq!(chat.get("gen_ai.response.id"), Some("reply-1"), "{chat:?}");
    assert_eq!(chat.get("gen_ai.usage.input_tokens"), Some("int 5"), "{chat:?}");
    let asked = upstream.all();
    assert!(asked[0].head.contains(&header), "no {header} in {}", asked[0].head);
}

#[test]
fn a_run_joins_the_trace_of_its_caller() {
    let collector = Collector::start();
    let place = Installation::bare().set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let server = place.serve();
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let lines =
        format!("authorization: Bearer {}\r\ntraceparent: 00-{trace}-{span}-01\r\n", place.key());
    let body = r#"{"graph": "chat", "input": {"messages": ["hello"]}}"#;
    let answer = ask_with(&server.url, "POST", "/api/runs/wait", &lines, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.terminate().code, 0);
    let (spans, _) = spans(&collector.exports());
    let (request, workflow) =
        (find(&spans, "POST /api/runs/wait"), find(&spans, "invoke_workflow chat"));
    assert_eq!(exile_engine::hex(&request.parent), span);
    assert_eq!(exile_engine::hex(&workflow.trace), trace);
    assert_eq!(workflow.parent, request.id);
}
