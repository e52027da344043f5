//! Bodies, shown as JSON.

use exile_engine::id::MessageId;
use exile_engine::message::{Message, ToolCall};
use exile_engine::tool::Effect;

use super::*;
use crate::providers::profile::CallIds;
use crate::providers::{PROFILES, compatible};

fn text(role: Role, content: &str) -> Message {
    Message::text(MessageId::from("m"), role, content)
}

fn asks(model: &str, reasoning: Option<&str>, ids: &[&str]) -> Message {
    let call = |id: &&str| ToolCall {
        id: (*id).to_owned(),
        name: "add".into(),
        arguments: "{\"x\":1}".into(),
        opaque: Some(json!({ "extra_content": { "google": { "thought_signature": id } } })),
    };
    Message {
        model: Some(model.to_owned()),
        reasoning: reasoning.map(str::to_owned),
        tool_calls: ids.iter().map(call).collect(),
        ..text(Role::Assistant, "")
    }
}

fn answers(id: &str, content: &str) -> Message {
    Message { tool_call_id: Some(id.to_owned()), ..text(Role::Tool, content) }
}

fn request(model: &str, messages: Vec<Message>) -> ModelRequest {
    let schema = json!({ "$schema": "x", "type": "object", "properties": {} });
    ModelRequest {
        model: model.into(),
        messages: messages.into_iter().map(std::sync::Arc::new).collect(),
        tools: vec![ToolSpec::new("add", "adds", schema, Effect::Pure, "native")],
        tool_choice: ToolChoice::Auto,
        temperature: Some(0.5),
        max_tokens: Some(64),
        output_schema: None,
        reasoning: None,
        further: serde_json::Map::new(),
    }
}

fn body(provider: &str, request: &ModelRequest) -> Value {
    let profile = PROFILES.iter().find(|p| p.name == provider);
    let profile = profile.unwrap_or(&compatible::PROFILE);
    let rules = (profile.rules)(&request.model);
    Wire { provider, rules, stream: false, signed: true }.body(request)
}

#[test]
fn fact_10_reasoning_models_get_their_own_limit_and_no_temperature() {
    let new = body("openai", &request("gpt-5.1", vec![text(Role::User, "hi")]));
    assert_eq!(new["max_completion_tokens"], 64);
    assert!(new.get("max_tokens").is_none() && new.get("temperature").is_none());
    let old = body("openai", &request("gpt-4.1", vec![text(Role::User, "hi")]));
    assert_eq!((&old["max_tokens"], &old["temperature"]), (&json!(64), &json!(0.5)));
}

#[test]
fn fact_16_own_reasoning_returns_and_foreign_turns_are_empty() {
    let history = vec![
        text(Role::User, "q"),
        asks("deepseek/deepseek-flash", Some("because"), &["a"]),
        answers("a", "1"),
        asks("deepseek/deepseek-flash", Some(""), &["b"]),
        answers("b", "2"),
        asks("openai/gpt-5", Some("not yours"), &["c"]),
        answers("c", "3"),
    ];
    let body = body("deepseek", &request("deepseek-flash", history.clone()));
    let echoed: Vec<&Value> =
        [1, 3, 5].iter().map(|i| &body["messages"][*i]["reasoning_content"]).collect();
    assert_eq!(echoed, [&json!("because"), &json!(""), &json!("")]);
    let elsewhere = super::tests::body("openai", &request("gpt-4.1", history));
    assert!(elsewhere["messages"][1].get("reasoning_content").is_none());
}

#[test]
fn fact_17_a_forced_tool_switches_thinking_off() {
    let mut asked = request("deepseek-flash", vec![text(Role::User, "q")]);
    assert!(body("deepseek", &asked).get("thinking").is_none());
    asked.tool_choice = ToolChoice::None;
    assert!(body("deepseek", &asked).get("thinking").is_none());
    asked.tool_choice = ToolChoice::Named("add".into());
    let forced = body("deepseek", &asked);
    assert_eq!(forced["thinking"]["type"], "disabled");
    assert_eq!(forced["tool_choice"]["function"]["name"], "add");
}

