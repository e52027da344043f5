//! A load that neither grows nor waits: what a gateway's memory does under it.
//!
//! Requests start at fixed times, whether or not earlier ones are answered, and are timed from the
//! time at which they were due.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::arguments::Arguments;
use crate::client::Client;
use crate::clock;
use crate::events::{Ended, stream};
use crate::spread::Spread;
use crate::target::Target;

/// No request may take longer.
const LONGEST: Duration = Duration::from_mins(1);
/// A gateway that is so far behind is not measured, it is drowned.
const MOST_AT_ONCE: usize = 2000;
/// Servers may end connections on which nothing happens; none before that.
const KEPT: Duration = Duration::from_secs(4);

/// What is sent, over connections that are kept.
struct Load {
    target: &'static Target,
    whole: Vec<u8>,
    stream: Vec<u8>,
    /// Every so many requests one streams.
    stream_every: u32,
    /// Since when, in that order.
    idle: Mutex<Vec<(Duration, Client<'static>)>>,
}

/// Resident memory, in KiB, and when.
type Sample = (Duration, u32);

/// The series of samples, and by how much the last tenth of the time exceeds the second.
pub async fn measure(arguments: &Arguments) -> io::Result<Value> {
    let length = arguments.seconds("seconds", 600)?;
    let every = arguments.seconds("sample-seconds", 10)?;
    let pid = arguments.needed("pid")?.to_owned();
    let load = Arc::new(Load::of(arguments)?);
    let rate = arguments.number("rate", 200)?.max(1);
    resident(&pid)?;
    let began = clock::now();
    let sampling = tokio::spawn(samples(pid, began, length, every));
    let (times, errors) = requests(&load, began, length, rate).await?;
    let samples = sampling.await.map_err(io::Error::other)??;
    let [early, late] = [1, 9].map(|tenth| mean(&samples, length * tenth / 10, length / 10));
    let change = early.zip(late).map(|(early, late)| (late / early - 1.0) * 100.0);
    let series: Vec<_> = samples.iter().map(|(at, kib)| json!([at.as_secs(), kib])).collect();
    Ok(json!({ "rate": rate, "times": Spread::of(times).told(), "errors": errors,
        "second_tenth_kib": early, "last_tenth_kib": late, "change_percent": change,
        "rss_kib": series }))
}

impl Load {
    fn of(arguments: &Arguments) -> io::Result<Self> {
        // As long as the process: connections refer to it from tasks.
        let target: &'static Target = Box::leak(Box::new(Target::of(arguments, "via")?));
        let streams = arguments.text("stream-model").unwrap_or("stream-64-20");
        Ok(Self {
            target,
            whole: target.request(arguments.needed("model")?, false),
            stream: target.request(streams, true),
            stream_every: arguments.number("stream-every", 10)?.max(1),
            idle: Mutex::default(),
        })
    }

    /// Whether it was answered as it should be; then its connection serves again.
    async fn request(&self, number: u32) -> bool {
        let mut client = self.kept().unwrap_or_else(|| Client::new(self.target));
        let asked = timeout(LONGEST, async {
            if number.is_multiple_of(self.stream_every) {
                Ok(stream(&mut client, &self.stream, |_| {}).await? == Ended::Done)
            } else {
                Ok::<_, io::Error>(client.whole(&self.whole, &mut Vec::new()).await? == 200)
            }
        });
        let well = matches!(asked.await, Ok(Ok(true)));
        if well {
            self.idle().push((clock::now(), client));
        }
        well
    }

    /// The connection that served last; if that is long ago, all of them are too old.
    fn kept(&self) -> Option<Client<'static>> {
        let mut idle = self.idle();
        let (since, client) = idle.pop()?;
        if clock::now() < since + KEPT {
            return Some(client);
        }
        idle.clear();
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Duration, Client<'static>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Times of the requests in one piece, and how many of all went wrong.
async fn requests(
    load: &Arc<Load>,
    began: Duration,
    length: Duration,
    rate: u32,
) -> io::Result<(Vec<Duration>, u32)> {
    let (mut times, mut errors) = (Vec::new(), 0);
    let mut note = |(time, well): (Option<Duration>, bool)| {
        times.extend(time.filter(|_| well));
        errors += u32::from(!well);
    };
    let mut running = JoinSet::new();
    let mut number = 0;
    loop {
        let due = began + Duration::from_secs(1) * number / rate;
        if due >= began + length {
            break;
        }
        clock::sleep_until(due).await;
        while let Some(ended) = running.try_join_next() {
            note(ended.map_err(io::Error::other)?);
        }
        if running.len() < MOST_AT_ONCE {
            let load = Arc::clone(load);
            running.spawn(async move {
                let well = load.request(number).await;
                let whole = !number.is_multiple_of(load.stream_every);
                (whole.then(|| clock::now().saturating_sub(due)), well)
            });
        } else {
            note((None, false));
        }
        number += 1;
    }
    while let Some(ended) = running.join_next().await {
        note(ended.map_err(io::Error::other)?);
    }
    Ok((times, errors))
}

async fn samples(
    pid: String,
    began: Duration,
    length: Duration,
    every: Duration,
) -> io::Result<Vec<Sample>> {
    let mut found = Vec::new();
    let mut at = Duration::ZERO;
    while at <= length {
        clock::sleep_until(began + at).await;
        found.push((at, resident(&pid)?));
        at += every.max(Duration::from_secs(1));
    }
    Ok(found)
}

/// `VmRSS` of that process.
fn resident(pid: &str) -> io::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let amount = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    amount.ok_or_else(|| io::Error::other(format!("process {pid} tells no VmRSS")))
}

/// Of the samples in that span, its end included; none if there are none.
fn mean(samples: &[Sample], from: Duration, length: Duration) -> Option<f64> {
    let within = samples.iter().filter(|(at, _)| *at >= from && *at <= from + length);
    let (count, sum) = within.fold((0, 0.0), |(n, sum), (_, kib)| (n + 1, sum + f64::from(*kib)));
    (count > 0).then(|| sum / f64::from(count))
}
