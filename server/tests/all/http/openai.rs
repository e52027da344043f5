//! `/v1` as OpenAI's clients use it, through the router: what is refused, and in which words; graphs
//! and skills as models.

use axum::http::Request;
use serde_json::{Value, json};

use super::fixture::{Answer, Exile, with_json};

const PATH: &str = "/v1/chat/completions";

async fn ask(exile: &Exile, body: Value) -> Answer {
    exile.call("POST", PATH, Some(body)).await
}

fn hello(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] })
}

/// The data of a stream's events; the last one as it is.
fn chunks(answer: &Answer) -> (Vec<Value>, String) {
    assert_eq!(answer.header("content-type"), "text/event-stream", "{}", answer.text);
    let data = answer.text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let mut data: Vec<String> = data.map(str::to_owned).collect();
    let last = data.pop().unwrap_or_default();
    (data.iter().map(|text| serde_json::from_str(text).unwrap()).collect(), last)
}

fn text(chunks: &[Value]) -> String {
    let pieces = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str());
    pieces.collect()
}

#[tokio::test]
async fn a_model_an_alias_a_graph_and_a_skill_answer_alike() {
    let exile = Exile::start().await;
    for model in ["mock/any", "default", "chat", "pirate"] {
        let answer = ask(&exile, hello(model)).await;
        assert_eq!(answer.status, 200, "{model}: {}", answer.text);
        let whole = answer.json();
        let choice = &whole["choices"][0];
        assert_eq!(choice["message"]["content"], "[mock] you said: hi", "{model}");
        assert_eq!(
            (&whole["object"], &choice["finish_reason"]),
            (&json!("chat.completion"), &json!("stop"))
        );
        assert!(whole["usage"]["total_tokens"].as_u64().unwrap() > 0, "{whole}");

        let mut body = hello(model);
        body["stream"] = json!(true);
        body["stream_options"] = json!({ "include_usage": true });
        let (chunks, last) = chunks(&ask(&exile, body).await);
        assert_eq!(
            (text(&chunks).as_str(), last.as_str()),
            ("[mock] you said: hi", "[DONE]"),
            "{model}"
        );
        assert!(chunks.len() > 3, "it comes in pieces");
        let (usage, others) = chunks.split_last().unwrap();
        assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &whole["usage"]), "{model}");
        assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == usage["id"]));
    }
}

/// Two speak at the same time, then a third.
const CHORUS: &str = "
graph: chorus
input: [messages]
output: [messages]
state: { messages: { reduce: messages } }
nodes:
  left: { kind: llm, model: mock/any, system: Left }
  right: { kind: llm, model: mock/any, system: Right }
  last: { kind: llm, model: gate/short }
edges:
  - { from: START, to: left }
  - { from: START, to: right }
  - { from: [left, right], to: last }
  - { from: last, to: END }
";

#[tokio::test]
async fn who_speaks_at_the_same_time_is_heard_one_after_the_other() {
    let exile = Exile::serving(&[("chorus", CHORUS)]).await;
    exile.gate.add_permits(2);
    let whole = ask(&exile, hello("chorus")).await;
    let run = whole.header("x-exile-run").to_owned();
    let whole = whole.json();
    let state = exile.call("GET", &format!("/api/runs/{run}/state"), None).await.json();
    let messages = state["values"]["messages"].as_array().unwrap();
    let said = messages.iter().filter(|message| message["role"] == "assistant");
    let said: Vec<&str> = said.map(|message| message["content"].as_str().unwrap()).collect();
    assert_eq!(said.len(), 3, "{state}");
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["content"], said.join("\n\n"), "{whole}");
    assert_eq!(choice["finish_reason"], "length", "as the model gave it that spoke last");

    let mut body = hello("chorus");
    body["stream"] = json!(true);
    let (chunks, last) = chunks(&ask(&exile, body).await);
    assert_eq!((text(&chunks), last.as_str()), (said.join("\n\n"), "[DONE]"));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn with_a_model_nothing_is_kept_and_with_a_graph_there_is_a_run() {
    let exile = Exile::start().await;
    let passed = ask(&exile, hello("mock/any")).await;
    assert_eq!(passed.header("x-exile-run"), "");
    assert_eq!(exile.call("GET", "/api/runs", None).await.json()["items"], json!([]));
    let ran = ask(&exile, hello("chat")).await;
    let run = ran.header("x-exile-run").to_owned();
    let run = exile.call("GET", &format!("/api/runs/{run}"), None).await.json();
    assert_eq!((&run["graph"], &run["status"]), (&json!("chat"), &json!("finished")));
}

