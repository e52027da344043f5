//! Readers of runs that are long, that say several things at once, and that store late; and of
//! logs that are shown by somebody slow.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::env::{Env, StepEnv};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{Input, JournalError, Lease, MemoryJournal, ResumeRun};
use exile_engine::model::Models;
use exile_engine::node::{Node, NodeError, Outcome};
use exile_engine::run::context::Cx;
use exile_engine::run::event::Event;
use exile_engine::run::live::{Live, MemoryLive, News, Subscription};
use exile_engine::run::record::{Durability, Number};
use exile_engine::state::{Reducer, State};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::questions::Asking;
use super::{lines, question, talk, user};
use crate::hand::{Around, Bench, Hand, leaf};
use crate::scripted::{Line, Scripted};

const DURABILITIES: [Durability; 3] = [Durability::Sync, Durability::Async, Durability::Exit];

/// Asks the scripted model, streams the answer, and keeps nothing of it.
#[derive(Debug)]
struct Speaks;

#[async_trait]
impl Node for Speaks {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        cx.call_model(question(state)).await?;
        Ok(Outcome::write(&"n".into(), json!(1)))
    }
}

/// So many speak at the same time, again and again until `n` turns are over.
fn chorus(speakers: usize, turns: usize, durability: Durability) -> Hand {
    let mut hand = talk().channel("n", Reducer::Sum, Value::from(0));
    hand.durability = durability;
    hand = hand.node("begin", crate::hand::writes(&[])).edge("START", "begin");
    let all = speakers * turns;
    for speaker in 0..speakers {
        let name = format!("speaker_{speaker}");
        hand = hand.node(&name, leaf(Speaks)).edge("begin", &name);
        hand = hand.when(&name, &format!("n < {all}"), "begin").otherwise(&name, "END");
    }
    hand.limits.steps = Some(10_000);
    hand
}

fn script() -> Vec<Line> {
    vec![Line::Say("one two three four five six seven eight nine ten")]
}

async fn bench(hand: Hand, live: Arc<dyn Live>) -> Bench {
    let env: Arc<dyn Env> = Arc::new(StepEnv::new());
    let journal = Arc::new(MemoryJournal::new(env.clone()));
    let models = Models::new(vec![Scripted::new(script())], BTreeMap::new());
    Bench::whole(journal, env, hand.graph(), Around { models, live, ..Around::default() }).await
}

async fn read(bench: &Bench, run: &RunId, after: Number) -> Vec<Event> {
    bench.engine.events(run.clone(), after).map(Result::unwrap).collect().await
}

#[tokio::test]
async fn a_long_run_of_many_voices_is_read_on_from_every_place() {
    for durability in DURABILITIES {
        let bench = bench(chorus(4, 60, durability), Arc::new(MemoryLive::default())).await;
        let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
        bench.start(&log, &run, user("go")).await;
        let whole = read(&bench, &run, 0).await;
        assert_eq!(whole.last().unwrap().name, "run.finished", "{:?}", whole.last());
        assert!(whole.len() > 3_000, "{durability:?}: {} events", whole.len());
        assert!(whole.windows(2).all(|w| w[0].number < w[1].number), "numbers rise strictly");
        for cut in (0..whole.len()).step_by(97).chain(whole.len() - 20..=whole.len()) {
            let seen = cut.checked_sub(1).map_or(0, |i| whole[i].number);
            let rest = read(&bench, &run, seen).await;
            assert_eq!(lines(&rest), lines(&whole[cut..]), "{durability:?} cut at {cut}");
        }
        let told = whole.iter().filter(|event| event.name != "message.delta").map(|e| e.number);
        let history = bench.engine.history(run.clone(), 0).map(|event| event.unwrap().number);
        assert_eq!(history.collect::<Vec<_>>().await, told.collect::<Vec<_>>());
    }
}

/// A reader comes whenever something is about to be shown, and after that.
struct Slow {
    live: MemoryLive,
    came: mpsc::Sender<oneshot::Sender<()>>,
}

impl Slow {
    async fn let_read(&self) {
        let (read, has_read) = oneshot::channel();
        if self.came.send(read).await.is_ok() {
            let _ = has_read.await;
        }
    }
}

#[async_trait]
impl Live for Slow {
    async fn begin(&self, lease: &Lease, last: Number) {
        self.let_read().await;
        self.live.begin(lease, last).await;
        self.let_read().await;
    }

