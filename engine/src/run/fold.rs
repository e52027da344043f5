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
use crate::id::{MessageId, RunId};
use crate::journal::BlobId;
use crate::message::{Message, Role};
use crate::model::Usage;
use crate::run::aside;
use crate::run::instance::GraphInstance;
use crate::run::record::{
    Called, Callee, EndStatus, Ended, Fact, Forked, LastRun, Number, Numbered, Reply, RunOptions,
    Started, Step, Waiting,
};
use crate::run::trials::Suspicion;
use crate::run::writes::parse_messages;
use crate::state::{
    self, Channel, ChannelValue, Delta, MessageList, MessageMap, Op, Reducer, State,
};
use crate::tool::ToolErrorKind;

/// A record that may not follow those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {number} may not stand here: {why}")]
pub struct Illegal {
    /// Its number.
    pub number: Number,
    /// Which rule it breaks.
    pub why: String,
}

/// Compiled bundles, by address: what runs of a log are pinned to.
#[derive(Clone, Debug, Default)]
pub struct Programs(BTreeMap<BlobId, Arc<Program>>);

impl Programs {
    /// The program at that address.
    #[must_use]
    pub fn get(&self, bundle: &BlobId) -> Option<&Arc<Program>> {
        self.0.get(bundle)
    }

    /// Adds a program.
    pub fn add(&mut self, program: Arc<Program>) {
        self.0.insert(program.id.clone(), program);
    }
}

impl From<Arc<Program>> for Programs {
    fn from(program: Arc<Program>) -> Self {
        Self(BTreeMap::from([(program.id.clone(), program)]))
    }
}

/// Everything a log's records say.
#[derive(Debug, Default)]
pub struct LogState {
    /// Number of the last record; 0 before the first.
    pub head: Number,
    /// Every message that records name.
    pub messages: MessageMap,
    /// The run that goes on or waits, if one does.
    pub run: Option<RunState>,
    /// The run that ended last.
    pub last: Option<LastRun>,
    /// Texts that are not the user's came into it: what tools answered. They stay in its channels,
    /// so every later run of the log is tainted too.
    pub tainted: bool,
    /// Channels as the last run left them.
    values: IndexMap<Arc<str>, ChannelValue>,
    /// Messages of the last run that the next one begins without.
    set_aside: BTreeSet<MessageId>,
    /// Records since the last snapshot.
    since: u32,
}

/// Records between two snapshots, at least: few enough to be read in a blink, and so many that
/// snapshots are a small part of the log.
pub const SNAPSHOT_EVERY: u32 = 200;

/// How often a run may be taken over without getting on before it is left to a person, if the last
/// process had nothing else to die of.
pub const CRASHES_MAX: u32 = 3;
/// How often a process may have died with a run before it is tried apart from others.
const SUSPECT: u32 = 2;

/// A run that goes on or waits.
#[derive(Debug)]
pub struct RunState {
    /// How it began.
    pub started: Arc<Started>,
    /// What it is pinned to by now.
    pub bundle: BlobId,
    /// The log's head before it began.
    pub before: Number,
    /// Milliseconds in which it went on, up to `since_ms`: waiting for people does not count, nor
    /// does the time between a crash and the next start.
    pub active_ms: u64,
    /// Since when it goes on, in milliseconds since 1970.
    pub since_ms: i64,
    /// Its graph, if the caller of [`LogState::apply`] had it.
    pub root: Option<GraphInstance>,
    /// What it waits for, if it waits.
    pub waiting: Option<Arc<Waiting>>,
    /// Calls, as tool and arguments, that may or may not have happened.
    pub unknown: Arc<BTreeSet<String>>,
    /// Steps so far, of all its graphs.
    pub steps: u32,
    /// Tokens so far.
    pub usage: Usage,
    /// Times in a row that it was taken over with nothing to show for it: no call, task or step
    /// ended in between.
    pub crashes: u32,
    /// Of how many the group was in which it was tried when it was taken over last; 0: in none, or
    /// it got on since.
    trial: u32,
    /// The process died while it was tried alone.
    pub died_alone: bool,
    /// Whether the model that spoke last in the conversation refused what it was sent.
    pub(crate) refused: bool,
    /// Whether an orderly shutdown gave it back.
    handed: bool,
    /// When its last record was made, in milliseconds since 1970.
    last_ms: i64,
}