#[test]
fn fact_21_signatures_return_to_their_model_and_strangers_get_the_stand_in() {
    let history = vec![
        asks("gemini/gemini-3-flash", None, &["a", "b"]),
        answers("a", "1"),
        answers("b", "2"),
        asks("gemini/gemini-2.5-pro", None, &["c"]),
        answers("c", "3"),
        asks("deepseek/deepseek-flash", None, &["d", "e"]),
        answers("d", "4"),
        answers("e", "5"),
    ];
    let body = body("gemini", &request("gemini-3-flash", history));
    let signature = |message: usize, call: usize| {
        body["messages"][message]["tool_calls"][call]["extra_content"]["google"]
            ["thought_signature"]
            .as_str()
    };
    let stand_in = Some("skip_thought_signature_validator");
    assert_eq!((signature(0, 0), signature(0, 1)), (Some("a"), Some("b")));
    assert_eq!(signature(3, 0), stand_in);
    assert_eq!((signature(5, 0), signature(5, 1)), (stand_in, None));
}

#[test]
fn every_call_is_followed_by_its_answer_and_no_answer_is_orphaned() {
    let history = vec![
        answers("ghost", "no call"),
        asks("x/y", None, &["a", "b"]),
        text(Role::User, "meanwhile"),
        answers("b", "2"),
        answers("a", "1"),
        answers("a", "again"),
    ];
    let body = body("openai", &request("gpt-4.1", history));
    let shown: Vec<String> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| format!("{} {}", m["role"].as_str().unwrap(), m["content"]))
        .collect();
    assert_eq!(shown, ["assistant null", "tool \"1\"", "tool \"2\"", "user \"meanwhile\""]);
    let open = super::tests::body("openai", &request("g", vec![asks("x/y", None, &["a"])]));
    assert!(open["messages"][1]["content"].as_str().unwrap().contains("not_run"));
}

#[test]
fn ids_and_arguments_that_others_refuse_are_replaced() {
    let long = "call_".repeat(30);
    let mut message = asks("x/y", None, &[&long]);
    message.tool_calls[0].arguments = "{\"x\":".into();
    let body = body("openai", &request("g", vec![message, answers(&long, "ok")]));
    let call = &body["messages"][0]["tool_calls"][0];
    assert_eq!(
        (&call["id"], &body["messages"][1]["tool_call_id"]),
        (&json!("call_0_0"), &json!("call_0_0"))
    );
    assert_eq!(call["function"]["arguments"], "{}");
    assert_eq!(body["messages"][1]["content"], "ok");
}

#[test]
fn a_call_that_a_person_changed_is_told_as_it_was_made() {
    let changed = |author| {
        let result =
            Message { edited_arguments: Some(json!({ "x": 5 })), ..answers("a", "it is done") };
        vec![text(Role::User, "q"), asks(author, None, &["a", "b"]), result, answers("b", "2")]
    };
    let told = "[A person changed the arguments of this call to {\"x\":5}]\nit is done";
    // What this model signed goes back as it signed it.
    for (author, first) in
        [("gemini/gemini-3-flash", "{\"x\":1}"), ("gemini/gemini-2.5-pro", "{\"x\":5}")]
    {
        let body = body("gemini", &request("gemini-3-flash", changed(author)));
        let arguments = |call: usize| {
            body["messages"][1]["tool_calls"][call]["function"]["arguments"].as_str().unwrap()
        };
        assert_eq!((arguments(0), arguments(1)), (first, "{\"x\":1}"), "{author}");
        assert_eq!(body["messages"][2]["content"], told, "{author}");
        assert_eq!(body["messages"][3]["content"], "2", "{author}");
    }
}

#[test]
fn system_texts_are_one_message() {
    let messages = vec![text(Role::System, "a"), text(Role::System, "b"), text(Role::User, "c")];
    let body = body("openai", &request("g", messages));
    assert_eq!(body["messages"][0], json!({ "role": "system", "content": "a\n\nb" }));
    assert_eq!(body["messages"].as_array().unwrap().len(), 2);
    assert!(body["tools"][0]["function"]["parameters"].get("$schema").is_none());
}

