//! Every recorded exchange of the protocols that exile speaks, read in one piece, read however it
//! is cut, and once through the built binary: each time the answer is what the recording says.
//!
//! `make wire` shows the table. Without recordings (`EXILE_DATA`) there is nothing to compare.

mod plain;
mod record;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use exile_engine::env::StepEnv;
use exile_engine::model::{Finish, ModelReply, ProviderFault, Usage};
use exile_engine::span::NoTrace;
use exile_nodes::providers::profile::Protocol;
use exile_nodes::providers::reader::read_pieces;
use exile_nodes::providers::{ProviderConfig, provider};
use serde_json::{Value, json};

use super::installation::{Installation, Serving};
use super::upstream::{Say, Upstream};
use plain::Said;
use record::{Of, Record};

/// Bodies up to this length are cut at every byte.
const SMALL: usize = 2048;
/// Longer ones are cut in two at so many places, chosen by a fixed seed.
const CUTS: usize = 50;

const GRAPH: &str = "graph: wire\nstate:\n  messages: { reduce: messages }\n\
    nodes:\n  answer: { kind: llm }\n\
    edges:\n  - { from: START, to: answer }\n  - { from: answer, to: END }\n";

/// One provider's line of the table.
#[derive(Default)]
struct Row {
    recorded: usize,
    other: usize,
    spoken: usize,
    whole: usize,
    cuts: usize,
    cut: usize,
    through: usize,
}

#[test]
fn every_recording_reads_as_it_says_however_it_is_cut_and_through_the_binary() {
    let Some(records) = record::all() else {
        println!("skipped: EXILE_DATA names no folder with recordings");
        return;
    };
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut failed = Vec::new();
    let mut binary = Binary::start(&records);
    for (record, (cuts, wrong)) in records.iter().zip(cut_all(&records)) {
        let row = rows.entry(record.provider.clone()).or_default();
        row.recorded += 1;
        let mut note = |what: &str, right: bool, told: &dyn Fn() -> String| {
            if !right {
                failed.push(format!("{}: {what}: {}", record.name, told()));
            }
            usize::from(right)
        };
        match record.of() {
            Of::Other => row.other += 1,
            Of::Embeddings => {
                row.spoken += 1;
                let (found, expected) = (embed(record, &binary), expected_vectors(record));
                let right = note("embeddings", found == expected, &|| format!("{found:?}"));
                (row.whole, row.through) = (row.whole + right, row.through + right);
            }
            Of::Answers(protocol) => {
                row.spoken += 1;
                let expected = plain::read(protocol, record);
                if let Ok(said) = &expected {
                    let whole = read_pieces(protocol, [record.body.as_bytes()]);
                    let read = whole.0.as_ref().map(of_reply).map_err(ProviderFault::code);
                    let told = || format!("{read:#?} is not {expected:#?}");
                    row.whole += note("in one piece", read.as_ref() == Ok(said), &told);
                    row.cuts += cuts;
                    row.cut += cuts - wrong.len();
                    note("cut", wrong.is_empty(), &|| format!("at {wrong:?}"));
                } else {
                    // How a refusal is cut is HTTP's matter: its body is read to the end first.
                    row.whole += 1;
                }
                let found = binary.ask(record);
                let told = || format!("{found:#?} is not {expected:#?}");
                row.through += note("through the binary", found == expected, &told);
            }
        }
    }
    println!("{}", table(&rows));
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

fn table(rows: &BTreeMap<String, Row>) -> String {
    let mut text = format!(
        "\n{:<12}{:>9}{:>8}{:>8}{:>10}{:>16}{:>15}\n",
        "provider", "recorded", "other", "spoken", "in one", "cut", "through exile"
    );
    for (name, row) in rows {
        let of =
            |right: usize, all: usize| if all == 0 { "-".into() } else { format!("{right}/{all}") };
        let _ = writeln!(
            text,
            "{name:<12}{:>9}{:>8}{:>8}{:>10}{:>16}{:>15}",
            row.recorded,
            row.other,
            row.spoken,
            of(row.whole, row.spoken),
            of(row.cut, row.cuts),
            of(row.through, row.spoken)
        );
    }
    text + "other: protocols that exile does not speak (Responses, Gemini's and Ollama's own), \
            and what is no model's answer"
}

fn of_reply(reply: &ModelReply) -> Said {
    let finish = match reply.finish {
        Finish::Stop => "stop",
        Finish::ToolCalls => "tool_calls",
        Finish::Length => "length",
        Finish::Filtered => "filtered",
        Finish::Refused => "refused",
    };
    let usage = |u: Usage| [u.input, u.cached, u.output, u.reasoning];
    let call = |c: &exile_engine::message::ToolCall| {
        (c.id.clone(), c.name.clone(), plain::arguments(&c.arguments))
    };
    Said {
        content: reply.content.clone(),
        reasoning: reply.reasoning.clone().unwrap_or_default(),
        calls: reply.tool_calls.iter().map(call).collect(),
        finish: finish.to_owned(),
        usage: reply.usage.map(usage),
    }
}

/// Of each recording, how often its answer was cut, and where that showed. On every core: these are
/// many thousand readings.
fn cut_all(records: &[Record]) -> Vec<(usize, Vec<Vec<usize>>)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = Mutex::new(vec![(0, Vec::new()); records.len()]);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                    && let Some(record) = records.get(at)
                {
                    let result = cut(record);
                    results.lock().unwrap()[at] = result;
                }
            });
        }
    });
    results.into_inner().unwrap()
}

