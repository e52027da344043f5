//! What a log's records say, record by record: the one function that decides which record may
//! follow which, used when writing and when recovering.
//!
//! Invariants:
//! - [`LogState::apply`] is pure: the same records over the same program give the same state.
//! - A record that may not follow is refused, with nothing changed that a caller would act on.
//! - Channels of runs that have ended are rebuilt without their graphs; a graph is needed only
//!   for a run that goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::bundle::Program;
use crate::expr::Scope;
use crate::graph::Graph;
use crate::message::Message;
use crate::model::Usage;
use crate::run::frame::Frame;
use crate::run::record::{Fact, Number, Numbered, RunOptions, Started};
use crate::state::{self, Channel, Delta, MessageMap, Op, Reducer, State};

/// A record that may not follow those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {number} may not stand here: {why}")]
pub struct Illegal {
    /// Its number.
    pub number: Number,
    /// Which rule it breaks.
    pub why: String,
}

/// Everything a log's records say.
#[derive(Debug, Default)]
pub struct LogState {
    /// Number of the last record; 0 before the first.
    pub head: Number,
    /// Every message that records name.
    pub messages: MessageMap,
    /// The run that goes on, if one does.
    pub run: Option<RunState>,
    /// Channels as the last run left them.
    values: IndexMap<Arc<str>, Arc<Value>>,
    /// Those of them that are lists of messages, and so are stored by id.
    talk: BTreeSet<Arc<str>>,
    /// Records since the last snapshot.
    since: u32,
}

/// Records between two snapshots, at least: few enough to be read in a blink, and so many that
/// snapshots are a small part of the log.
pub const SNAPSHOT_EVERY: u32 = 200;

/// A run that goes on.
#[derive(Debug)]
pub struct RunState {
    /// How it began.
    pub started: Arc<Started>,
    /// When.
    pub began_ms: i64,
    /// Its graph, if the caller of [`LogState::apply`] had it.
    pub root: Option<Frame>,
    /// Steps so far, of all its graphs.
    pub steps: u32,
    /// Tokens so far.
    pub usage: Usage,
    /// Times in a row that it was taken over with nothing to show for it: no call, task or step
    /// ended in between.
    pub crashes: u32,
    /// Whether an orderly shutdown gave it back.
    handed: bool,
}

impl LogState {
    /// Replays a history. `program` is that of the last run, if it goes on.
    pub fn replay(
        records: &[Numbered],
        messages: Vec<Arc<Message>>,
        program: Option<&Arc<Program>>,
    ) -> Result<Self, Illegal> {
        let mut log = Self::default();
        log.messages.extend(messages.into_iter().map(|m| (m.id.clone(), m)));
        for record in records {
            log.apply(record, program)?;
        }
        Ok(log)
    }

    /// Applies one record. Messages that it names must be in [`messages`](Self::messages).
    pub fn apply(
        &mut self,
        numbered: &Numbered,
        program: Option<&Arc<Program>>,
    ) -> Result<(), Illegal> {
        let Numbered { number, record } = numbered;
        let illegal = |why: String| Illegal { number: *number, why };
        if *number <= self.head {
            return Err(illegal(format!("its number is not above {}", self.head)));
        }
        let done = match (&record.fact, self.run.as_mut()) {
            (Fact::Started(_), Some(_)) => Err("another run goes on".to_owned()),
            (Fact::Started(started), None) => self.start(started, record.at_ms, program),
            (Fact::Snapshot { .. }, Some(_)) => Err("a run goes on".to_owned()),
            (Fact::Snapshot { values }, None) => self.stand(values),
            (_, None) => Err("no run goes on".to_owned()),
            (Fact::Resumed { .. }, Some(run)) => {
                run.crashes = if run.handed { 0 } else { run.crashes + 1 };
                run.handed = false;
                Ok(())
            }
            (Fact::Ended(ended), Some(_)) => self.end(&ended.delta),
            (fact, Some(run)) => {
                // A call that was begun again is no step forward: it may be what kills.
                if !matches!(fact, Fact::Intent(_)) {
                    run.crashes = 0;
                }
                run.handed = matches!(fact, Fact::Handed {});
                if let Fact::Called(called) = fact
                    && let Some(usage) = called.model.as_ref().and_then(|m| m.usage)
                {
                    run.usage += usage;
                }
                let done = if let Some(root) = &mut run.root {
                    root.advance(fact, record.at_ms, &self.messages)
                } else {
                    apply_plain(&mut self.values, &mut self.talk, fact, &self.messages)
                };
                if let Fact::Step(step) = fact {
                    run.steps = step.step;
                }
                done
            }
        };
        done.map_err(illegal)?;
        self.head = *number;
        self.since = if matches!(record.fact, Fact::Snapshot { .. }) { 0 } else { self.since + 1 };
        Ok(())
    }

    /// A snapshot, if one is due: between two runs, once enough was recorded since the last.
    #[must_use]
    pub fn snapshot(&self) -> Option<Delta> {
        if self.run.is_some() || self.since < SNAPSHOT_EVERY {
            return None;
        }
        let id = |message: &Value| message.get("id").and_then(Value::as_str).map(Into::into);
        let op = |(name, value): (&Arc<str>, &Arc<Value>)| {
            let op = match value.as_array().filter(|_| self.talk.contains(name)) {
                Some(items) => Op::Messages(items.iter().filter_map(id).collect()),
                None => Op::Set(Value::clone(value)),
            };
            (name.clone(), op)
        };
        Some(self.values.iter().map(op).collect())
    }

