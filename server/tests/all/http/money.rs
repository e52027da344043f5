//! Quotas and usage through the router: what is taken, what is refused, what is written down.

use axum::http::{Request, header};
use exile_engine::env::Env as _;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::fixture::{Answer, Exile, with_json};

const CHAT: &str = "/v1/chat/completions";

fn hello(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] })
}

async fn ask(exile: &Exile, key: &str, body: Value) -> Answer {
    exile.call_as(key, "POST", CHAT, Some(body)).await
}

async fn set(exile: &Exile, quota: &str, allowance: Value) {
    let path = format!("/api/quotas/{quota}");
    let answer = exile.call_as(&exile.admin, "PUT", &path, Some(allowance)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Usage as the administrator reads it.
async fn usage(exile: &Exile, query: &str) -> Vec<Value> {
    let answer = exile.call_as(&exile.admin, "GET", &format!("/api/usage?{query}"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["items"].as_array().unwrap().clone()
}

/// Waits until a call that is held at the gate has taken its reserve: then it has a row.
async fn until_a_call_is_open(exile: &Exile) {
    while usage(exile, "by=model").await.is_empty() {
        exile.app.usage.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_has_used_up_a_quota_is_told_when_there_is_more_and_others_go_on() {
    let exile = Exile::start().await;
    set(&exile, "user/alice", json!({ "requests": "2/day" })).await;
    for _ in 0..2 {
        assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 200);
    }
    let refused = ask(&exile, &exile.alice, hello("mock/any")).await;
    assert_eq!(
        (refused.status, refused.header("ratelimit-policy")),
        (429, "\"requests\";q=2;w=86400")
    );
    assert_eq!(refused.json()["error"]["code"], "quota_exceeded");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=86_400).contains(&seconds), "{seconds}");
    let left = refused.header("ratelimit");
    let rest: u64 = left.strip_prefix("\"requests\";r=0;t=").unwrap().parse().unwrap();
    assert!(rest.abs_diff(seconds) <= 1, "{left} beside {seconds}");
    // Streams, embeddings, runs and messages are refused alike, and nothing of them is kept.
    let mut streaming = hello("mock/any");
    streaming["stream"] = json!(true);
    assert_eq!(ask(&exile, &exile.alice, streaming).await.status, 429);
    let texts = json!({ "model": "mock/any", "input": "hi" });
    assert_eq!(exile.call("POST", "/v1/embeddings", Some(texts)).await.status, 429);
    let run = json!({ "graph": "chat", "input": { "messages": "hi" } });
    let problem = exile.call("POST", "/api/runs", Some(run)).await;
    assert_eq!((problem.status, &problem.json()["code"]), (429, &json!("quota_exceeded")));
    assert_eq!(problem.header("content-type"), "application/problem+json");
    assert_eq!(
        (&problem.json()["quota"]["of"], &problem.json()["quota"]["limit"]),
        (&json!("user alice"), &json!("2/day"))
    );
    let conversation = exile.conversation("mock/any").await;
    let said = json!({ "content": "hi" });
    let problem = exile.call("POST", &format!("{conversation}/messages"), Some(said)).await;
    assert_eq!(problem.status, 429, "{}", problem.text);
    assert_eq!(exile.call("GET", "/api/runs", None).await.json()["items"], json!([]));
    assert_eq!(ask(&exile, &exile.bob, hello("mock/any")).await.status, 200);
    // More at once, and what was used counts.
    set(&exile, "user/alice", json!({ "requests": "3/day" })).await;
    assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 200);
    assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 429);
    let gone = exile.call_as(&exile.admin, "DELETE", "/api/quotas/user/alice", None).await;
    assert_eq!(gone.status, 204);
    assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 200);
}

#[tokio::test]
async fn a_run_that_uses_up_a_quota_fails_with_it() {
    let exile = Exile::serving(&[("twice", TWICE)]).await;
    set(&exile, "user/*", json!({ "requests": "1/month" })).await;
    let body = json!({ "graph": "twice", "input": { "messages": "hi" } });
    let answer = exile.call("POST", "/api/runs/wait", Some(body)).await;
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("quota_exceeded")));
    let rows = usage(&exile, "by=graph,run,user").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["graph"], &rows[0]["user"], &rows[0]["run"]),
        (&json!("twice"), &json!("alice"), &answer.json()["run"])
    );
}