impl LogState {
    /// Replays a history. `programs` holds what the last run is or was pinned to, if it goes on.
    pub fn replay(
        records: &[Numbered],
        messages: Vec<Arc<Message>>,
        programs: &Programs,
    ) -> Result<Self, Illegal> {
        let mut log = Self::default();
        log.messages.extend(messages.into_iter().map(|m| (m.id.clone(), m)));
        for record in records {
            log.apply(record, programs)?;
        }
        Ok(log)
    }

    /// Applies one record. Messages that it names must be in [`messages`](Self::messages).
    pub fn apply(&mut self, numbered: &Numbered, programs: &Programs) -> Result<(), Illegal> {
        let Numbered { number, record } = numbered;
        let illegal = |why: String| Illegal { number: *number, why };
        if *number <= self.head {
            return Err(illegal(format!("its number is not above {}", self.head)));
        }
        self.take(&record.fact, record.at_ms, programs).map_err(illegal)?;
        self.head = *number;
        self.since = if matches!(record.fact, Fact::Snapshot { .. }) { 0 } else { self.since + 1 };
        Ok(())
    }

    fn take(&mut self, fact: &Fact, at_ms: i64, programs: &Programs) -> Result<(), String> {
        match (fact, self.run.as_mut()) {
            (Fact::Started(_), Some(_)) => Err("another run goes on".to_owned()),
            (Fact::Started(started), None) => self.start(started, at_ms, programs),
            (Fact::Snapshot { .. }, Some(_)) => Err("a run goes on".to_owned()),
            (Fact::Snapshot { values, last, tainted }, None) => {
                self.stand(values, last.as_ref(), *tainted)
            }
            (Fact::Forked(forked), _) => self.forked(forked, at_ms),
            (Fact::Edited(edited), None) => {
                aside::named(&edited.delta).for_each(|id| _ = self.set_aside.remove(id));
                apply_values(&mut self.values, &edited.delta, &self.messages)
            }
            // A run was cancelled before it began.
            (Fact::Ended(ended), run) if run.as_ref().is_none_or(|run| !run.is(&ended.run)) => {
                let unbegun = ended.status == EndStatus::Cancelled && ended.delta.is_empty();
                if unbegun { Ok(()) } else { Err(format!("{} does not go on", ended.run)) }
            }
            (_, None) => Err("no run goes on".to_owned()),
            (Fact::Ended(ended), Some(_)) => self.end(ended),
            (Fact::Migrated { bundle }, Some(run)) => run.migrate(bundle, at_ms, programs),
            (fact, Some(run)) => {
                run.note(fact, at_ms, &self.messages);
                if let Fact::Called(called) = fact {
                    self.tainted |= called.taints;
                }
                if let Some(root) = &mut run.root {
                    root.apply(fact, at_ms, &self.messages)
                } else {
                    apply_plain(&mut self.values, fact, &self.messages)
                }
            }
        }
    }

    /// A snapshot, if one is due: between two runs, once enough was recorded since the last.
    #[must_use]
    pub fn snapshot(&self) -> Option<Fact> {
        if self.run.is_some() || self.since < SNAPSHOT_EVERY {
            return None;
        }
        let op = |(name, value): (&Arc<str>, &ChannelValue)| {
            let op = match value {
                ChannelValue::Messages(list) => {
                    let ids = list.iter().map(|message| message.id.clone());
                    Op::Messages(ids.filter(|id| !self.set_aside.contains(id)).collect())
                }
                ChannelValue::Json(value) => Op::Set(value.clone()),
            };
            (name.clone(), op)
        };
        let values = self.values.iter().map(op).collect();
        Some(Fact::Snapshot { values, last: self.last.clone(), tainted: Some(self.tainted) })
    }

    /// The values of all channels: of the run that goes on, else as the last one left them.
    #[must_use]
    pub fn values(&self) -> Map<String, Value> {
        let mut all: Map<String, Value> =
            self.values.iter().map(|(k, v)| (k.to_string(), v.to_json().into_owned())).collect();
        if let Some(root) = self.run.as_ref().and_then(|r| r.root.as_ref()) {
            all.extend(root.state.to_json());
        }
        all
    }

    /// Channels that are lists of messages.
    pub(crate) fn talk(&self) -> BTreeSet<Arc<str>> {
        let left = self.values.iter().filter(|(_, value)| value.as_messages().is_some());
        let mut talk: BTreeSet<Arc<str>> = left.map(|(name, _)| name.clone()).collect();
        if let Some(root) = self.run.as_ref().and_then(|run| run.root.as_ref()) {
            let lists = root.graph.channels.iter().filter(|c| c.reduce == Reducer::Messages);
            talk.extend(lists.map(|c| c.name.clone()));
        }
        talk
    }