    /// The values of all channels: of the run that goes on, else as the last one left them.
    #[must_use]
    pub fn values(&self) -> Map<String, Value> {
        let mut all: Map<String, Value> =
            self.values.iter().map(|(k, v)| (k.to_string(), Value::clone(v))).collect();
        if let Some(root) = self.run.as_ref().and_then(|r| r.root.as_ref()) {
            all.extend(root.state.to_json());
        }
        all
    }

    /// The state that a run of `graph` begins with, before its input.
    #[must_use]
    pub fn entry(&self, graph: &Graph) -> State {
        let mut state = State::new(graph.channels.clone());
        for channel in graph.channels.iter().filter(|c| c.scope == state::Scope::Log) {
            if let Some(value) = self.values.get(&channel.name) {
                state.restore(&channel.name, value.clone());
            }
        }
        state
    }

    /// Channels of `graph` that begin at their initial value: those of `scope: run`, those that
    /// the log has no value of, and those whose value their type no longer admits.
    #[must_use]
    pub fn base(&self, graph: &Graph) -> BTreeMap<Arc<str>, Arc<Value>> {
        let kept = |c: &Channel| self.values.get(&c.name).is_some_and(|v| c.kind.admits(v));
        let fresh = |c: &&Channel| c.scope == state::Scope::Run || !kept(c);
        graph.channels.iter().filter(fresh).map(|c| (c.name.clone(), c.initial.clone())).collect()
    }

    fn start(
        &mut self,
        started: &Started,
        at_ms: i64,
        program: Option<&Arc<Program>>,
    ) -> Result<(), String> {
        for (name, value) in &started.base {
            self.values.insert(name.clone(), value.clone());
        }
        let program = program.filter(|p| p.id == started.bundle);
        let root = match program {
            None => {
                self.talk.extend(talked(&started.delta));
                apply_values(&mut self.values, &started.delta, &self.messages)?;
                None
            }
            Some(program) => {
                let mut state = self.entry(&program.graph);
                state.apply(&started.delta, &self.messages).map_err(|e| e.to_string())?;
                let scope = scope_of(started, at_ms);
                let mut root = Frame::new("".into(), program.graph.clone(), state, scope);
                root.begin(&started.next, &started.filled, at_ms)?;
                Some(root)
            }
        };
        self.run = Some(RunState {
            started: Arc::new(started.clone()),
            began_ms: at_ms,
            root,
            steps: 1,
            usage: Usage::default(),
            crashes: 0,
            handed: false,
        });
        Ok(())
    }

    /// Takes the values of a snapshot.
    fn stand(&mut self, values: &Delta) -> Result<(), String> {
        self.values.clear();
        self.talk = talked(values).collect();
        for (name, op) in values {
            let mut slot = Arc::default();
            state::apply(&mut slot, op, &self.messages).map_err(|e| e.to_string())?;
            self.values.insert(name.clone(), slot);
        }
        Ok(())
    }

    fn end(&mut self, closing: &Delta) -> Result<(), String> {
        let root = self.run.take().and_then(|run| run.root);
        if let Some(root) = root {
            let talk = root.graph.channels.iter().filter(|c| c.reduce == Reducer::Messages);
            self.talk.extend(talk.map(|c| c.name.clone()));
            let values = root.state.iter().map(|(k, v)| (k.clone(), v.clone()));
            self.values.extend(values);
        }
        apply_values(&mut self.values, closing, &self.messages)
    }
}

impl RunState {
    /// What the run uses where nodes say nothing.
    #[must_use]
    pub fn options(&self) -> &RunOptions {
        &self.started.options
    }
}

/// What expressions of a run read besides the state.
#[must_use]
pub fn scope_of(started: &Started, now_ms: i64) -> Scope {
    Scope {
        user: started.owner.clone(),
        run: started.run.clone(),
        graph: started.graph.clone(),
        conversation: started.conversation.clone(),
        now: Timestamp::from_millisecond(now_ms).unwrap_or_default(),
    }
}

/// Channels that took messages.
fn talked(delta: &Delta) -> impl Iterator<Item = Arc<str>> + '_ {
    delta.iter().filter(|(_, op)| matches!(op, Op::Messages(_))).map(|(name, _)| name.clone())
}

/// What a fact does to the channels of a run whose graph is not at hand.
fn apply_plain(
    values: &mut IndexMap<Arc<str>, Arc<Value>>,
    talk: &mut BTreeSet<Arc<str>>,
    fact: &Fact,
    messages: &MessageMap,
) -> Result<(), String> {
    match fact {
        Fact::Step(step) if step.path.is_empty() => {
            talk.extend(talked(&step.delta));
            apply_values(values, &step.delta, messages)
        }
        _ => Ok(()),
    }
}

fn apply_values(
    values: &mut IndexMap<Arc<str>, Arc<Value>>,
    delta: &Delta,
    messages: &MessageMap,
) -> Result<(), String> {
    for (name, op) in delta {
        let slot = values.entry(name.clone()).or_default();
        state::apply(slot, op, messages).map_err(|e| e.to_string())?;
    }
    Ok(())
}
