//! Many streams at once: how late each delta is, and whether any is missing.
//!
//! Each stream begins again when it has ended, so many times as there are rounds. They begin
//! spread over the length of one, so that they neither begin nor speak all together.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::arguments::Arguments;
use crate::client::Client;
use crate::clock;
use crate::events::{Ended, stream};
use crate::spread::Spread;
use crate::target::{Target, given};

/// Whatever has not come by then will not come.
const LONGEST: Duration = Duration::from_mins(2);

/// What is asked for.
struct Plan {
    target: Target,
    request: Vec<u8>,
    deltas: usize,
    rounds: u32,
}

/// What came.
#[derive(Default)]
struct Came {
    late: Vec<Duration>,
    /// When streams began and ended: 1 and -1.
    turns: Vec<(Duration, i32)>,
    lost: usize,
    twice: usize,
    disordered: usize,
    /// Deltas that are not the mock's.
    strange: usize,
    broken: usize,
    why: Option<String>,
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
    let model = arguments.text("model").unwrap_or("stream-64-20");
    let (deltas, apart) = shape(model).ok_or_else(|| io::Error::other("--model: no stream"))?;
    let streams = arguments.number("streams", 300)?;
    let plan = Arc::new(Plan {
        request: target.request(model, true),
        target,
        deltas: usize::try_from(deltas).map_err(io::Error::other)?,
        rounds: arguments.number("rounds", 3)?,
    });
    let began = clock::now();
    let mut running = JoinSet::new();
    for number in 0..streams {
        let starts = began + apart * deltas * number / streams;
        running.spawn(repeated(Arc::clone(&plan), starts));
    }
    let mut came = Came::default();
    while let Some(one) = running.join_next().await {
        came.add(one.map_err(io::Error::other)?);
    }
    let expected = usize::try_from(streams * plan.rounds).unwrap_or(0) * plan.deltas;
    Ok(json!({ "deltas": expected, "lost": came.lost, "twice": came.twice,
        "disordered": came.disordered, "strange": came.strange, "broken": came.broken,
        "error": came.why, "at_once": at_once(came.turns), "late": Spread::of(came.late).told() }))
}

/// `stream-DELTAS-MILLISECONDS`.
fn shape(model: &str) -> Option<(u32, Duration)> {
    let (deltas, apart) = model.strip_prefix("stream-")?.split_once('-')?;
    Some((deltas.parse().ok()?, Duration::from_millis(apart.parse().ok()?)))
}

async fn repeated(plan: Arc<Plan>, starts: Duration) -> Came {
    let mut client = Client::new(&plan.target);
    let mut all = Came::default();
    clock::sleep_until(starts).await;
    for _ in 0..plan.rounds {
        let began = clock::now();
        let mut came = Came::default();
        let mut seen = vec![false; plan.deltas];
        let mut next = 0;
        let asked = stream(&mut client, &plan.request, |text| {
            came.text(text, &mut seen, &mut next);
        });
        match timeout(LONGEST, asked).await {
            Ok(Ok(Ended::Done)) => {}
            Ok(Ok(ended)) => came.breaks(format!("{ended:?}")),
            Ok(Err(error)) => came.breaks(error.to_string()),
            Err(_) => came.breaks("timed out".to_owned()),
        }
        came.lost = seen.iter().filter(|seen| !**seen).count();
        came.turns = vec![(began, 1), (clock::now(), -1)];
        all.add(came);
    }
    all
}

impl Came {
    /// A gateway may hand on several deltas as one: each is told apart by its stamp.
    fn text(&mut self, text: &str, seen: &mut [bool], next: &mut usize) {
        let now = clock::now();
        for stamp in text.split_terminator(';') {
            let Some((number, sent)) = stamped(stamp).filter(|(n, _)| *n < seen.len()) else {
                self.strange += 1;
                continue;
            };
            self.twice += usize::from(seen[number]);
            seen[number] = true;
            self.disordered += usize::from(number < *next);
            *next = (*next).max(number + 1);
            self.late.push(now.saturating_sub(sent));
        }
    }

    fn breaks(&mut self, why: String) {
        self.broken += 1;
        self.why = Some(why);
    }

    fn add(&mut self, other: Self) {
        self.late.extend(other.late);
        self.turns.extend(other.turns);
        self.lost += other.lost;
        self.twice += other.twice;
        self.disordered += other.disordered;
        self.strange += other.strange;
        self.broken += other.broken;
        self.why = other.why.or_else(|| self.why.take());
    }
}

/// `NUMBER:MICROSECONDS`.
fn stamped(stamp: &str) -> Option<(usize, Duration)> {
    let (number, sent) = stamp.split_once(':')?;
    Some((number.parse().ok()?, Duration::from_micros(sent.parse().ok()?)))
}

/// The most that ran at the same time.
fn at_once(mut turns: Vec<(Duration, i32)>) -> i32 {
    turns.sort_unstable();
    let running = turns.iter().scan(0, |running, (_, turn)| {
        *running += turn;
        Some(*running)
    });
    running.max().unwrap_or(0)
}