const TWICE: &str = "
graph: twice
input: [messages]
state: { messages: { reduce: messages } }
nodes:
  a: { kind: llm }
  b: { kind: llm }
edges: [{ from: START, to: a }, { from: a, to: b }, { from: b, to: END }]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_calls_at_once_overshoot_a_budget_by_at_most_one_reserve() {
    let exile = std::sync::Arc::new(Exile::start().await);
    // A reserve is the input, of 14 bytes with what stands around it, and 100 tokens of the answer.
    set(&exile, "user/alice", json!({ "tokens": "1000/day" })).await;
    let mut body = hello("mock/any");
    body["max_tokens"] = json!(100);
    let calls = (0..200).map(|_| {
        let (exile, body) = (exile.clone(), body.clone());
        tokio::spawn(async move { ask(&exile, &exile.alice, body).await.status })
    });
    let calls: Vec<_> = calls.collect();
    let mut answered = 0;
    for call in calls {
        match call.await.unwrap() {
            200 => answered += 1,
            status => assert_eq!(status, 429),
        }
    }
    let rows = usage(&exile, "by=user").await;
    let count = |name: &str| rows[0][name].as_u64().unwrap();
    assert_eq!((count("requests"), count("estimated")), (answered, 0));
    let spent = count("input_tokens") + count("output_tokens");
    assert!((1..1000 + 120).contains(&spent), "{spent}");
    // Call after call the rest is used up, to less than one reserve beyond it.
    while ask(&exile, &exile.alice, body.clone()).await.status == 200 {}
    let rows = usage(&exile, "by=user").await;
    let spent =
        rows[0]["input_tokens"].as_u64().unwrap() + rows[0]["output_tokens"].as_u64().unwrap();
    assert!((1000..1120).contains(&spent), "{spent}");
}

#[tokio::test]
async fn while_others_hold_the_rest_of_a_budget_it_is_refused_for_a_moment() {
    let exile = std::sync::Arc::new(Exile::start().await);
    set(&exile, "business/sales", json!({ "tokens": "50/day" })).await;
    let send = |exile: std::sync::Arc<Exile>| async move {
        let request = Request::builder()
            .method("POST")
            .uri(CHAT)
            .header("x-exile-business", "sales")
            .header(header::AUTHORIZATION, format!("Bearer {}", exile.admin));
        let mut body = hello("gate/any");
        body["max_tokens"] = json!(100);
        exile.send(with_json(request, Some(body))).await
    };
    let first = tokio::spawn(send(exile.clone()));
    until_a_call_is_open(&exile).await;
    let refused = send(exile.clone()).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    exile.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
    let rows = usage(&exile, "by=business,model").await;
    assert_eq!(
        (&rows[0]["business"], &rows[0]["model"], &rows[0]["estimated"]),
        (&json!("sales"), &json!("gate/any"), &json!(1)),
        "the gate does not count tokens"
    );
    exile.gate.add_permits(1);
    assert_eq!(send(exile.clone()).await.status, 200, "what was not spent came back");
}

#[tokio::test]
async fn a_client_that_leaves_has_a_row_and_gives_back_what_it_did_not_spend() {
    let exile = std::sync::Arc::new(Exile::start().await);
    set(&exile, "key/*", json!({ "tokens": "5000/month" })).await;
    let call = {
        let exile = exile.clone();
        tokio::spawn(async move { ask(&exile, &exile.alice, hello("gate/any")).await.status })
    };
    until_a_call_is_open(&exile).await;
    let open = usage(&exile, "by=model").await;
    assert!(open[0]["output_tokens"] == 4096, "its reserve: {}", open[0]);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let rows = usage(&exile, "by=model").await;
    assert_eq!((&rows[0]["cancelled"], &rows[0]["errors"]), (&json!(1), &json!(0)), "{}", rows[0]);
    assert_eq!(rows[0]["output_tokens"], 0);
    assert!(rows[0]["input_tokens"].as_u64().unwrap() > 0, "the provider has read it");
    exile.gate.add_permits(2);
    for _ in 0..2 {
        assert_eq!(ask(&exile, &exile.alice, hello("gate/any")).await.status, 200);
    }
}

