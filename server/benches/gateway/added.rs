//! What a gateway adds to a single request: the same requests with and without it, one after the
//! other over one connection each, in rounds that take turns.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::client::Client;
use crate::clock;
use crate::events::{Ended, stream};
use crate::spread::Spread;
use crate::target::Target;

/// How far a request is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The whole answer, in one piece.
    End,
    /// The first token of a stream.
    FirstToken,
}

/// How many requests.
struct Round {
    warm_up: u32,
    requests: u32,
}

/// One side of the comparison.
struct Side {
    target: Target,
    request: Vec<u8>,
    until: Until,
    times: Vec<Duration>,
    errors: u32,
    /// Of the last error.
    why: Option<String>,
}

/// Both sides, and by how much the second exceeds the first, of all rounds and of each.
pub async fn measure(arguments: &Arguments, until: Until) -> io::Result<Value> {
    let round = Round {
        warm_up: arguments.number("warm-up", 200)?,
        requests: arguments.number("requests", 1000)?,
    };
    let mut direct = Side::of(arguments, "direct", until)?;
    let mut via = Side::of(arguments, "via", until)?;
    let mut rounds = Vec::new();
    for number in 0..arguments.number("rounds", 4)?.max(3) {
        let (beside, through) = if number % 2 == 0 {
            let beside = direct.round(&round).await;
            (beside, via.round(&round).await)
        } else {
            let through = via.round(&round).await;
            (direct.round(&round).await, through)
        };
        rounds.push(through.above(&beside));
    }
    let errors = json!({ "direct": direct.errors, "via": via.errors,
        "error": via.why.take().or(direct.why.take()) });
    let [direct, via] = [direct, via].map(|side| Spread::of(side.times));
    if direct.count() == 0 || via.count() == 0 {
        return Err(io::Error::other(format!("nothing was answered: {errors}")));
    }
    let added = via.above(&direct);
    Ok(json!({ "direct": direct.told(), "via": via.told(), "added": added, "rounds": rounds,
        "errors": errors }))
}

impl Side {
    fn of(arguments: &Arguments, name: &str, until: Until) -> io::Result<Self> {
        let target = Target::of(arguments, name)?;
        let request = target.request(arguments.needed("model")?, until == Until::FirstToken);
        Ok(Self { target, request, until, times: Vec::new(), errors: 0, why: None })
    }

    /// One round over a connection of its own: the other side's round may outlast one that idles.
    async fn round(&mut self, round: &Round) -> Spread {
        let mut client = Client::new(&self.target);
        let mut body = Vec::new();
        let mut times = Vec::new();
        for number in 0..round.warm_up + round.requests {
            let began = clock::now();
            let ended = match self.until {
                Until::End => whole(&mut client, &self.request, &mut body).await,
                Until::FirstToken => first(&mut client, &self.request).await,
            };
            match ended {
                _ if number < round.warm_up => {}
                Ok(ended) => times.push(ended.saturating_sub(began)),
                Err(error) => {
                    self.errors += 1;
                    self.why = Some(error.to_string());
                }
            }
        }
        self.times.extend_from_slice(&times);
        Spread::of(times)
    }
}

/// When the answer had ended.
async fn whole(
    client: &mut Client<'_>,
    request: &[u8],
    body: &mut Vec<u8>,
) -> io::Result<Duration> {
    match client.whole(request, body).await? {
        200 => Ok(clock::now()),
        status => Err(io::Error::other(format!("answered with {status}"))),
    }
}

/// When the first token came, of a stream that ended as it should.
async fn first(client: &mut Client<'_>, request: &[u8]) -> io::Result<Duration> {
    let mut came = None;
    let ended = stream(client, request, |_| came = came.or_else(|| Some(clock::now()))).await?;
    let came = came.filter(|_| ended == Ended::Done);
    came.ok_or_else(|| io::Error::other(format!("a stream without text, or {ended:?}")))
}