#[tokio::test]
async fn what_can_be_a_model_is_listed() {
    let exile = Exile::start().await;
    let listed = exile.call("GET", "/v1/models", None).await.json();
    let ids: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    for id in ["default", "chat", "pirate", "mock/any"] {
        assert!(ids.contains(&id), "{id} is not among {ids:?}");
        let one = exile.call("GET", &format!("/v1/models/{id}"), None).await;
        assert_eq!((one.status, &one.json()["id"]), (200, &json!(id)));
    }
    assert!(!ids.contains(&"add"), "a graph without messages cannot answer");
    let none = exile.call("GET", "/v1/models/none", None).await;
    assert_eq!((none.status, &none.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn what_contradicts_itself_is_refused_by_name() {
    let exile = Exile::start().await;
    let cases = [
        ("parallel_tool_calls", json!({ "parallel_tool_calls": true })),
        ("max_tokens", json!({ "max_tokens": 1, "max_completion_tokens": 2 })),
        ("models", json!({ "models": ["lab/a", "lab/b"] })),
    ];
    for (param, more) in cases {
        let mut body = hello("mock/any");
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = ask(&exile, body).await.json()["error"].clone();
        assert_eq!(
            (&error["param"], &error["code"]),
            (&json!(param), &json!("unsupported_parameter")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn bad_input_is_refused_by_its_name_as_openai_does() {
    let exile = Exile::start().await;
    let user = json!({ "role": "user", "content": "hi" });
    let call = json!({ "role": "assistant", "tool_calls": [{ "id": "c1", "type": "function",
        "function": { "name": "f", "arguments": "{}" } }] });
    let result = json!({ "role": "tool", "tool_call_id": "c1", "content": "1" });
    let image = |data: &str| {
        json!([{ "role": "user", "content": [{ "type": "image_url",
            "image_url": { "url": format!("data:image/png;base64,{data}") } }] }])
    };
    let big = "A".repeat(20 * 1024 * 1024 / 3 * 4);
    let of = |messages: Value| json!({ "model": "mock/any", "messages": messages });
    let with = |field: &str, value: Value| {
        let mut body = hello("mock/any");
        body[field] = value;
        body
    };
    let function = |name: &str| json!([{ "type": "function", "function": { "name": name, "parameters": [] } }]);
    let cases: Vec<(Value, Value, Value)> = vec![
        (json!({ "messages": [user] }), Value::Null, Value::Null),
        (json!({ "model": 7 }), json!("model"), json!("invalid_type")),
        (json!({ "model": "mock/any" }), json!("messages"), json!("missing_required_parameter")),
        (of(json!([])), json!("messages"), json!("empty_array")),
        (of(json!("hi")), json!("messages"), json!("invalid_type")),
        (
            of(json!([{ "content": "hi" }])),
            json!("messages[0].role"),
            json!("missing_required_parameter"),
        ),
        (
            of(json!([{ "role": "king", "content": "hi" }])),
            json!("messages[0].role"),
            json!("invalid_value"),
        ),
        (
            of(json!([{ "role": "user", "content": 7 }])),
            json!("messages[0].content"),
            json!("invalid_type"),
        ),
        (
            of(json!([{ "role": "user", "content": "hi", "x": 1 }])),
            json!("messages[0].x"),
            json!("unknown_parameter"),
        ),
        (of(json!([user, result])), json!("messages.[1].role"), json!("invalid_parameter")),
        (of(json!([user, call])), json!("messages.[2].role"), json!("invalid_parameter")),
        (of(json!([user, call, user])), json!("messages.[2].role"), json!("invalid_parameter")),
        (
            of(image("<svg>")),
            json!("messages[0].content[0].image_url.url"),
            json!("invalid_image_url"),
        ),
        (of(image(&big)), json!("messages[0].content[0].image_url.url"), json!("image_too_large")),
        (with("n", json!(2)), json!("n"), json!("unsupported_value")),
        (with("n", json!(0)), json!("n"), json!("integer_below_min_value")),
        (with("stream", json!("yes")), json!("stream"), json!("invalid_type")),
        (with("logprobs", json!(true)), json!("logprobs"), json!("unsupported_parameter")),
        (with("max_tokens", json!(-1)), json!("max_tokens"), json!("integer_below_min_value")),
        (with("tool_choice", json!("required")), json!("tool_choice"), json!("invalid_value")),
        (
            with("tools", function("f")),
            json!("tools[0].function.parameters"),
            json!("invalid_type"),
        ),
        (
            with("tools", function("f\r\ng")),
            json!("tools[0].function.name"),
            json!("invalid_value"),
        ),
        (
            with("response_format", json!({ "type": "xml" })),
            json!("response_format.type"),
            json!("invalid_value"),
        ),
        (
            with("reasoning_effort", json!("huge")),
            json!("reasoning_effort"),
            json!("invalid_value"),
        ),
    ];
    for (body, param, code) in cases {
        let shown: String = body.to_string().chars().take(120).collect();
        let answer = ask(&exile, body).await;
        let error = answer.json()["error"].clone();
        let code = if code == "invalid_parameter" { Value::Null } else { code };
        assert_eq!(
            (answer.status, &error["param"], &error["code"]),
            (400, &param, &code),
            "{shown}: {error}"
        );
        assert_eq!(error["type"], "invalid_request_error", "{shown}");
    }
    let unknown = ask(&exile, hello("no/such")).await;
    assert_eq!(
        (unknown.status, &unknown.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let long = exile.call("POST", PATH, Some(json!({ "model": "x".repeat(40 << 20) }))).await;
    assert_eq!((long.status, &long.json()["error"]["code"]), (413, &json!("body_too_large")));
}

#[tokio::test]
async fn a_graph_takes_a_conversation_and_nothing_that_is_its_own_to_say() {
    let exile = Exile::start().await;
    for field in ["tools", "temperature", "response_format", "seed"] {
        let mut body = hello("chat");
        body[field] = json!([1]);
        let answer = ask(&exile, body).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["param"]), (400, &json!(field)), "{error}");
    }
    let add = ask(&exile, hello("add")).await;
    assert_eq!((add.status, &add.json()["error"]["code"]), (400, &json!("not_conversational")));
    let long = json!({ "model": "chat", "messages": [
        { "role": "system", "content": "be short" }, { "role": "user", "content": "one" },
        { "role": "assistant", "content": "1" }, { "role": "user", "content": [
            { "type": "text", "text": "two" } ] } ] });
    assert_eq!(
        ask(&exile, long).await.json()["choices"][0]["message"]["content"],
        "[mock] you said: two"
    );
}

#[tokio::test]
async fn a_failure_has_its_status_before_an_answer_and_an_event_inside_of_one() {
    let exile = Exile::start().await;
    let said = |model: &str, text: &str, stream: bool| {
        json!({ "model": model, "stream": stream,
            "messages": [{ "role": "user", "content": text }] })
    };
    for stream in [false, true] {
        let answer = ask(&exile, said("keyless/any", "hi", stream)).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "provider_key_missing"));
    }
    for model in ["mock/any", "chat"] {
        for (text, status, code) in [
            ("no key", 502, "provider_unauthorized"),
            ("too fast", 429, "rate_limit_exceeded"),
            ("silence", 504, "provider_timeout"),
        ] {
            let answer = ask(&exile, said(model, text, false)).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{model}");
            // The mock fails once it has said who it is.
            let (chunks, last) = chunks(&ask(&exile, said(model, text, true)).await);
            assert_eq!(self::text(&chunks).trim(), "[mock]", "{model}");
            let error: Value = serde_json::from_str(&last).unwrap();
            assert_eq!(error["error"]["code"], code, "{model}: it does not end as if whole");
            let keys: Vec<&String> = error["error"].as_object().unwrap().keys().collect();
            assert_eq!(keys, ["message", "type", "param", "code"]);
        }
    }
}

#[tokio::test]
async fn a_body_with_pictures_may_be_long_with_an_idempotency_key_too() {
    let exile = Exile::start().await;
    let url = format!("data:image/png;base64,{}", "A".repeat(2 << 20));
    let said = json!([{ "role": "user", "content": [
        { "type": "text", "text": "look" }, { "type": "image_url", "image_url": { "url": url } } ] }]);
    let request = || {
        let request = Request::builder().method("POST").uri(PATH).header("idempotency-key", "k");
        let request = request.header("authorization", format!("Bearer {}", exile.alice));
        with_json(request, Some(json!({ "model": "mock/any", "messages": said })))
    };
    let first = exile.send(request()).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(exile.send(request()).await.text, first.text, "it was asked once");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_key_reads_the_same() {
    let exile = Exile::start().await;
    let revoked = exile.call("POST", "/api/keys", Some(json!({ "name": "a key" }))).await.json();
    let path = format!("/api/keys/{}", revoked["id"].as_str().unwrap());
    assert_eq!(exile.call("DELETE", &path, None).await.status, 204);
    let alice = exile.app.store.user_by_name("alice").await.unwrap().unwrap();
    let past = Some("2020-01-01T00:00:00Z".parse().unwrap());
    let (_, expired) = exile.app.store.create_key(&alice.id, "a key", &[], past).await.unwrap();
    let revoked = revoked["secret"].as_str().unwrap().to_owned();
    let mut bodies = Vec::new();
    for key in ["exk_unknown".to_owned(), revoked, expired, String::new()] {
        let answer = exile.call_as(&key, "POST", PATH, Some(hello("mock/any"))).await;
        assert_eq!(answer.status, 401, "{}", answer.text);
        bodies.push(answer.text);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let error: Value = serde_json::from_str(&bodies[0]).unwrap();
    assert_eq!(error["error"]["code"], "invalid_api_key");
}

#[tokio::test]
async fn a_key_that_may_act_for_others_names_them_as_the_end_user() {
    let exile = Exile::start().await;
    let body = json!({ "name": "backend", "scopes": ["act_as"] });
    let key = exile.call_as(&exile.admin, "POST", "/api/keys", Some(body)).await.json();
    let secret = key["secret"].as_str().unwrap();
    let mut body = hello("chat");
    body["user"] = json!("carol");
    let ran = exile.call_as(secret, "POST", PATH, Some(body.clone())).await;
    assert_eq!(ran.status, 200, "{}", ran.text);
    let run = format!("/api/runs/{}", ran.header("x-exile-run"));
    assert_eq!(exile.call("GET", &run, None).await.status, 404, "it is not alice's");
    // Without the scope it is no more than a name.
    let own = ask(&exile, body).await;
    let run = format!("/api/runs/{}", own.header("x-exile-run"));
    assert_eq!(exile.call("GET", &run, None).await.status, 200);
}