#[tokio::test]
async fn a_call_that_ended_with_its_process_counts_as_its_reserve() {
    let exile = std::sync::Arc::new(Exile::start().await);
    set(&exile, "user/alice", json!({ "tokens": "4000/month" })).await;
    let call = {
        let exile = exile.clone();
        tokio::spawn(async move { ask(&exile, &exile.alice, hello("gate/any")).await.status })
    };
    until_a_call_is_open(&exile).await;
    // The next process opens the file while this one still hangs.
    let next = exile.next_process().await;
    let rows = usage(&next, "by=user").await;
    assert_eq!((&rows[0]["lost"], &rows[0]["output_tokens"]), (&json!(1), &json!(4096)));
    let refused = ask(&next, &next.alice, hello("mock/any")).await;
    assert_eq!(refused.status, 429, "{}", refused.text);
    call.abort();
}

#[tokio::test]
async fn usage_is_put_together_by_anything_over_time() {
    let exile = Exile::start().await;
    for text in ["hi", "too fast", "half"] {
        let body =
            json!({ "model": "mock/any", "messages": [{ "role": "user", "content": text }] });
        ask(&exile, &exile.alice, body).await;
    }
    exile.run("chat", json!({ "messages": "hi" })).await;
    ask(&exile, &exile.bob, hello("mock/other")).await;
    let all = usage(&exile, "").await;
    assert_eq!((&all[0]["requests"], &all[0]["calls"]), (&json!(5), &json!(5)), "{}", all[0]);
    let models = usage(&exile, "by=model").await;
    let [any, other] = &models[..] else { panic!("{models:?}") };
    assert_eq!(
        (&any["model"], &any["calls"], &any["errors"]),
        (&json!("mock/any"), &json!(4), &json!(2))
    );
    assert_eq!((&any["error_rate"], &other["error_rate"]), (&json!(0.5), &json!(0.0)));
    assert_eq!(any["attempts"], 4, "the mock is asked once");
    let providers = usage(&exile, "by=provider,user&every=day").await;
    assert_eq!(providers.len(), 2, "{providers:?}");
    assert!(providers.iter().all(|row| row["provider"] == "mock" && row["from"].is_string()));
    assert_eq!(usage(&exile, "graph=chat").await[0]["calls"], 1);
    assert_eq!(usage(&exile, "model=mock/o*").await[0]["calls"], 1);
    assert_eq!(usage(&exile, "to=2020-01-01&from=2019-01-01").await, Vec::<Value>::new());
    for every in ["minute", "hour", "month"] {
        let rows = usage(&exile, &format!("every={every}")).await;
        let calls: u64 = rows.iter().map(|row| row["calls"].as_u64().unwrap()).sum();
        assert_eq!(calls, 5, "{every}");
    }
    // Others see their own alone.
    let own = exile.call_as(&exile.bob, "GET", "/api/usage?by=user", None).await.json();
    assert_eq!(
        (&own["items"][0]["user"], own["items"].as_array().unwrap().len()),
        (&json!("bob"), 1)
    );
    let others = exile.call_as(&exile.bob, "GET", "/api/usage?user=alice", None).await;
    assert_eq!(others.status, 403);
    for wrong in ["by=colour", "every=week", "from=yesterday", "colour=red"] {
        let answer = exile.call("GET", &format!("/api/usage?{wrong}"), None).await;
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text);
    }
}

#[tokio::test]
async fn quotas_are_set_by_administrators_alone_and_say_what_is_wrong() {
    let exile = Exile::start().await;
    let put = async |path: &str, body: Value| {
        let path = format!("/api/quotas/{path}");
        exile.call_as(&exile.admin, "PUT", &path, Some(body)).await
    };
    let one = json!({ "requests": ["1/min", "10/day"] });
    assert_eq!(put("model/mock/*", one.clone()).await.status, 200);
    let cases = [
        ("user/nobody", one.clone(), 422, "unknown_user"),
        ("model/gpt", one.clone(), 422, "unknown_model"),
        ("team/a", one.clone(), 404, "not_found"),
        ("user/alice", json!({ "requests": "1/week" }), 422, "invalid_field"),
        ("user/alice", json!({ "coffee": "1/day" }), 422, "invalid_field"),
    ];
    for (path, body, status, code) in cases {
        let answer = put(path, body).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{path}");
    }
    let listed = exile.call_as(&exile.admin, "GET", "/api/quotas", None).await.json();
    assert_eq!(
        listed["items"],
        json!([{ "kind": "model", "name": "mock/*", "requests": ["1/min", "10/day"], "source": "api" }])
    );
    for (method, path) in [("GET", "/api/quotas"), ("DELETE", "/api/quotas/model/mock/*")] {
        assert_eq!(exile.call(method, path, None).await.status, 403);
    }
    // A pattern is one pot for everybody.
    assert_eq!(ask(&exile, &exile.alice, hello("mock/a")).await.status, 200);
    assert_eq!(ask(&exile, &exile.bob, hello("mock/b")).await.status, 429);
    assert_eq!(put("model/mock/*", json!({})).await.status, 200);
    assert_eq!(ask(&exile, &exile.bob, hello("mock/b")).await.status, 200);
}

