//! How much gets through: connections that ask again as soon as they are answered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::arguments::Arguments;
use crate::client::Client;
use crate::clock;
use crate::spread::Spread;
use crate::target::{Target, given};

/// What one connection saw while it counted.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    errors: u32,
    /// Of the last error.
    why: Option<String>,
}

/// From when on answers count, and until when they are asked for.
#[derive(Clone, Copy)]
struct Span {
    from: Duration,
    to: Duration,
}

/// Each side that is given, one after the other.
pub async fn measure(arguments: &Arguments) -> io::Result<Value> {
    let mut found = Map::new();
    for (name, target) in given(arguments)? {
        found.insert(name.to_owned(), side(arguments, target).await?);
    }
    Ok(Value::Object(found))
}

async fn side(arguments: &Arguments, target: Target) -> io::Result<Value> {
    let warm_up = arguments.seconds("warm-up", 2)?;
    let length = arguments.seconds("seconds", 10)?;
    let request: Arc<[u8]> = target.request(arguments.needed("model")?, false).into();
    let target = Arc::new(target);
    let from = clock::now() + warm_up;
    let span = Span { from, to: from + length };
    let mut connections = JoinSet::new();
    for _ in 0..arguments.number("connections", 16)? {
        connections.spawn(connection(Arc::clone(&target), Arc::clone(&request), span));
    }
    let mut seen = Seen::default();
    while let Some(one) = connections.join_next().await {
        let one = one.map_err(io::Error::other)?;
        seen.times.extend(one.times);
        seen.errors += one.errors;
        seen.why = one.why.or(seen.why);
    }
    let answered = u32::try_from(seen.times.len()).map_err(io::Error::other)?;
    Ok(json!({ "per_second": f64::from(answered) / length.as_secs_f64(),
        "times": Spread::of(seen.times).told(), "errors": seen.errors, "error": seen.why }))
}

async fn connection(target: Arc<Target>, request: Arc<[u8]>, span: Span) -> Seen {
    let mut client = Client::new(&target);
    let mut body = Vec::new();
    let mut seen = Seen::default();
    loop {
        let began = clock::now();
        if began >= span.to {
            return seen;
        }
        let answered = client.whole(&request, &mut body).await;
        let ended = clock::now();
        match answered {
            _ if ended < span.from || ended > span.to => {}
            Ok(200) => seen.times.push(ended.saturating_sub(began)),
            Ok(status) => seen.fails(format!("{status} {}", String::from_utf8_lossy(&body))),
            Err(error) => {
                seen.fails(error.to_string());
                // Nobody there: no reason to spin.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

impl Seen {
    fn fails(&mut self, why: String) {
        self.errors += 1;
        self.why = Some(why);
    }
}
