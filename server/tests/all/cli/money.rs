//! Quotas and usage through the binary: what goes upstream, what is there after a restart, and what
//! the command line shows.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::installation::{Installation, Serving};
use super::openai::{PATH, lab};
use super::upstream::{Say, Upstream};

fn hello(model: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] }).to_string()
}

/// The upstream counts 5 tokens of a request and 2 of an answer, 100 USD a million: 0.0007 USD, or
/// 0.00497 CNY.
const RULES: &str = "
timezone: Asia/Shanghai
currency: { unit: CNY, USD: 7.10 }
catalogue: { lab/m: { prices: [{ currency: USD, input: 100, output: 100 }] } }
quotas: { user: { '*': { money: 0.01/month } }, model: { lab/*: { tokens: 1000000/day } } }
";

#[test]
fn money_is_counted_to_the_millionth_and_over_a_restart() {
    let upstream = Upstream::start(|_| Say::Text("here"));
    let place = lab(&upstream, RULES);
    let server = place.serve();
    for _ in 0..2 {
        assert_eq!(server.ask("POST", PATH, &hello("lab/m")).status, 200);
    }
    let limited: Value = serde_json::from_str(&upstream.all()[0].body).unwrap();
    assert_eq!(limited["max_tokens"], 4096, "no more than is reserved");
    let of_file = server.ask("PUT", "/api/quotas/user/*", "{}");
    assert_eq!((of_file.status, &of_file.json()["code"]), (409, &json!("in_file")));
    // Told to end at once, it writes down the last call first; the next process counts on.
    assert_eq!(server.terminate().code, 0);
    let server = place.serve();
    assert_eq!(server.ask("POST", PATH, &hello("lab/m")).status, 200, "0.00994 is less than 0.01");
    let refused = server.ask("POST", PATH, &hello("lab/m"));
    assert_eq!((refused.status, upstream.all().len()), (429, 3), "{refused:?}");
    let run = json!({ "graph": "chat", "input": { "messages": "hi" } });
    assert_eq!(server.ask("POST", "/api/runs/wait", &run.to_string()).status, 429);
    let shown = place.run(&["usage", "--by", "user,model", "--every", "day"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    for part in ["admin", "lab/m", "0.01491 CNY", "15", "6"] {
        assert!(shown.out.contains(part), "{part} is not in\n{}", shown.out);
    }
    let whole = place.run(&["usage", "--json", "--by", "provider"]);
    let whole: Value = serde_json::from_str(&whole.out).unwrap();
    let row = &whole["items"][0];
    assert_eq!(
        json!([row["requests"], row["cost"], row["input_tokens"], row["unpriced"]]),
        json!([3, 0.01491, 15, 0])
    );
}

#[test]
fn a_quota_of_money_needs_a_price() {
    let upstream = Upstream::start(|_| Say::Text("here"));
    let place = lab(&upstream, RULES);
    let server = place.serve();
    let refused = server.ask("POST", PATH, &hello("lab/other"));
    assert_eq!(refused.status, 400, "{refused:?}");
    let message = refused.json()["error"]["message"].to_string();
    assert!(message.contains("`prices` of lab/other in CNY"), "{message}");
    assert!(upstream.all().is_empty());
}

#[test]
fn what_costs_nothing_goes_on_when_the_money_is_used_up() {
    let upstream = Upstream::start(|_| Say::Text("here"));
    let rules = "
catalogue:
  lab/m: { prices: [{ currency: USD, input: 100, output: 100 }] }
  lab/free: { prices: [{ currency: EUR, input: 0, output: 0 }] }
quotas: { user: { '*': { money: 0.0001/month } } }
";
    let place = lab(&upstream, rules);
    let server = place.serve();
    let status = |model: &str| server.ask("POST", PATH, &hello(model)).status;
    assert_eq!([status("lab/m"), status("lab/m"), status("lab/free")], [200, 429, 200]);
    let run = |model: &str| {
        let run = json!({ "graph": "chat", "input": { "messages": "hi" }, "model": model });
        server.ask("POST", "/api/runs/wait", &run.to_string()).status
    };
    assert_eq!([run("lab/m"), run("lab/free")], [429, 200]);
}

#[test]
fn an_answer_may_be_as_long_as_its_model_lets_it_or_a_share_of_what_is_left() {
    let upstream = Upstream::start(|_| Say::Text("here"));
    let catalogue = "
catalogue:
  lab/m: { output: 9000, prices: [{ currency: USD, input: 1, output: 1 }] }
  lab/long: { output: 200000, prices: [{ currency: USD, input: 1, output: 1 }] }
  lab/unknown: { prices: [{ currency: USD, input: 1, output: 1 }] }
";
    // What is left is a little less than the quota, by the input of some tens of tokens.
    for (quota, model, most) in [
        ("tokens: 100000000/day", "lab/m", 8_999..9_001),
        ("tokens: 100000000/day", "lab/long", 199_999..200_001),
        ("tokens: 100000000/day", "lab/unknown", 16_384..16_385),
        ("tokens: 100000/day", "lab/long", 24_900..25_000),
        ("tokens: 5000/day", "lab/long", 4_096..4_097),
        ("money: 0.1/day", "lab/long", 24_900..25_000),
        ("money: 0.1/day, tokens: 40000/day", "lab/long", 9_900..10_000),
    ] {
        let before = upstream.all().len();
        let quotas = format!("{catalogue}quotas: {{ user: {{ '*': {{ {quota} }} }} }}\n");
        let place = lab(&upstream, &quotas);
        assert_eq!(place.serve().ask("POST", PATH, &hello(model)).status, 200);
        let sent: Value = serde_json::from_str(&upstream.all()[before].body).unwrap();
        let tokens = sent["max_tokens"].as_u64().unwrap();
        assert!(most.contains(&tokens), "{tokens} of {model} under {quota}");
    }
}

#[test]
fn a_call_that_falls_back_has_a_row_for_each_model() {
    let upstream = Upstream::start(|asked| {
        if asked.body.contains("\"first\"") {
            return Say::Plain(503, "{}".into());
        }
        Say::Text("here")
    });
    let more = "models: { either: { development: lab/first, fallback: [lab/second] } }\n";
    let config =
        format!("{more}providers: {{ lab: {{ base_url: '{}/v1', retries: 1 }} }}\n", upstream.url);
    let place = Installation::bare().with("exile.yaml", &config);
    let server = place.serve();
    assert_eq!(server.ask("POST", PATH, &hello("either")).status, 200);
    // Rows are written a moment after the call.
    let rows = loop {
        let usage = server.ask("GET", "/api/usage?by=model", "").json();
        let rows = usage["items"].as_array().unwrap().iter();
        let rows = rows
            .map(|row| json!([row["model"], row["requests"], row["errors"], row["input_tokens"]]));
        let rows: Vec<Value> = rows.collect();
        if rows.len() == 2 {
            break rows;
        }
    };
    assert_eq!(rows, [json!(["lab/first", 0, 1, 0]), json!(["lab/second", 1, 0, 5])]);
}

#[test]
fn a_call_that_was_going_on_when_the_server_was_killed_counts_as_its_reserve() {
    let upstream = Upstream::start(|_| Say::Nothing);
    let place = lab(&upstream, "quotas: { user: { '*': { tokens: 4000/month } } }\n");
    let server = place.serve();
    let (body, address) = (hello("lab/m"), server.url.trim_start_matches("http://"));
    let mut client = TcpStream::connect(address).unwrap();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: {address}\r\n{}", server.authorization());
    let head = format!("{head}content-type: application/json\r\ncontent-length: {}", body.len());
    client.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    upstream.wait_for("hi");
    // A call that goes on for longer than a moment has a row by itself.
    let rows = |server: &Serving| server.ask("GET", "/api/usage", "").json()["items"].clone();
    while rows(&server) == json!([]) {}
    server.kill();
    let server = place.serve();
    let row = rows(&server)[0].clone();
    assert_eq!(
        json!([row["requests"], row["lost"], row["output_tokens"]]),
        json!([1, 1, 4096]),
        "{row}"
    );
    assert_eq!(server.ask("POST", PATH, &body).status, 429, "the quota knows of it");
}