fn cut(record: &Record) -> (usize, Vec<Vec<usize>>) {
    let (Of::Answers(protocol), 200) = (record.of(), record.status) else {
        return (0, Vec::new());
    };
    let whole = read_pieces(protocol, [record.body.as_bytes()]);
    let cuts = cuts(record.body.len());
    let count = cuts.len();
    let other = |cut: &Vec<usize>| read_pieces(protocol, pieces(record, cut)) != whole;
    (count, cuts.into_iter().filter(other).collect())
}

/// Where a body of that length is cut: each a list of places.
fn cuts(length: usize) -> Vec<Vec<usize>> {
    // All at once: byte by byte.
    let mut cuts = vec![(1..length).collect::<Vec<_>>()];
    if length <= SMALL {
        cuts.extend((0..=length).map(|at| vec![at]));
        return cuts;
    }
    let mut seed = length as u64;
    cuts.extend((0..CUTS).map(|_| {
        // Knuth's multiplier: the same places in every run.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        vec![usize::try_from(seed >> 33).unwrap() % length]
    }));
    cuts
}

fn pieces<'r>(record: &'r Record, cut: &[usize]) -> Vec<&'r [u8]> {
    let body = record.body.as_bytes();
    let ends = cut.iter().copied().chain([body.len()]);
    let begins = [0].into_iter().chain(cut.iter().copied());
    begins.zip(ends).map(|(begin, end)| &body[begin..end]).collect()
}

/// `exile serve` with every provider of the recordings behind one upstream, which gives the
/// recording that is put in.
struct Binary {
    now: Arc<Mutex<(u16, String)>>,
    upstream: Upstream,
    server: Serving,
    // Ends after the server.
    _place: Installation,
}

impl Binary {
    fn start(records: &[Record]) -> Self {
        let now = Arc::new(Mutex::new((500, String::new())));
        let shown = now.clone();
        let upstream = Upstream::start(move |_| {
            let (status, body) = shown.lock().unwrap().clone();
            Say::Plain(status, body)
        });
        let names: std::collections::BTreeSet<&str> =
            records.iter().map(|r| r.provider.as_str()).collect();
        let mut config = "models: { default: openai/m }\nproviders:\n".to_owned();
        for name in names {
            let _ = writeln!(config, "  {name}: {{ base_url: {}/v1 }}", upstream.url);
        }
        let place =
            Installation::bare().with("exile.yaml", &config).with("graphs/wire.yaml", GRAPH);
        let server = place.serve();
        Self { now, upstream, server, _place: place }
    }

    /// Has a conversation ask, and the recording answer.
    fn ask(&mut self, record: &Record) -> Result<Said, &'static str> {
        *self.now.lock().unwrap() = (record.status, record.body.clone());
        let model = format!("{}/{}", record.provider, record.model());
        let made = json!({ "graph": "wire", "model": model }).to_string();
        let made = self.server.ask("POST", "/api/conversations", &made).json();
        let path = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
        let said = self.server.ask("POST", &path, r#"{"content": "Go."}"#).json();
        // A run that failed is named by its problem.
        let run = said["run"]["id"].as_str().or(said["run"].as_str()).unwrap();
        let events = self.server.ask("GET", &format!("/api/runs/{run}/events"), "").json();
        let asked = self.upstream.all().pop().unwrap();
        let end = if record.of() == Of::Answers(Protocol::Anthropic) {
            "messages"
        } else {
            "completions"
        };
        assert!(asked.line.starts_with("POST /v1/") && asked.line.ends_with(end), "{asked:?}");
        of_events(&events)
    }
}

fn of_events(events: &Value) -> Result<Said, &'static str> {
    let named = |name: &str| {
        let mut items = events["items"].as_array().unwrap().iter();
        items.find(|e| e["name"] == name).map(|e| e["data"].clone()).unwrap_or_default()
    };
    let (model, message) = (named("model.finished"), named("message.finished")["message"].clone());
    if let Some(code) = model["error"]["code"].as_str() {
        return Err(String::leak(code.to_owned()));
    }
    let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
    let call = |c: &Value| {
        let text = |key: &str| c[key].as_str().unwrap().to_owned();
        (text("id"), text("name"), plain::arguments(&text("arguments")))
    };
    let usage = |key: &str| model["usage"][key].as_u64().unwrap();
    let counted =
        || ["input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"].map(usage);
    Ok(Said {
        content: text("content"),
        reasoning: text("reasoning"),
        calls: message["tool_calls"].as_array().into_iter().flatten().map(call).collect(),
        finish: model["finish"].as_str().unwrap().to_owned(),
        usage: model["usage"].is_object().then(counted),
    })
}

/// How many vectors an adapter reads, or the code of the error.
fn embed(record: &Record, binary: &Binary) -> Result<usize, &'static str> {
    *binary.now.lock().unwrap() = (record.status, record.body.clone());
    let config = ProviderConfig {
        base_url: Some(format!("{}/v1", binary.upstream.url)),
        keyless: true,
        ..ProviderConfig::new(&record.provider)
    };
    let provider = provider(config, Arc::new(NoTrace), Arc::new(StepEnv::new())).unwrap();
    let texts = match &record.request["input"] {
        Value::Array(list) => list.iter().map(ToString::to_string).collect(),
        one => vec![one.to_string()],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let vectors = runtime.block_on(provider.embed(record.model(), &texts, &serde_json::Map::new()));
    vectors.map(|found| found.vectors.len()).map_err(|error| error.fault.code())
}

fn expected_vectors(record: &Record) -> Result<usize, &'static str> {
    plain::read(Protocol::Chat, record)?;
    let body: Value = serde_json::from_str(&record.body).unwrap();
    Ok(body["data"].as_array().unwrap().len())
}
