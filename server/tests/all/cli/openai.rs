//! `/v1` through the binary: what reaches a model, who else is asked, and a client that leaves.

use serde_json::{Value, json};

use super::cancels::leave;
use super::installation::Installation;
use super::upstream::{Say, Upstream};

pub(super) const PATH: &str = "/v1/chat/completions";

pub(super) fn lab(upstream: &Upstream, more: &str) -> Installation {
    let config = format!(
        "models:\n  default: {{ development: lab/m }}\n\
         providers:\n  lab: {{ base_url: {}/v1, retries: 0 }}\n{more}",
        upstream.url
    );
    Installation::bare().with("exile.yaml", &config)
}

#[test]
fn what_is_asked_reaches_the_model_and_nothing_is_dropped_in_silence() {
    let upstream = Upstream::start(|_| Say::Text("here"));
    let place = lab(&upstream, "catalogue: { lab/m: { json_schema: true } }\n");
    let server = place.serve();
    let schema = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let further = json!({
        "top_p": 0.5, "seed": 7, "stop": ["x"], "presence_penalty": 1, "some_day": { "a": [1] },
        "parallel_tool_calls": false, "user": "carol", "metadata": { "k": "v" },
        "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": schema } },
    });
    let mut body = further.clone();
    body["model"] = json!("lab/m");
    body["temperature"] = json!(0.25);
    body["max_completion_tokens"] = json!(64);
    body["tools"] = json!([{ "type": "function",
        "function": { "name": "f", "description": "d", "parameters": schema } }]);
    body["tool_choice"] = json!({ "type": "function", "function": { "name": "f" } });
    body["messages"] = json!([
        { "role": "developer", "content": "be short" },
        { "role": "user", "content": [{ "type": "text", "text": "look" },
            { "type": "image_url", "image_url": { "url": "https://example.com/a.png" } }] },
        { "role": "assistant", "content": null, "refusal": null, "extra_content": { "s": 1 },
            "tool_calls": [{ "id": "c1", "type": "function",
                "function": { "name": "f", "arguments": "{}" } }] },
        { "role": "tool", "tool_call_id": "c1", "content": "1" },
        { "role": "user", "content": "go on" },
    ]);
    let answer = server.ask("POST", PATH, &body.to_string());
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "here", "{answer:?}");
    assert_eq!(answer.json()["usage"]["total_tokens"], 7);
    let sent: Value = serde_json::from_str(&upstream.all()[0].body).unwrap();
    for (field, value) in further.as_object().unwrap() {
        assert_eq!(&sent[field], value, "{field}");
    }
    assert_eq!((&sent["model"], &sent["temperature"]), (&json!("m"), &json!(0.25)));
    assert_eq!(sent["max_tokens"], 64);
    assert_eq!((&sent["tools"], &sent["tool_choice"]), (&body["tools"], &body["tool_choice"]));
    let roles: Vec<&str> =
        sent["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
    assert_eq!(sent["messages"][1]["content"], body["messages"][1]["content"]);
    assert_eq!(sent["messages"][2]["extra_content"], json!({ "s": 1 }), "{sent}");
}

