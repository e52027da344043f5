//! Deltas of tool calls: wire facts 6 to 9.

use exile_engine::message::Role;
use exile_engine::model::Finish;
use serde_json::json;

use crate::facts::{at, call, delta, end, hello, stream, text, tool_turn};
use crate::rules;
use crate::upstream::{Answer, Upstream};

#[tokio::test]
async fn fact_06_calls_without_ids_get_ids_that_stay_unique() {
    let twice = json!({ "tool_calls": [call("", "{\"x\":1}"), call("", "{\"x\":2}")] });
    let answers = || Answer::events(&[delta(twice.clone()), end("tool_calls")]);
    let upstream = Upstream::strict(rules::gemini, [answers(), answers()]).await;
    let gemini = at(&upstream, "gemini");
    let mut conversation = vec![text(Role::User, "1 and 2")];
    let first = tool_turn(&gemini, "gemini-3-flash", &mut conversation).await;
    let second = tool_turn(&gemini, "gemini-3-flash", &mut conversation).await;
    let ids: Vec<&str> =
        first.tool_calls.iter().chain(&second.tool_calls).map(|c| c.id.as_str()).collect();
    let distinct: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!((ids.len(), distinct.len()), (4, 4), "{ids:?}");
}

#[tokio::test]
async fn fact_07_a_call_cut_by_the_token_limit_is_not_given_out() {
    let parts = [delta(json!({ "tool_calls": [call("a", "{\"x\": 1")] })), end("length")];
    let whole = json!({ "choices": [{ "finish_reason": "length",
        "message": { "content": "", "tool_calls": [call("a", "{\"x\": 1")] } }] });
    let upstream = Upstream::start([Answer::events(&parts), Answer::json(whole)]).await;
    let deepseek = at(&upstream, "deepseek");
    let streamed = stream(&deepseek, &hello("m")).await.0.unwrap();
    assert_eq!((streamed.tool_calls.len(), streamed.finish), (0, Finish::Length));
    let whole = deepseek.complete(&hello("m")).await.unwrap();
    assert_eq!((whole.tool_calls.len(), whole.finish), (0, Finish::Length));
}

#[tokio::test]
async fn fact_08_stop_may_carry_calls() {
    let parts = [delta(json!({ "tool_calls": [call("a", "")] })), end("stop")];
    let upstream = Upstream::start([Answer::events(&parts)]).await;
    let reply = stream(&at(&upstream, "openai"), &hello("m")).await.0.unwrap();
    assert_eq!((reply.tool_calls.len(), reply.finish), (1, Finish::Stop));
    assert_eq!(reply.tool_calls[0].arguments, "");
}

#[tokio::test]
async fn fact_09_refusals_are_content_and_lack_of_resources_fails() {
    let upstream = Upstream::start([
        Answer::events(&[delta(json!({ "refusal": "I can't." })), end("stop")]),
        Answer::events(&[delta(json!({ "content": "x" })), end("insufficient_system_resource")]),
    ])
    .await;
    let provider = at(&upstream, "deepseek");
    let (reply, said, _) = stream(&provider, &hello("m")).await;
    assert_eq!((reply.unwrap().finish, said.as_str()), (Finish::Refused, "I can't."));
    let error = stream(&provider, &hello("m")).await.0.unwrap_err();
    assert_eq!(error.fault.code(), "provider_unavailable");
}