#[tokio::test]
async fn a_quota_that_was_away_for_a_while_knows_what_was_spent() {
    let exile = Exile::start().await;
    let two = json!({ "requests": "2/day" });
    set(&exile, "user/alice", two.clone()).await;
    assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 200);
    exile.call_as(&exile.admin, "DELETE", "/api/quotas/user/alice", None).await;
    assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 200);
    set(&exile, "user/alice", two).await;
    assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 429);
}

#[tokio::test]
async fn a_quota_that_is_set_while_a_call_goes_on_does_not_count_its_reserve() {
    let exile = std::sync::Arc::new(Exile::start().await);
    set(&exile, "key/*", json!({ "tokens": "100000/day" })).await;
    let call = {
        let exile = exile.clone();
        tokio::spawn(async move { ask(&exile, &exile.alice, hello("gate/any")).await.status })
    };
    until_a_call_is_open(&exile).await;
    set(&exile, "user/alice", json!({ "tokens": "4000/day" })).await;
    assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 200);
    exile.gate.add_permits(1);
    assert_eq!(call.await.unwrap(), 200);
}

#[tokio::test]
async fn an_administrator_may_ask_for_their_own_usage_alone() {
    let exile = Exile::start().await;
    ask(&exile, &exile.alice, hello("mock/any")).await;
    assert_eq!(usage(&exile, "user=admin").await, Vec::<Value>::new());
    assert_eq!(usage(&exile, "user=alice").await[0]["requests"], 1);
}

#[tokio::test]
async fn a_call_that_the_server_does_not_wait_for_is_settled() {
    for streams in [false, true] {
        let exile = std::sync::Arc::new(Exile::start().await);
        let mut body = hello("gate/any");
        body["stream"] = json!(streams);
        let call = {
            let exile = exile.clone();
            tokio::spawn(async move { ask(&exile, &exile.alice, body).await })
        };
        until_a_call_is_open(&exile).await;
        exile.app.cut.cancel();
        let answer = call.await.unwrap();
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("not_ready")));
        exile.app.usage.settled().await;
        exile.app.usage.flush().await.unwrap();
        let rows = usage(&exile.next_process().await, "").await;
        assert_eq!((&rows[0]["cancelled"], &rows[0]["requests"]), (&json!(1), &json!(1)));
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_opens_no_quota() {
    let exile = Exile::start().await;
    let two = json!({ "requests": ["2/min", "5/day"] });
    set(&exile, "user/alice", two).await;
    let ask = async |exile: &Exile| ask(exile, &exile.alice, hello("mock/any")).await.status;
    // To a minute's beginning, so that it lasts.
    let into = exile.clock.now().as_millisecond().rem_euclid(60_000);
    exile.clock.shift(SignedDuration::from_millis(60_001 - into));
    assert_eq!([ask(&exile).await, ask(&exile).await, ask(&exile).await], [200, 200, 429]);
    for minutes in [1, 2, 60, 24 * 60, 40 * 24 * 60] {
        exile.clock.shift(-SignedDuration::from_mins(minutes));
        assert_eq!(ask(&exile).await, 429, "{minutes} minutes earlier");
    }
    // Not over a restart either, nor when the quotas are read again.
    exile.app.usage.flush().await.unwrap();
    let next = exile.next_process().await;
    assert_eq!(ask(&next).await, 429);
    set(&next, "user/bob", json!({ "requests": "9/min" })).await;
    assert_eq!(ask(&next).await, 429);
    let found = usage(&next, "user=alice").await;
    assert_eq!(found[0]["requests"], 2, "what is written down is found");
}

#[tokio::test]
async fn a_call_that_was_on_its_way_counts_on_a_quota_that_came_meanwhile() {
    let exile = std::sync::Arc::new(Exile::start().await);
    let call = {
        let exile = exile.clone();
        tokio::spawn(async move { ask(&exile, &exile.alice, hello("gate/any")).await.status })
    };
    until_a_call_is_open(&exile).await;
    set(&exile, "user/alice", json!({ "requests": "2/day" })).await;
    assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 200);
    exile.gate.add_permits(1);
    assert_eq!(call.await.unwrap(), 200);
    assert_eq!(ask(&exile, &exile.alice, hello("mock/any")).await.status, 429);
}