#[test]
fn fact_12_a_schema_is_strict_only_if_it_is_closed() {
    let mut asked = request("m", vec![text(Role::User, "q")]);
    let closed = json!({ "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": { "a": { "type": "array", "items": { "type": "string" } } } });
    let format = |schema: &Value, asked: &mut ModelRequest, provider: &str| {
        asked.output_schema = Some(schema.clone());
        body(provider, asked)["response_format"].clone()
    };
    assert_eq!(format(&closed, &mut asked, "openai")["json_schema"]["strict"], true);
    let mut open = closed.clone();
    open["required"] = json!([]);
    assert_eq!(format(&open, &mut asked, "openai")["json_schema"]["strict"], false);
    let nested = json!({ "type": "array", "items": open });
    assert_eq!(format(&nested, &mut asked, "openai"), Value::Null, "the root is no object");
    assert_eq!(format(&closed, &mut asked, "deepseek")["type"], "json_object");
    assert_eq!(format(&nested, &mut asked, "deepseek"), Value::Null);
    assert_eq!(format(&closed, &mut asked, "gemini"), Value::Null);
    assert_eq!(format(&closed, &mut asked, "other"), Value::Null);
}

#[test]
fn streams_ask_for_usage() {
    let request = request("m", vec![text(Role::User, "q")]);
    let rules = Rules::PLAIN;
    let body = Wire { provider: "x", rules, stream: true, signed: true }.body(&request);
    assert_eq!(body["stream_options"]["include_usage"], true);
}

/// The fields of a body that say how hard to think, and the temperature.
fn thinking(provider: &str, model: &str, effort: Effort) -> Value {
    let asked =
        ModelRequest { reasoning: Some(effort), ..request(model, vec![text(Role::User, "q")]) };
    let body = body(provider, &asked);
    let fields = ["thinking", "reasoning_effort", "reasoning", "temperature"];
    let fields = fields.iter().filter_map(|f| Some(((*f).to_owned(), body.get(*f)?.clone())));
    Value::Object(fields.collect())
}

#[test]
fn each_provider_is_told_how_hard_to_think_in_its_own_words() {
    use Effort::{High, Low, Max, Medium, None};
    for (provider, model, effort, expected) in [
        ("openai", "gpt-5.1", None, json!({ "reasoning_effort": "none", "temperature": 0.5 })),
        ("openai", "gpt-5.2", Max, json!({ "reasoning_effort": "xhigh" })),
        ("openai", "gpt-4.1", High, json!({ "temperature": 0.5 })),
        ("azure", "o3", None, json!({ "reasoning_effort": "low" })),
        (
            "gemini",
            "gemini-3-flash",
            Max,
            json!({ "reasoning_effort": "high", "temperature": 0.5 }),
        ),
        (
            "openrouter",
            "x/y",
            High,
            json!({ "reasoning": { "effort": "high" }, "temperature": 0.5 }),
        ),
        (
            "openrouter",
            "x/y",
            None,
            json!({ "reasoning": { "enabled": false }, "temperature": 0.5 }),
        ),
        ("xai", "grok-4", High, json!({ "temperature": 0.5 })),
        ("xai", "grok-3-mini", Medium, json!({ "reasoning_effort": "high", "temperature": 0.5 })),
        (
            "groq",
            "openai/gpt-oss-20b",
            Max,
            json!({ "reasoning_effort": "high", "temperature": 0.5 }),
        ),
        ("mistral", "ministral-3b", High, json!({ "temperature": 0.5 })),
        ("other", "m", Low, json!({ "reasoning_effort": "low", "temperature": 0.5 })),
    ] {
        assert_eq!(thinking(provider, model, effort), expected, "{provider}/{model} {effort:?}");
    }
}

#[test]
fn fact_15_deepseek_has_a_switch_and_three_words() {
    let of = |effort| thinking("deepseek", "deepseek-flash", effort);
    let on = |word: &str| json!({ "thinking": { "type": "enabled" }, "reasoning_effort": word, "temperature": 0.5 });
    assert_eq!(of(Effort::None), json!({ "thinking": { "type": "disabled" }, "temperature": 0.5 }));
    for (effort, word) in [
        (Effort::Minimal, "low"),
        (Effort::Low, "low"),
        (Effort::Medium, "high"),
        (Effort::High, "high"),
        (Effort::Max, "max"),
    ] {
        assert_eq!(of(effort), on(word));
    }
}

