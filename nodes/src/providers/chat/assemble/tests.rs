//! Chunks as the named servers send them.
#![allow(clippy::needless_pass_by_value, reason = "literals are handed over")]

use exile_engine::model::ModelReply;

use super::*;

/// Assembles chunks; calls are shown as `id name arguments`, minted ids as `new1`, `new2`, ….
fn assemble(chunks: &[Value]) -> ModelReply {
    let mut assembler = Assembler::default();
    for chunk in chunks {
        assembler.take(chunk, &mut Vec::new()).unwrap();
    }
    let mut minted = 0;
    let whole = chunks.iter().any(|chunk| !chunk["choices"][0]["message"].is_null());
    Box::new(assembler).close().reply("asked", whole, &mut || {
        minted += 1;
        format!("new{minted}")
    })
}

fn delta(delta: Value) -> Value {
    json!({ "choices": [{ "index": 0, "delta": delta }] })
}

/// One chunk per fragment, then `finish`.
fn check_calls(finish: &str, fragments: Value, expected: &[&str]) {
    let mut chunks: Vec<Value> =
        fragments.as_array().unwrap().iter().map(|f| delta(json!({ "tool_calls": [f] }))).collect();
    chunks.push(json!({ "choices": [{ "delta": {}, "finish_reason": finish }] }));
    let reply = assemble(&chunks);
    let calls: Vec<String> =
        reply.tool_calls.iter().map(|c| format!("{} {} {}", c.id, c.name, c.arguments)).collect();
    assert_eq!(calls, expected);
}

fn call(index: Value, id: Value, name: &str, arguments: &str) -> Value {
    json!({ "index": index, "id": id, "function": { "name": name, "arguments": arguments } })
}

fn more(index: Value, arguments: &str) -> Value {
    json!({ "index": index, "function": { "arguments": arguments } })
}

#[test]
fn fact_06_fragments_are_keyed_by_index() {
    check_calls(
        "tool_calls",
        json!([
            call(json!(0), json!("a"), "add", ""),
            more(json!(0), "{\"x\""),
            call(json!(1), json!("b"), "sub", ""),
            more(json!(0), ":1}"),
            more(json!(1), "{}"),
        ]),
        &["a add {\"x\":1}", "b sub {}"],
    );
}

#[test]
fn fact_06_all_at_index_zero() {
    check_calls(
        "tool_calls",
        json!([
            call(json!(0), json!("a"), "add", "{\"x\":1}"),
            call(json!(0), json!("b"), "add", "{\"x\":"),
            more(json!(0), "2}"),
        ]),
        &["a add {\"x\":1}", "b add {\"x\":2}"],
    );
}

#[test]
fn fact_06_index_starts_at_one_or_is_missing() {
    check_calls(
        "tool_calls",
        json!([call(json!(1), json!("a"), "add", ""), more(json!(1), "{}")]),
        &["a add {}"],
    );
    check_calls(
        "tool_calls",
        json!([
            call(Value::Null, json!("a"), "add", "{\"x\":"),
            more(Value::Null, "1}"),
            call(Value::Null, json!("b"), "sub", "{}"),
        ]),
        &["a add {\"x\":1}", "b sub {}"],
    );
}

#[test]
fn fact_06_empty_ids_are_minted() {
    check_calls(
        "stop",
        json!([
            call(json!(0), json!(""), "add", "{\"x\":1}"),
            call(json!(0), json!(""), "add", "{\"x\":2}"),
            call(json!(0), Value::Null, "sub", "{}"),
        ]),
        &["new1 add {\"x\":1}", "new2 add {\"x\":2}", "new3 sub {}"],
    );
}

#[test]
fn fact_06_one_id_at_two_indices_is_one_call() {
    check_calls(
        "tool_calls",
        json!([call(json!(0), json!("a"), "add", "{\"x\""), call(json!(1), json!("a"), "", ":1}")]),
        &["a add {\"x\":1}"],
    );
}

#[test]
fn fact_06_a_repeated_name_goes_on_and_an_object_is_whole() {
    check_calls(
        "tool_calls",
        json!([
            call(json!(0), json!("a"), "add", ""),
            call(json!(0), json!("a"), "add", "{\"x\":"),
            call(json!(0), Value::Null, "add", "1}"),
            { "id": "b", "function": { "name": "sub", "arguments": { "y": 2 } } },
        ]),
        &["a add {\"x\":1}", "b sub {\"y\":2}"],
    );
}

#[test]
fn fact_07_a_cut_answer_keeps_whole_calls_only() {
    let fragments = json!([
        call(json!(0), json!("a"), "add", "{\"x\":1}"),
        call(json!(1), json!("b"), "add", "{\"x\":"),
        call(json!(2), json!("c"), "add", ""),
    ]);
    check_calls("length", fragments.clone(), &["a add {\"x\":1}"]);
    check_calls("content_filter", fragments, &["a add {\"x\":1}"]);
}