    /// The state that a run of `graph` begins with, before its input.
    #[must_use]
    pub fn entry(&self, graph: &Graph) -> State {
        let mut state = State::new(graph.channels.clone());
        for channel in graph.channels.iter().filter(|c| c.scope == state::Scope::Log) {
            if let Some(value) = self.values.get(&channel.name) {
                state.restore(&channel.name, self.kept(value));
            }
        }
        state
    }

    /// What the last run left of a channel.
    pub(crate) fn left(&self, channel: &str) -> Option<&ChannelValue> {
        self.values.get(channel)
    }

    /// What the next run has of the value of a channel.
    fn kept(&self, value: &ChannelValue) -> ChannelValue {
        match value {
            ChannelValue::Messages(list) => list.without(&self.set_aside).into(),
            ChannelValue::Json(_) => value.clone(),
        }
    }

    /// Channels of `graph` that begin at their initial value: those of `scope: run`, those that
    /// the log has no value of, and those whose value their type no longer admits.
    #[must_use]
    pub fn base(&self, graph: &Graph) -> BTreeMap<Arc<str>, Arc<Value>> {
        let kept = |c: &Channel| {
            let value = self.values.get(&c.name);
            value.is_some_and(|value| c.admitted(value.clone()).is_some())
        };
        let fresh = |c: &&Channel| c.scope == state::Scope::Run || !kept(c);
        graph.channels.iter().filter(fresh).map(|c| (c.name.clone(), c.initial.clone())).collect()
    }

    /// Forgets messages that no channel holds any more, once they are the most of all: between two
    /// runs nothing else reads them.
    pub(crate) fn forget_unnamed(&mut self) {
        const FEW: usize = 64;
        let lists = || self.values.values().filter_map(ChannelValue::as_messages);
        let held: usize = lists().map(MessageList::len).sum();
        if self.run.is_some() || self.messages.len() <= 2 * held + FEW {
            return;
        }
        let held = lists().flat_map(MessageList::iter);
        self.messages = held.map(|message| (message.id.clone(), message.clone())).collect();
    }