#[tokio::test]
async fn who_waits_for_what_is_sure_to_be_spent_is_told_when_the_window_ends() {
    let exile = std::sync::Arc::new(Exile::start().await);
    set(&exile, "user/alice", json!({ "requests": "1/day" })).await;
    let call = {
        let exile = exile.clone();
        tokio::spawn(async move { ask(&exile, &exile.alice, hello("gate/any")).await.status })
    };
    until_a_call_is_open(&exile).await;
    let refused = ask(&exile, &exile.alice, hello("mock/any")).await;
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    let left = 86_400 - exile.clock.now().as_second().rem_euclid(86_400);
    assert!(seconds.abs_diff(left.unsigned_abs()) <= 2, "{seconds} beside {left}");
    exile.gate.add_permits(1);
    assert_eq!(call.await.unwrap(), 200);
}

#[tokio::test]
async fn usage_comes_in_pages_however_it_is_put_together() {
    let exile = Exile::start().await;
    for n in 0..7 {
        ask(&exile, &exile.alice, hello(&format!("mock/m{n}"))).await;
        ask(&exile, &exile.bob, hello(&format!("mock/m{n}"))).await;
        exile.clock.shift(SignedDuration::from_mins(1));
    }
    for by in ["by=model,user", "by=model,user&every=minute", "by=user&every=day", ""] {
        let whole = usage(&exile, by).await;
        for limit in [1, 3, 14] {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let path = format!("/api/usage?{by}&limit={limit}{after}");
                let part = exile.call_as(&exile.admin, "GET", &path, None).await.json();
                let items = part["items"].as_array().unwrap();
                assert!(items.len() <= limit, "{by}: {}", items.len());
                found.extend(items.iter().cloned());
                let Some(next) = part["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(found, whole, "{by} in pages of {limit}");
        }
    }
    let wrong = exile.call("GET", "/api/usage?after=nothing", None).await;
    assert_eq!(wrong.status, 400, "{}", wrong.text);
}

#[tokio::test]
async fn figures_are_read_by_administrators_and_keys_made_for_that() {
    let exile = Exile::start().await;
    ask(&exile, &exile.alice, hello("mock/any")).await;
    let body = json!({ "name": "prometheus", "user": "bob", "scopes": ["metrics"] });
    let made = exile.call_as(&exile.admin, "POST", "/api/keys", Some(body)).await.json();
    let answer = exile.call_as(made["secret"].as_str().unwrap(), "GET", "/metrics", None).await;
    assert_eq!(answer.status, 200);
    let line = "gen_ai_client_inference_duration_seconds_count{error_type=\"\",\
                gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"mock\",\
                gen_ai_request_model=\"any\",gen_ai_workflow_name=\"\"} 1";
    assert!(answer.text.lines().any(|found| found == line), "{}", answer.text);
    assert_eq!(exile.call("GET", "/metrics", None).await.status, 403);
}

#[tokio::test]
async fn runs_that_have_not_ended_are_gauges_with_the_age_of_the_oldest() {
    let exile = Exile::start().await;
    let scrape = async || exile.call_as(&exile.admin, "GET", "/metrics", None).await.text;
    let value = |text: &str, name: &str, status: &str| -> f64 {
        let name = format!("{name}{{status=\"{status}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    };
    let text = scrape().await;
    for status in ["queued", "running", "waiting", "needs_attention"] {
        for name in ["exile_runs", "exile_oldest_run_age_seconds"] {
            assert!(value(&text, name, status).abs() < f64::EPSILON, "{name} {status}");
        }
    }
    for _ in 0..2 {
        exile.waiting_run().await;
        // Less in all than a run may take.
        exile.clock.shift(jiff::SignedDuration::from_mins(4));
    }
    let text = scrape().await;
    let open = value(&text, "exile_runs", "queued") + value(&text, "exile_runs", "running");
    assert!((open - 2.0).abs() < f64::EPSILON, "{text}");
    let age = |status| value(&text, "exile_oldest_run_age_seconds", status);
    assert!((480.0..540.0).contains(&age("running").max(age("queued"))), "{text}");
    exile.gate.add_permits(2);
}