    async fn publish(&self, lease: &Lease, news: News) {
        self.let_read().await;
        self.live.publish(lease, news).await;
        self.let_read().await;
    }

    async fn end(&self, lease: &Lease) {
        self.let_read().await;
        self.live.end(lease).await;
        self.let_read().await;
    }

    fn watched(&self, log: &LogId) -> bool {
        self.live.watched(log)
    }

    async fn subscribe(&self, log: &LogId) -> Subscription {
        self.live.subscribe(log).await
    }
}

/// Readers that came one at each moment at which something is shown: what each saw at once, and the
/// rest.
struct Readers(Vec<(Option<Event>, Reader)>);

type Reader = BoxStream<'static, Result<Event, JournalError>>;

impl Readers {
    /// Lets one come at every moment until `until` is over.
    async fn of<T>(
        bench: &Bench,
        (run, after): (&RunId, Number),
        coming: &mut mpsc::Receiver<oneshot::Sender<()>>,
        until: impl Future<Output = T>,
    ) -> Self {
        let mut readers = Vec::new();
        tokio::pin!(until);
        loop {
            let go_on = tokio::select! {
                Some(go_on) = coming.recv() => go_on,
                _ = &mut until => return Self(readers),
            };
            let mut reader = bench.engine.events(run.clone(), after);
            // One look makes the reader subscribe and read what the journal has so far.
            let first = reader.next().now_or_never().flatten();
            readers.push((first.map(Result::unwrap), reader));
            let _ = go_on.send(());
        }
    }

    /// What each of them saw in the end.
    async fn seen(self) -> Vec<String> {
        let mut seen = Vec::new();
        for (first, reader) in self.0 {
            let mut events: Vec<Event> = first.into_iter().collect();
            events.extend(reader.map(Result::unwrap).collect::<Vec<_>>().await);
            seen.push(lines(&events));
        }
        seen
    }
}

#[tokio::test]
async fn readers_that_come_at_any_moment_see_the_same() {
    for durability in DURABILITIES {
        let (came, mut coming) = mpsc::channel(1);
        let live = Slow { live: MemoryLive::default(), came };
        let bench = bench(chorus(3, 2, durability), Arc::new(live)).await;
        let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
        bench.start(&log, &run, user("go")).await;
        let ended = bench.ended(&run);
        let readers = Readers::of(&bench, (&run, 0), &mut coming, ended).await;
        drop(coming);
        assert!(readers.0.len() > 5, "{durability:?}: {} came", readers.0.len());
        let whole = read(&bench, &run, 0).await;
        assert!(whole.windows(2).all(|w| w[0].number < w[1].number), "numbers rise strictly");
        let whole = lines(&whole);
        assert!(whole.contains("message.delta"), "{whole}");
        for seen in readers.seen().await {
            assert_eq!(seen, whole, "{durability:?}");
        }
    }
}

#[tokio::test]
async fn readers_that_come_while_an_answer_is_taken_in_see_what_follows() {
    let (came, mut coming) = mpsc::channel(1);
    let live = Slow { live: MemoryLive::default(), came };
    let asking = leaf(Asking { expires: None });
    let hand = Hand::default().channel("answer", Reducer::Replace, Value::Null);
    let hand = hand.node("ask", asking).edge("START", "ask").edge("ask", "END");
    let bench = bench(hand, Arc::new(live)).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, serde_json::Map::new()).await;
    let waits = bench.engine.wait(&run);
    Readers::of(&bench, (&run, 0), &mut coming, waits).await;
    let place = bench.journal.find(&run).await.unwrap().unwrap();
    let waits = bench.engine.waiting_at(&log, place.last.unwrap()).await.unwrap().unwrap();
    let answers = [(waits.asked[0].id.clone(), json!("yes"))].into_iter().collect();
    let resume = ResumeRun { run: run.clone(), answers, by: "user_1".into(), message: None };
    let resume = Input::Resume(Box::new(resume));
    bench.engine.send(&log, &"in_1".into(), &resume).await.unwrap();
    let after = place.last.unwrap();
    let ended = bench.engine.wait_beyond(&run, after);
    let readers = Readers::of(&bench, (&run, after), &mut coming, ended).await;
    drop(coming);
    assert!(readers.0.len() > 3, "{} came", readers.0.len());
    let rest = lines(&read(&bench, &run, after).await);
    assert!(rest.ends_with("run.finished finished"), "{rest}");
    for seen in readers.seen().await {
        assert_eq!(seen, rest);
    }
}
