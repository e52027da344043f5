//! Events as Anthropic sends them.

use exile_engine::model::ModelReply;

use super::*;

fn assemble(events: &[Value]) -> ModelReply {
    let mut assembler = Assembler::default();
    for event in events {
        assembler.take(event, &mut Vec::new()).unwrap();
    }
    let whole = events[0]["type"] == "message";
    Box::new(assembler).close().reply("asked", whole, &mut || "new".into())
}

fn start(index: u64, block: &Value) -> Value {
    json!({ "type": "content_block_start", "index": index, "content_block": block })
}

fn delta(index: u64, delta: &Value) -> Value {
    json!({ "type": "content_block_delta", "index": index, "delta": delta })
}

fn json_delta(index: u64, text: &str) -> Value {
    delta(index, &json!({ "type": "input_json_delta", "partial_json": text }))
}

fn tool_use(id: &str) -> Value {
    json!({ "type": "tool_use", "id": id, "name": "add", "input": {} })
}

fn end(reason: &str) -> Value {
    json!({ "type": "message_delta", "delta": { "stop_reason": reason },
        "usage": { "output_tokens": 9 } })
}

fn message(usage: &Value) -> Value {
    json!({ "type": "message_start", "message": { "id": "m1", "model": "claude", "content": [],
        "usage": usage, "stop_reason": null } })
}

#[test]
fn fact_25_usage_is_cumulative_and_input_counts_the_cache() {
    let reply = assemble(&[
        message(&json!({ "input_tokens": 10, "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 1000, "output_tokens": 1 })),
        json!({ "type": "ping" }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" },
            "usage": { "output_tokens": 5, "output_tokens_details": { "thinking_tokens": 3 } } }),
        json!({ "type": "message_stop" }),
    ]);
    let expected = Usage { input: 1110, cached: 100, written: 1000, output: 5, reasoning: 3 };
    assert_eq!((reply.usage, reply.finish), (Some(expected), Finish::Stop));
    assert_eq!((reply.id.as_deref(), &*reply.model), (Some("m1"), "claude"));
}

#[test]
fn fact_25_signed_thinking_is_kept_as_blocks() {
    let reply = assemble(&[
        message(&Value::Null),
        start(0, &json!({ "type": "thinking", "thinking": "", "signature": "" })),
        delta(0, &json!({ "type": "thinking_delta", "thinking": "h" })),
        delta(0, &json!({ "type": "thinking_delta", "thinking": "m" })),
        delta(0, &json!({ "type": "signature_delta", "signature": "sig" })),
        start(1, &json!({ "type": "redacted_thinking", "data": "xx" })),
        start(2, &tool_use("a")),
        json_delta(2, ""),
        json_delta(2, "{\"x\""),
        json_delta(2, ": 1}"),
        end("tool_use"),
    ]);
    assert_eq!((reply.reasoning.as_deref(), reply.finish), (Some("hm"), Finish::ToolCalls));
    assert_eq!(reply.tool_calls[0].arguments, "{\"x\": 1}");
    let blocks = json!([{ "type": "thinking", "thinking": "hm", "signature": "sig" },
        { "type": "redacted_thinking", "data": "xx" },
        { "type": "tool_use", "id": "a", "name": "add", "input": { "x": 1 } }]);
    assert_eq!(reply.opaque, Some(json!({ BLOCKS: blocks })));
}

#[test]
fn parallel_calls_keep_their_arguments_apart_and_text_needs_no_blocks() {
    let reply = assemble(&[
        message(&Value::Null),
        start(0, &json!({ "type": "text", "text": "" })),
        delta(0, &json!({ "type": "text_delta", "text": "Both." })),
        start(1, &tool_use("a")),
        start(2, &tool_use("b")),
        json_delta(1, "{\"x\":1}"),
        json_delta(2, "{\"x\":2}"),
        end("tool_use"),
    ]);
    let arguments: Vec<&str> = reply.tool_calls.iter().map(|c| c.arguments.as_str()).collect();
    assert_eq!((arguments, &*reply.content), (vec!["{\"x\":1}", "{\"x\":2}"], "Both."));
    assert_eq!(reply.opaque, None);
}

#[test]
fn fact_07_a_call_cut_by_the_token_limit_is_not_given_out() {
    for (arguments, reason) in
        [("", "max_tokens"), ("{\"x\": ", "max_tokens"), ("", "refusal"), ("{\"x\"", "refusal")]
    {
        let stop = json!({ "type": "content_block_stop", "index": 0 });
        let events = [
            message(&Value::Null),
            start(0, &tool_use("a")),
            json_delta(0, arguments),
            stop,
            end(reason),
        ];
        assert_eq!(assemble(&events).tool_calls, [], "{arguments} {reason}");
    }
}

#[test]
fn a_whole_message_reads_like_its_stream() {
    let reply = assemble(&[json!({ "type": "message", "id": "m1", "model": "claude",
        "content": [{ "type": "thinking", "thinking": "hm", "signature": "s" },
            { "type": "text", "text": "7" }, tool_use("a")],
        "stop_reason": "tool_use", "usage": { "input_tokens": 1, "output_tokens": 2 } })]);
    assert_eq!((&*reply.content, reply.reasoning.as_deref()), ("7", Some("hm")));
    assert_eq!(reply.tool_calls[0].arguments, "{}");
    assert!(reply.opaque.is_some());
}

#[test]
fn fact_04_an_overload_may_be_the_first_event() {
    let event =
        json!({ "type": "error", "error": { "type": "overloaded_error", "message": "busy" } });
    let fault = Assembler::default().take(&event, &mut Vec::new()).unwrap_err();
    assert_eq!(fault.code(), "provider_unavailable");
}

#[test]
fn fact_05_what_is_unknown_passes_and_is_kept() {
    let odd = json!({ "type": "server_tool_use", "id": "s", "name": "web_search", "input": {} });
    let reply = assemble(&[
        message(&Value::Null),
        json!({ "type": "a_later_event", "x": 1 }),
        start(0, &odd),
        start(1, &json!("no block at all")),
        delta(7, &json!({ "type": "text_delta", "text": "nobody's" })),
        delta(0, &json!({ "type": "a_later_delta" })),
        end("end_turn"),
    ]);
    assert_eq!((&*reply.content, reply.tool_calls.len()), ("", 0));
    assert_eq!(reply.opaque.unwrap()[BLOCKS][0], odd);
}