#[test]
fn fact_07_a_stream_that_was_broken_off_or_never_says_why_it_ended_keeps_whole_calls_only() {
    let chunk = delta(json!({ "tool_calls": [call(json!(0), json!("a"), "wipe", "")] }));
    assert_eq!(assemble(std::slice::from_ref(&chunk)).tool_calls, []);
    let refused = json!({ "choices": [{ "delta": {}, "finish_reason": "refusal" }] });
    assert_eq!(assemble(&[chunk.clone(), refused]).tool_calls, []);
    let aborted = json!({ "choices": [{ "delta": {}, "finish_reason": "abort" }] });
    let fault = Assembler::default().take(&aborted, &mut Vec::new()).unwrap_err();
    assert_eq!(fault.code(), "provider_unavailable");
}

#[test]
fn fact_08_stop_with_calls_is_a_call_and_empty_arguments_stay() {
    check_calls("stop", json!([call(json!(0), json!("a"), "now", "")]), &["a now "]);
}

#[test]
fn fact_03_usage_on_a_chunk_of_its_own_or_on_the_last() {
    let usage = json!({ "prompt_tokens": 9, "completion_tokens": 4,
        "prompt_tokens_details": { "cached_tokens": 8 },
        "completion_tokens_details": { "reasoning_tokens": 3 } });
    let expected = Some(Usage { input: 9, cached: 8, written: 0, output: 4, reasoning: 3 });
    let own = assemble(&[
        json!({ "choices": [{ "delta": { "content": "hi" } }], "usage": null }),
        json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }], "usage": null }),
        json!({ "choices": [], "usage": usage }),
    ]);
    assert_eq!((own.usage, own.content.as_str()), (expected, "hi"));
    let last = assemble(&[
        json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }], "usage": usage }),
    ]);
    assert_eq!(last.usage, expected);
    let deepseek = assemble(&[json!({ "choices": [{ "delta": {} }],
        "usage": { "prompt_tokens": 5, "completion_tokens": 1, "prompt_cache_hit_tokens": 4 } })]);
    assert_eq!(deepseek.usage.unwrap().cached, 4);
}

#[test]
fn fact_05_unknown_fields_pass() {
    let reply = assemble(&[json!({ "obfuscation": "x", "service_tier": "default", "id": "r1",
        "model": "gpt-x", "choices": [{ "delta": { "content": "ok", "annotations": [] },
        "logprobs": null }] })]);
    assert_eq!((reply.content.as_str(), reply.model.as_str()), ("ok", "gpt-x"));
    assert_eq!(reply.id.as_deref(), Some("r1"));
}

#[test]
fn fact_09_a_refusal_is_the_content() {
    let reply = assemble(&[
        delta(json!({ "refusal": "I can't " })),
        delta(json!({ "refusal": "help." })),
        json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] }),
    ]);
    assert_eq!((reply.content.as_str(), reply.finish), ("I can't help.", Finish::Refused));
}

#[test]
fn fact_09_lack_of_resources_is_a_failure() {
    let chunk = json!({ "choices": [{ "delta": {},
        "finish_reason": "insufficient_system_resource" }] });
    let fault = Assembler::default().take(&chunk, &mut Vec::new()).unwrap_err();
    assert_eq!(fault.code(), "provider_unavailable");
}

#[test]
fn fact_16_an_empty_reasoning_is_not_none() {
    assert_eq!(assemble(&[delta(json!({ "content": "x" }))]).reasoning, None);
    assert_eq!(assemble(&[delta(json!({ "reasoning_content": null }))]).reasoning, None);
    let empty = assemble(&[delta(json!({ "reasoning_content": "" }))]);
    assert_eq!(empty.reasoning.as_deref(), Some(""));
    let both = assemble(&[delta(json!({ "reasoning": "a", "reasoning_content": "a" }))]);
    assert_eq!(both.reasoning.as_deref(), Some("a"));
}

#[test]
fn fact_26_reasoning_is_kept_under_the_name_it_came_with() {
    for field in ["reasoning", "reasoning_content"] {
        let reply = assemble(&[delta(json!({ field: "hm" }))]);
        assert_eq!(reply.reasoning.as_deref(), Some("hm"));
        assert_eq!(reply.opaque, Some(json!({ REASONING_FIELD: field })));
    }
}

#[test]
fn signed_reasoning_in_pieces_is_one_piece_again() {
    let piece = |fields: Value| {
        let mut piece = json!({ "type": "reasoning.text", "format": "f", "index": 0 });
        piece.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        piece
    };
    let reply = assemble(&[
        delta(json!({ "reasoning": "I ", "reasoning_details": [piece(json!({ "text": "I " }))] })),
        delta(
            json!({ "reasoning": "see", "reasoning_details": [piece(json!({ "text": "see" }))] }),
        ),
        delta(json!({ "reasoning_details": [piece(json!({ "signature": "sig" }))] })),
        delta(json!({ "reasoning_details": [
            { "type": "reasoning.encrypted", "index": 1, "data": "xx", "id": "r" }] })),
    ]);
    assert_eq!(reply.reasoning.as_deref(), Some("I see"));
    assert_eq!(
        reply.opaque.unwrap()["reasoning_details"],
        json!([piece(json!({ "text": "I see", "signature": "sig" })),
            { "type": "reasoning.encrypted", "index": 1, "data": "xx", "id": "r" }])
    );
}

