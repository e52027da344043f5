//! Bodies, shown as JSON.

use exile_engine::id::MessageId;
use exile_engine::message::{Role, ToolCall};
use exile_engine::tool::Effect;

use super::*;
use crate::providers::anthropic::PROFILE;

const MODEL: &str = "claude-sonnet-4-6";
const OLDER: &str = "claude-haiku-4-5";

fn text(role: Role, content: &str) -> Message {
    Message::text(MessageId::from("m"), role, content)
}

fn asks(by: &str, ids: &[&str]) -> Message {
    let call = |id: &&str| ToolCall {
        id: (*id).to_owned(),
        name: "add".into(),
        arguments: "{\"x\":1}".into(),
        opaque: None,
    };
    Message {
        model: Some(by.to_owned()),
        tool_calls: ids.iter().map(call).collect(),
        ..text(Role::Assistant, "")
    }
}

fn answers(id: &str, content: &str) -> Message {
    Message { tool_call_id: Some(id.to_owned()), ..text(Role::Tool, content) }
}

/// A turn of this model that thought before it called.
fn signed(model: &str, id: &str) -> Message {
    let blocks = json!([{ "type": "thinking", "thinking": "hm", "signature": "sig" },
        { "type": "tool_use", "id": id, "name": "add", "input": { "x": 1 } }]);
    let opaque = Some(json!({ BLOCKS: blocks }));
    let reasoning = Some("hm".to_owned());
    Message { opaque, reasoning, ..asks(&format!("anthropic/{model}"), &[id]) }
}

fn request(model: &str, messages: Vec<Message>) -> ModelRequest {
    let schema = json!({ "$schema": "x", "type": "object", "properties": {} });
    ModelRequest {
        model: model.into(),
        messages: messages.into_iter().map(std::sync::Arc::new).collect(),
        tools: vec![ToolSpec::new("add", "adds", schema, Effect::Pure, "native")],
        tool_choice: ToolChoice::Auto,
        temperature: Some(1.5),
        max_tokens: None,
        output_schema: None,
        reasoning: None,
        further: serde_json::Map::new(),
    }
}

fn body(request: &ModelRequest) -> Value {
    body_signed(request, true)
}

fn body_signed(request: &ModelRequest, signed: bool) -> Value {
    let rules = (PROFILE.rules)(&request.model);
    let wire = Wire { provider: "anthropic", rules, stream: true, signed };
    wire.anthropic_body(request)
}

#[test]
fn system_limit_tools_and_temperature_stand_where_they_belong() {
    let messages = vec![text(Role::System, "a"), text(Role::System, "b"), text(Role::User, "q")];
    let body = body(&request(MODEL, messages));
    assert_eq!(body["system"], "a\n\nb");
    assert_eq!(body["max_tokens"], 32_000);
    assert_eq!(body["temperature"], 1.0, "its scale ends at 1");
    assert_eq!(body["stream"], true);
    assert!(body.get("stream_options").is_none() && body.get("thinking").is_none());
    let schema = json!({ "type": "object", "properties": {} });
    let tool = json!({ "name": "add", "description": "adds", "input_schema": schema });
    assert_eq!(body["tools"], json!([tool]));
    let question = json!({ "role": "user", "content": [{ "type": "text", "text": "q" }] });
    assert_eq!(body["messages"], json!([question]));
}