    /// How much of memory it takes between two runs, about, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        /// What a message takes in the map besides what it takes in the lists that share it.
        const NAMED: usize = 128;
        let values = self.values.iter().map(|(name, value)| name.len() + value.weight());
        size_of::<Self>() + values.sum::<usize>() + self.messages.len() * NAMED
    }

    /// How much the channels that the last run left take in memory, about, in bytes, once `delta` is
    /// applied; without the messages that it adds.
    #[must_use]
    pub fn weight_after(&self, delta: &Delta) -> usize {
        let set = |name: &Arc<str>| matches!(delta.get(name), Some(Op::Set(_)));
        let kept = self.values.iter().filter(|(name, _)| !set(name));
        let new = delta.values().map(Op::weight);
        kept.map(|(_, value)| value.weight()).sum::<usize>() + new.sum::<usize>()
    }

    /// What these writes change between two runs, and the messages among them: each channel is
    /// set, but a list of messages is added to.
    #[must_use]
    pub fn edit(&self, writes: &state::Writes) -> (Delta, Vec<Arc<Message>>) {
        let (mut delta, mut messages) = (Delta::new(), Vec::new());
        for (name, value) in writes {
            let holds = self.values.get(name).is_some_and(|held| held.as_messages().is_some());
            let op = if holds {
                let new = parse_messages(value);
                let ids = new.iter().map(|m| m.id.clone()).collect();
                messages.extend(new);
                Op::Messages(ids)
            } else {
                Op::Set(Arc::new(value.to_json().into_owned()))
            };
            delta.insert(name.clone(), op);
        }
        (delta, messages)
    }

    fn start(&mut self, started: &Started, at_ms: i64, programs: &Programs) -> Result<(), String> {
        let aside = std::mem::take(&mut self.set_aside);
        for list in self.values.values_mut() {
            if let ChannelValue::Messages(list) = list {
                *list = list.without(&aside);
            }
        }
        for (name, value) in &started.base {
            self.values.insert(name.clone(), ChannelValue::Json(value.clone()));
        }
        let root = match programs.get(&started.bundle) {
            None => {
                apply_values(&mut self.values, &started.delta, &self.messages)?;
                None
            }
            Some(program) => {
                let mut state = self.entry(&program.graph);
                state.apply(&started.delta, &self.messages).map_err(|e| e.to_string())?;
                let scope = scope_of(started, at_ms);
                let mut root = GraphInstance::new("".into(), program.graph.clone(), state, scope);
                root.begin(&started.activation, at_ms, &[])?;
                Some(root)
            }
        };
        self.run = Some(RunState {
            started: Arc::new(started.clone()),
            bundle: started.bundle.clone(),
            before: self.head,
            active_ms: 0,
            since_ms: at_ms,
            root,
            waiting: None,
            unknown: Arc::default(),
            steps: 1,
            usage: Usage::default(),
            crashes: 0,
            trial: 0,
            died_alone: false,
            refused: false,
            handed: false,
            last_ms: at_ms,
        });
        Ok(())
    }

    /// What follows belongs to a fork: the run that goes on has another id, and none of its open
    /// calls was made.
    fn forked(&mut self, forked: &Forked, at_ms: i64) -> Result<(), String> {
        let (run, id) = match (&mut self.run, &forked.run) {
            (Some(run), Some(id)) => (run, id),
            (None, None) => return Ok(()),
            (Some(_), None) => return Err("the run that goes on has no id in the fork".to_owned()),
            (None, Some(_)) => return Err("no run goes on in the fork".to_owned()),
        };
        let mut started = Started::clone(&run.started);
        started.run = id.clone();
        run.started = Arc::new(started);
        run.got_on();
        (run.waiting, run.handed) = (None, false);
        (run.active_ms, run.since_ms, run.last_ms) = (0, at_ms, at_ms);
        if let Some(root) = &mut run.root {
            root.fork(id);
            if forked.again {
                root.begin_again(at_ms)?;
            }
        }
        Ok(())
    }

    /// Takes the values of a snapshot.
    fn stand(
        &mut self,
        values: &Delta,
        last: Option<&LastRun>,
        tainted: Option<bool>,
    ) -> Result<(), String> {
        self.last = last.cloned();
        let before = std::mem::take(&mut self.values);
        self.set_aside.clear();
        for (name, op) in values {
            let mut slot = ChannelValue::default();
            if let (Op::Messages(ids), Some(held)) = (op, before.get(name))
                && self.holds_just(held, ids)
            {
                // To make a list of thousands of messages again takes longer than the turn did.
                slot = held.clone();
            } else {
                state::apply(&mut slot, op, &self.messages).map_err(|e| e.to_string())?;
            }
            self.values.insert(name.clone(), slot);
        }
        // A snapshot of an earlier version does not say: what tools answered is among its messages.
        let of_tools = |message: &Arc<Message>| message.role == Role::Tool;
        self.tainted |= tainted.unwrap_or_else(|| self.messages.values().any(of_tools));
        Ok(())
    }

    /// Whether a channel holds these messages, as they stand now, and no others.
    fn holds_just(&self, held: &ChannelValue, ids: &[MessageId]) -> bool {
        let now = |message: &Arc<Message>| self.messages.get(&message.id) == Some(message);
        held.as_messages().is_some_and(|list| {
            list.iter().map(|message| &message.id).eq(ids) && list.iter().all(now)
        })
    }

    fn end(&mut self, ended: &Ended) -> Result<(), String> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let (id, by) = (ended.run.clone(), ended.by.clone());
        let earlier = self.last.take().filter(|last| by.is_some() && last.by == by);
        let before = earlier.map_or(run.before, |last| last.before);
        self.last = Some(LastRun { run: id, before, by });
        if let Some(root) = run.root {
            let values = root.state.iter().map(|(k, v)| (k.clone(), v.clone()));
            self.values.extend(values);
        }
        self.set_aside = ended.set_aside.iter().cloned().collect();
        apply_values(&mut self.values, &ended.delta, &self.messages)
    }
}

impl RunState {
    fn is(&self, run: &RunId) -> bool {
        self.started.run == *run
    }