#[test]
fn fact_26_reasoning_returns_under_its_own_name_to_the_model_that_wrote_it() {
    let mut message = asks("vllm/qwen", Some("so"), &["a"]);
    message.opaque = Some(json!({ REASONING_FIELD: "reasoning" }));
    let history = vec![message, answers("a", "1")];
    let own = body("vllm", &request("qwen", history.clone()));
    assert_eq!(own["messages"][0]["reasoning"], "so");
    for (provider, model) in [("vllm", "other"), ("groq", "qwen"), ("mistral", "qwen")] {
        let elsewhere = body(provider, &request(model, history.clone()));
        let text = elsewhere["messages"][0].to_string();
        assert!(!text.contains("so\"") && !text.contains(REASONING_FIELD), "{provider} {text}");
    }
}

#[test]
fn mistral_takes_ids_of_nine_letters_and_the_last_word_is_the_users() {
    let mut history = vec![asks("x/y", None, &["call_a", "Abcdef123"]), answers("call_a", "1")];
    history.extend([answers("Abcdef123", "2"), text(Role::Assistant, "done")]);
    let body = body("mistral", &request("m", history));
    let calls = &body["messages"][0]["tool_calls"];
    assert_eq!((&calls[0]["id"], &calls[1]["id"]), (&json!("c00000000"), &json!("Abcdef123")));
    assert_eq!(body["messages"][1]["tool_call_id"], "c00000000");
    assert_eq!(body["messages"][4], json!({ "role": "user", "content": GO_ON }));
    assert!(body.get("stream_options").is_none());
    assert_eq!(Rules::PLAIN.call_ids, CallIds::Words);
}

#[test]
fn an_id_that_comes_back_in_a_later_turn_is_replaced() {
    let history = vec![asks("x/y", None, &["a"]), answers("a", "1"), asks("x/y", None, &["a"])];
    let body = body("openai", &request("g", [history, vec![answers("a", "2")]].concat()));
    let messages = &body["messages"];
    assert_eq!(
        (&messages[0]["tool_calls"][0]["id"], &messages[1]["content"]),
        (&json!("a"), &json!("1"))
    );
    assert_eq!(messages[2]["tool_calls"][0]["id"], "call_2_0");
    assert_eq!(
        (&messages[3]["tool_call_id"], &messages[3]["content"]),
        (&json!("call_2_0"), &json!("2"))
    );
}

#[test]
fn names_that_a_model_made_up_are_sent_as_words() {
    let mut message = asks("x/y", None, &["a"]);
    message.tool_calls[0].name = "delete all\r\nfiles!".into();
    let body = body("openai", &request("g", vec![message]));
    assert_eq!(body["messages"][0]["tool_calls"][0]["function"]["name"], "delete_all__files_");
}

#[test]
fn pictures_are_seen_or_told_of() {
    let image = |url: &str| exile_engine::message::Image::parse(url).unwrap();
    let data = "data:image/png;base64,iVBORw0KGgo=";
    let images = vec![image("https://example.com/a.png"), image(data)];
    let seen = Message { images, ..text(Role::User, "what is this?") };
    let sent = body("openai", &request("gpt-4.1", vec![seen.clone()]));
    let parts = json!([{ "type": "text", "text": "what is this?" },
        { "type": "image_url", "image_url": { "url": "https://example.com/a.png" } },
        { "type": "image_url", "image_url": { "url": data } }]);
    assert_eq!(sent["messages"][0]["content"], parts);
    let told = body("deepseek", &request("deepseek-v4-pro", vec![seen]));
    let told = told["messages"][0]["content"].as_str().unwrap();
    assert!(told.contains("cannot see") && told.ends_with("what is this?"), "{told}");
}

#[test]
fn a_model_that_cannot_think_and_call_tools_at_once_calls_tools() {
    let asks = |model: &str, tools: bool| {
        let mut request = request(model, vec![text(Role::User, "go")]);
        request.reasoning = Some(Effort::High);
        if !tools {
            request.tools.clear();
        }
        body("openai", &request)["reasoning_effort"].clone()
    };
    assert_eq!(asks("gpt-5.6-luna", true), "none");
    assert_eq!(asks("gpt-5.6-luna", false), "high");
    assert_eq!(asks("gpt-5.1", true), "high");
}