#[test]
fn results_of_parallel_calls_stand_in_one_message_and_roles_alternate() {
    let history = vec![
        asks("openai/gpt-5", &["a", "b|c"]),
        answers("b|c", "2"),
        text(Role::User, "and now?"),
        text(Role::Assistant, "  "),
        text(Role::Assistant, "done"),
    ];
    let body = body(&request(MODEL, history));
    let messages = body["messages"].as_array().unwrap();
    let shown: Vec<String> = messages
        .iter()
        .map(|m| {
            let types: Vec<&str> = m["content"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|b| b["type"].as_str())
                .collect();
            format!("{} {}", m["role"].as_str().unwrap(), types.join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "user text",
            "assistant tool_use tool_use",
            "user tool_result tool_result text",
            "assistant text",
            "user text"
        ]
    );
    let (calls, results) = (&messages[1]["content"], &messages[2]["content"]);
    assert_eq!((&calls[0]["id"], &results[0]["tool_use_id"]), (&json!("a"), &json!("a")));
    assert_eq!(calls[1]["id"], "call_0_1", "an id that is no word is replaced");
    assert_eq!(
        (&results[1]["tool_use_id"], &results[1]["content"]),
        (&json!("call_0_1"), &json!("2"))
    );
    assert!(results[0]["content"].as_str().unwrap().contains("not_run"));
}

#[test]
fn fact_25_signed_blocks_return_verbatim_to_their_model_alone() {
    let history = |model| vec![text(Role::User, "q"), signed(model, "a"), answers("a", "1")];
    let own = body(&request(MODEL, history(MODEL)));
    assert_eq!(own["messages"][1]["content"], signed(MODEL, "a").opaque.unwrap()[BLOCKS]);
    for other in
        [body(&request(MODEL, history(OLDER))), body_signed(&request(MODEL, history(MODEL)), false)]
    {
        assert_eq!(other["messages"][1]["content"][0]["type"], "tool_use");
        assert!(!other.to_string().contains("sig"), "{other}");
    }
    let mut edited = history(MODEL);
    edited[1].content = "a person changed it".into();
    let edited = body(&request(MODEL, edited));
    assert_eq!(edited["messages"][1]["content"][0]["text"], "a person changed it");
}

#[test]
fn a_call_that_a_person_changed_is_told_as_it_was_made() {
    for (author, call) in [(MODEL, 1), (OLDER, 0)] {
        let result = Message { edited_arguments: Some(json!({ "x": 5 })), ..answers("a", "done") };
        let body = body(&request(MODEL, vec![text(Role::User, "q"), signed(author, "a"), result]));
        // What this model signed goes back as it signed it.
        let input = if author == MODEL { 1 } else { 5 };
        assert_eq!(body["messages"][1]["content"][call]["input"], json!({ "x": input }));
        assert_eq!(
            body["messages"][2]["content"][0]["content"],
            "[A person changed the arguments of this call to {\"x\":5}]\ndone"
        );
    }
}

#[test]
fn thinking_is_asked_for_where_the_request_may_have_it() {
    let ask = |model: &str, effort, messages: Vec<Message>| ModelRequest {
        reasoning: Some(effort),
        ..request(model, messages)
    };
    let question = || vec![text(Role::User, "q")];
    let adaptive = body(&ask(MODEL, Effort::High, question()));
    assert_eq!(adaptive["thinking"]["type"], "adaptive");
    assert_eq!(adaptive["output_config"]["effort"], "high");
    assert!(adaptive.get("temperature").is_none(), "thinking takes none");
    let budget = body(&ask(OLDER, Effort::Medium, question()));
    assert_eq!(budget["thinking"], json!({ "type": "enabled", "budget_tokens": 8192 }));
    for plain in [
        body(&ask(MODEL, Effort::None, question())),
        body(&ask("claude-3-haiku-20240307", Effort::High, question())),
        body(&ModelRequest {
            tool_choice: ToolChoice::Required,
            ..ask(MODEL, Effort::High, question())
        }),
        body(&ModelRequest { max_tokens: Some(1200), ..ask(OLDER, Effort::High, question()) }),
    ] {
        assert!(plain.get("thinking").is_none() && plain.get("temperature").is_some(), "{plain}");
    }
    let foreign = vec![text(Role::User, "q"), asks("openai/gpt-5", &["a"]), answers("a", "1")];
    assert!(body(&ask(OLDER, Effort::High, foreign.clone())).get("thinking").is_none());
    assert!(body(&ask(MODEL, Effort::High, foreign)).get("thinking").is_some());
    let own = vec![text(Role::User, "q"), signed(OLDER, "a"), answers("a", "1")];
    assert!(body(&ask(OLDER, Effort::High, own)).get("thinking").is_some());
}

#[test]
fn pictures_and_schemas_have_its_own_form() {
    let image = |url: &str| Image::parse(url).unwrap();
    let images = vec![image("https://example.com/a.png"), image("data:image/png;base64,AAAA")];
    let mut asked = request(MODEL, vec![Message { images, ..text(Role::User, "") }]);
    let closed = json!({ "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": { "a": { "type": "string" } } });
    asked.output_schema = Some(closed.clone());
    let sent = body(&asked);
    assert_eq!(
        sent["messages"][0]["content"],
        json!([
            { "type": "image", "source": { "type": "url", "url": "https://example.com/a.png" } },
            { "type": "image",
              "source": { "type": "base64", "media_type": "image/png", "data": "AAAA" } },
        ])
    );
    assert_eq!(sent["output_config"]["format"], json!({ "type": "json_schema", "schema": closed }));
    asked.output_schema = Some(json!({ "type": "object", "properties": { "a": {} } }));
    assert!(body(&asked).get("output_config").is_none(), "an open one cannot be enforced");
}