    /// What a fact says of the run as a whole.
    fn note(&mut self, fact: &Fact, at_ms: i64, messages: &MessageMap) {
        match fact {
            Fact::Resumed { trial, .. } => {
                self.died_alone = !self.handed && self.trial == 1;
                self.crashes = if self.handed { 0 } else { self.crashes + 1 };
                self.trial = trial.unwrap_or(0);
                self.active_ms += millis_between(self.since_ms, self.last_ms);
                self.since_ms = at_ms;
            }
            Fact::Lived {} => (self.trial, self.died_alone) = (0, false),
            // A call that was begun again is no step forward: it may be what kills.
            Fact::Intent(_) => {}
            Fact::Called(called) => {
                self.got_on();
                self.refused = aside::verdict(called, messages).unwrap_or(self.refused);
                self.called(called);
            }
            Fact::Step(step) => {
                self.got_on();
                self.steps = step.step;
            }
            Fact::Waiting(_) if self.waiting.is_some() => {}
            Fact::Waiting(_) => self.active_ms += millis_between(self.since_ms, at_ms),
            _ => self.got_on(),
        }
        if self.waiting.is_some() && !matches!(fact, Fact::Waiting(_)) {
            self.since_ms = at_ms;
        }
        self.waiting = match fact {
            Fact::Waiting(waiting) => Some(Arc::new(Waiting::clone(waiting))),
            _ => None,
        };
        self.handed = matches!(fact, Fact::Handed {});
        self.last_ms = at_ms;
    }

    fn got_on(&mut self) {
        (self.crashes, self.trial, self.died_alone) = (0, 0, false);
    }

    /// Why it is tried apart from others if it is taken over now. `None`: it was given back, or did
    /// not die with its process often enough; or it is known by now to be what that died of.
    #[must_use]
    pub(crate) fn suspicion(&self) -> Option<Suspicion> {
        let deaths = if self.handed { 0 } else { self.crashes + 1 };
        let known = deaths >= CRASHES_MAX && self.trial == 1;
        (deaths >= SUSPECT && !known).then_some(Suspicion { group: self.trial, deaths })
    }

    fn called(&mut self, called: &Called) {
        if let Some(usage) = called.model.as_ref().and_then(|m| m.usage) {
            self.usage += usage;
        }
        let unknown = match &called.reply {
            Reply::Message { failed: Some(error), .. } | Reply::ToolFailed(error) => {
                error.kind == ToolErrorKind::OutcomeUnknown
            }
            _ => false,
        };
        let intent = self.root.as_ref().and_then(|root| root.task(&called.task));
        let intent = intent.and_then(|task| task.open.get(&called.call));
        if let Some(Callee::Tool { name, args, .. }) = intent.map(|i| &i.to).filter(|_| unknown) {
            Arc::make_mut(&mut self.unknown).insert(call_text(name, args));
        }
    }

    fn migrate(&mut self, bundle: &BlobId, at_ms: i64, programs: &Programs) -> Result<(), String> {
        self.bundle = bundle.clone();
        self.got_on();
        self.waiting = None;
        (self.since_ms, self.last_ms) = (at_ms, at_ms);
        match (&mut self.root, programs.get(bundle)) {
            (Some(root), Some(program)) => root.rebase(&program.graph),
            (Some(_), None) => {
                Err(format!("its bundle {bundle} is not at hand", bundle = bundle.0))
            }
            (None, _) => Ok(()),
        }
    }

    /// Milliseconds in which it went on, up to `now_ms`.
    #[must_use]
    pub fn spent_ms(&self, now_ms: i64) -> u64 {
        match self.waiting {
            Some(_) => self.active_ms,
            None => self.active_ms + millis_between(self.since_ms, now_ms),
        }
    }

    /// What the run uses where nodes say nothing.
    #[must_use]
    pub fn options(&self) -> &RunOptions {
        &self.started.options
    }
}

/// A call as [`RunState::unknown`] knows it.
#[must_use]
pub fn call_text(tool: &str, args: &Value) -> String {
    format!("{tool} {args}")
}

fn millis_between(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
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
        error: None,
    }
}

/// What a fact does to the channels of a run whose graph is not at hand.
fn apply_plain(
    values: &mut IndexMap<Arc<str>, ChannelValue>,
    fact: &Fact,
    messages: &MessageMap,
) -> Result<(), String> {
    match fact {
        Fact::Step(Step { path, delta, .. }) if path.is_empty() => {
            apply_values(values, delta, messages)
        }
        Fact::Edited(edited) if edited.path.is_empty() => {
            apply_values(values, &edited.delta, messages)
        }
        _ => Ok(()),
    }
}

fn apply_values(
    values: &mut IndexMap<Arc<str>, ChannelValue>,
    delta: &Delta,
    messages: &MessageMap,
) -> Result<(), String> {
    for (name, op) in delta {
        let slot = values.entry(name.clone()).or_default();
        state::apply(slot, op, messages).map_err(|e| e.to_string())?;
    }
    Ok(())
}