#[test]
fn a_model_that_no_provider_holds_to_a_schema_is_told_it() {
    let upstream = Upstream::start(|_| Say::Text("{}"));
    let place = lab(&upstream, "catalogue: { lab/m: { json_schema: false } }\n");
    let server = place.serve();
    let schema = json!({ "type": "object", "properties": { "days": { "type": "integer" } } });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": schema } });
    let body = json!({ "model": "lab/m", "response_format": format,
        "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(server.ask("POST", PATH, &body.to_string()).status, 200);
    let sent: Value = serde_json::from_str(&upstream.all()[0].body).unwrap();
    assert!(sent["messages"][0]["content"].as_str().unwrap().contains("days"), "{sent}");
    assert_eq!(sent["response_format"], Value::Null, "what it does not know would be refused");
}

#[test]
fn another_model_answers_where_the_first_is_down_and_the_answer_names_it() {
    let down = Upstream::start(|_| Say::Plain(503, r#"{"error":{"message":"down"}}"#.into()));
    let up = Upstream::start(|_| Say::Text("here"));
    let config = format!(
        "models:\n  default: {{ development: first/m, fallback: [second/m] }}\n\
         providers:\n  first: {{ base_url: {}/v1, retries: 0 }}\n  \
         second: {{ base_url: {}/v1, retries: 0 }}\n",
        down.url, up.url
    );
    let place = Installation::bare().with("exile.yaml", &config);
    let server = place.serve();
    let body = json!({ "model": "default", "messages": [{ "role": "user", "content": "hi" }] });
    let answer = server.ask("POST", PATH, &body.to_string()).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "here");
    assert_eq!(answer["model"], "second/m");
    assert_eq!((down.count("hi"), up.count("hi")), (1, 1));
}

/// An agent that says something, calls a tool and answers; its first word breaks off once.
#[test]
fn the_messages_of_a_run_are_one_answer_and_what_it_takes_back_is_not_in_it() {
    let times = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Upstream::start(move |asked| {
        let time = times.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        match asked.last().as_str() {
            "hi" if time.is_multiple_of(3) => Say::Half("Let m"),
            "hi" => Say::Plain(200, CALLS.to_owned()),
            _ => Say::Text("It is 4."),
        }
    });
    let config = format!(
        "models:\n  default: {{ development: lab/m, after_first_token: restart }}\n\
         providers:\n  lab: {{ base_url: {}/v1, retries: 1 }}\n",
        upstream.url
    );
    let place = Installation::bare().with("exile.yaml", &config);
    let server = place.serve();
    let ask = |stream: bool| {
        let body = json!({ "model": "agent", "stream": stream,
            "messages": [{ "role": "user", "content": "hi" }] });
        server.ask("POST", PATH, &body.to_string())
    };
    let whole = ask(false);
    let said = &whole.json()["choices"][0]["message"]["content"];
    assert_eq!(said, "Let me see.\n\nIt is 4.", "{whole:?}");
    assert_eq!(upstream.all().len(), 3, "the tool was called once, and nothing else again");
    let stream = ask(true);
    assert!(stream.body.contains(r#""content":"Let m""#), "{stream:?}");
    assert!(stream.body.contains(r#""code":"answer_taken_back""#), "{stream:?}");
    assert!(!stream.body.contains("It is 4.") && !stream.body.contains("[DONE]"), "{stream:?}");
}

/// A stream that says something and calls a tool.
const CALLS: &str = concat!(
    r#"data: {"id":"r","model":"m","choices":[{"index":0,"delta":{"content":"Let me see."},"#,
    r#""finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"r","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"#,
    r#""id":"c1","type":"function","function":{"name":"calculator","#,
    r#""arguments":"{\"expression\":\"2 + 2\"}"}}]},"finish_reason":"tool_calls"}]}"#,
    "\n\ndata: [DONE]\n\n",
);

#[test]
fn a_client_that_leaves_closes_the_connection_to_the_model() {
    let upstream = Upstream::start(|_| Say::Stall("so f"));
    let place = lab(&upstream, "");
    let server = place.serve();
    for model in ["lab/m", "chat"] {
        for stream in [false, true] {
            let body = json!({ "model": model, "stream": stream,
                "messages": [{ "role": "user", "content": "hi" }] });
            leave(&server, &upstream, PATH, (&body.to_string(), "hi"));
        }
    }
}

#[test]
fn vectors_come_as_numbers_or_as_base64() {
    let upstream = Upstream::start(|_| {
        let body = json!({ "model": "e", "usage": { "prompt_tokens": 3, "total_tokens": 3 },
            "data": [{ "index": 0, "embedding": [1.0, -0.5] }, { "index": 1, "embedding": [0.0, 2.0] }] });
        Say::Plain(200, body.to_string())
    });
    let place = lab(&upstream, "");
    let server = place.serve();
    let ask = |more: &str| {
        let body = format!(r#"{{"model": "lab/e", "input": ["a", "b"]{more}}}"#);
        server.ask("POST", "/v1/embeddings", &body)
    };
    let plain = ask(r#", "dimensions": 2"#).json();
    assert_eq!(plain["data"][0]["embedding"], json!([1.0, -0.5]), "{plain}");
    assert_eq!(
        (&plain["data"][1]["index"], &plain["usage"]["total_tokens"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(
        ask(r#", "encoding_format": "base64""#).json()["data"][0]["embedding"],
        "AACAPwAAAL8="
    );
    let sent: Value = serde_json::from_str(&upstream.all()[0].body).unwrap();
    assert_eq!(sent, json!({ "model": "e", "input": ["a", "b"], "dimensions": 2 }));
    let empty = server.ask("POST", "/v1/embeddings", r#"{"model": "lab/e", "input": []}"#);
    assert_eq!((empty.status, &empty.json()["error"]["param"]), (400, &json!("input")));
    let tokens = server.ask("POST", "/v1/embeddings", r#"{"model": "lab/e", "input": [[1, 2]]}"#);
    assert_eq!((tokens.status, &tokens.json()["error"]["param"]), (400, &json!("input")));
}