#[test]
fn of_several_choices_the_first_is_read() {
    let choice = |index: u64, text: &str| json!({ "choices": [{ "index": index, "delta": { "content": text } }] });
    let reply = assemble(&[choice(0, "a"), choice(1, "x"), choice(0, "b"), choice(1, "y")]);
    assert_eq!(reply.content, "ab");
}

#[test]
fn fact_21_signatures_are_kept_with_their_call() {
    let extra = json!({ "google": { "thought_signature": "sig" } });
    let reply = assemble(&[
        delta(json!({ "tool_calls": [
            { "index": 0, "id": "a", "function": { "name": "f", "arguments": "{}" },
              "extra_content": extra },
            { "index": 1, "id": "b", "function": { "name": "g", "arguments": "{}" } },
        ] })),
        delta(json!({ "extra_content": extra })),
    ]);
    assert_eq!(reply.tool_calls[0].opaque, Some(json!({ "extra_content": extra })));
    assert_eq!(reply.tool_calls[1].opaque, None);
    assert_eq!(reply.opaque, Some(json!({ "extra_content": extra })));
}

#[test]
fn content_may_be_a_list_of_parts() {
    let reply = assemble(&[delta(json!({ "content": [
        { "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] },
        { "type": "text", "text": "yes" },
    ] }))]);
    assert_eq!((reply.content.as_str(), reply.reasoning.as_deref()), ("yes", Some("hm")));
}

#[test]
fn a_whole_reply_reads_like_one_chunk() {
    let reply = assemble(&[json!({ "choices": [{ "message": { "role": "assistant",
        "content": "7", "tool_calls": null }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 1 } })]);
    assert_eq!((reply.content.as_str(), reply.finish), ("7", Finish::Stop));
}

/// Shapes as providers send them, and what the tokens cost at a price of 2 for a million tokens of
/// input, 0.5 from the cache, 2.5 into it and 8 of output, worked out by hand.
#[test]
fn every_shape_of_usage_costs_what_it_does_and_counts_nothing_twice() {
    let price: exile_engine::model::price::Price = serde_json::from_value(
        json!({ "currency": "USD", "input": 2, "cached": 0.5, "cache_write": 2.5, "output": 8 }),
    )
    .unwrap();
    let cases = [
        // OpenAI: all within. 936 × 2 + 64 × 0.5 + 300 × 8.
        (
            json!({ "prompt_tokens": 1000, "completion_tokens": 300, "total_tokens": 1300,
            "prompt_tokens_details": { "cached_tokens": 64, "audio_tokens": 0 },
            "completion_tokens_details": { "reasoning_tokens": 200 } }),
            4304,
        ),
        // OpenAI with a cache that is paid for. 836 × 2 + 64 × 0.5 + 100 × 2.5 + 300 × 8.
        (
            json!({ "prompt_tokens": 1000, "completion_tokens": 300, "total_tokens": 1300,
            "prompt_tokens_details": { "cached_tokens": 64, "cache_write_tokens": 100 } }),
            4354,
        ),
        // DeepSeek: hit and miss beside it. 8 × 2 + 640 × 0.5 + 20 × 8.
        (
            json!({ "prompt_tokens": 648, "completion_tokens": 20, "total_tokens": 668,
            "prompt_cache_hit_tokens": 640, "prompt_cache_miss_tokens": 8,
            "completion_tokens_details": { "reasoning_tokens": 12 } }),
            496,
        ),
        // Gemini's compatible endpoint: thoughts in the sum alone. 100 × 2 + (10 + 90) × 8.
        (json!({ "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 200 }), 1000),
        // xAI: reasoning beside the answer. 68 × 2 + 32 × 0.5 + (10 + 90) × 8.
        (
            json!({ "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 200,
            "prompt_tokens_details": { "cached_tokens": 32 },
            "completion_tokens_details": { "reasoning_tokens": 90 } }),
            952,
        ),
        // Mistral: audio, which exile does not send, is beside it. 2 × 2 + 9 × 0.5 + 15 × 8 = 128.5.
        (
            json!({ "prompt_tokens": 11, "completion_tokens": 15, "total_tokens": 401,
                "prompt_tokens_details": { "audio_tokens": 375, "cached_tokens": 9 } }),
            129,
        ),
        // Groq, llama.cpp, vLLM: nothing but counts. 7 × 2 + 3 × 8.
        (json!({ "prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10 }), 38),
    ];
    for (shape, cost) in cases {
        let usage = usage(&shape).unwrap();
        assert_eq!(price.of(usage, 1_000_000), cost, "{shape}: {usage:?}");
        assert!(usage.cached + usage.written <= usage.input, "{usage:?}");
        assert!(usage.reasoning <= usage.output, "{usage:?}");
    }
}
