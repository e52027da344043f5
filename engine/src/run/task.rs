//! One firing of a node, and the live tasks of one running graph.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;
use jiff::Timestamp;
use serde_json::Value;

use crate::graph::NodeIndex;
use crate::message::Message;
use crate::node::NodeError;
use crate::run::context::Recorded;
use crate::run::instance::GraphInstance;
use crate::run::record::{Asked, Intent};
use crate::run::schedule::LiveNodes;
use crate::state::{State, Writes};

/// One firing of a node.
#[derive(Debug)]
pub struct Task {
    /// Which node.
    pub node: NodeIndex,
    /// `node:visit`; of an item `item:number`, counted from 1.
    pub id: Arc<str>,
    /// The ids from the run's own graph down to here, joined by `/`.
    pub path: Arc<str>,
    /// The state that it reads.
    pub state: Arc<State>,
    /// When it began.
    pub now: Timestamp,
    /// The failure that it handles, of a task that an `on_error` fired.
    pub handles: Option<Arc<Failure>>,
    /// Calls that are under way, by name.
    pub open: BTreeMap<Arc<str>, Intent>,
    /// Calls that ended, by name.
    pub replies: Arc<BTreeMap<Arc<str>, Recorded>>,
    /// What it asked people, by call name.
    pub asks: Arc<BTreeMap<Arc<str>, Question>>,
    /// Calls of which something was streamed that is void now.
    pub void: BTreeSet<Arc<str>>,
    /// Which attempt this is; the first is 1.
    pub attempt: u32,
    /// When the attempt begins, in milliseconds since 1970; 0: at once.
    pub not_before_ms: i64,
    /// The graph inside it, once something of it was looked at.
    pub inner: Option<Box<GraphInstance>>,
    result: Option<TaskResult>,
}

/// Why a task failed, and where inside of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Why.
    pub error: NodeError,
    /// Path of the innermost task that failed.
    pub path: Arc<str>,
}

/// A question, and its answer once there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// As it was asked.
    pub asked: Arc<Asked>,
    /// As it was answered.
    pub answer: Option<Answer>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was said; null if it expired without a default.
    pub value: Value,
    /// The message of the conversation that said it.
    pub message: Option<Arc<Message>>,
    /// Nobody answered in time.
    pub expired: bool,
}

/// How a task ended.
#[derive(Clone, Debug, Default)]
pub struct TaskResult {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it writes.
    pub writes: Writes,
    /// Nodes that it fires in place of its lines.
    pub goto: Option<Vec<Arc<str>>>,
    /// Why it failed.
    pub failure: Option<Arc<Failure>>,
    /// Whether it was taken from the cache.
    pub cached: bool,
    /// Whether a record of its own says so.
    pub recorded: bool,
}

impl Task {
    /// A task that has just begun.
    pub(super) fn new(
        node: NodeIndex,
        id: Arc<str>,
        path: Arc<str>,
        state: Arc<State>,
        now: Timestamp,
    ) -> Self {
        Self {
            node,
            id,
            path,
            state,
            now,
            handles: None,
            open: BTreeMap::new(),
            replies: Arc::default(),
            asks: Arc::default(),
            void: BTreeSet::new(),
            attempt: 1,
            not_before_ms: 0,
            inner: None,
            result: None,
        }
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn result(&self) -> Option<&TaskResult> {
        self.result.as_ref()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.result.is_some()
    }

    /// Why it failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&Arc<Failure>> {
        self.result.as_ref()?.failure.as_ref()
    }

    /// Questions without an answer.
    pub fn open_questions(&self) -> impl Iterator<Item = &Arc<Asked>> {
        self.asks.values().filter(|q| q.answer.is_none()).map(|q| &q.asked)
    }
}

/// The tasks of one running graph that its last step has not ended, in the order in which they
/// began; or the items of a list, by number.
///
/// Finding, adding and ending a task cost the same however many there are.
#[derive(Debug, Default)]
pub struct Tasks {
    /// `None`: it was taken out, or is an item that has not begun.
    slots: Vec<Option<Box<Task>>>,
    /// Places by id, once there are so many that looking through them would cost.
    places: HashMap<Arc<str>, usize>,
    /// Places of those that have ended.
    ended: BTreeSet<usize>,
    /// How many there are; of a list, items that have not begun included.
    len: usize,
    /// How many of them failed.
    failed: usize,
    /// Nodes that they are tasks of.
    nodes: LiveNodes,
    of_items: bool,
}

/// From how many tasks on [`Tasks`] keeps their places by id.
const MANY: usize = 8;

impl Tasks {
    /// Room for the items of a list, none of which has begun.
    pub(super) fn of_items(items: usize) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(items, || None);
        Self { slots, len: items, of_items: true, ..Self::default() }
    }

    /// How many there are, items that have not begun included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether each of them has ended.
    #[must_use]
    pub fn have_ended(&self) -> bool {
        self.ended.len() == self.len
    }

    /// The nodes that they are tasks of.
    #[must_use]
    pub fn nodes(&self) -> &LiveNodes {
        &self.nodes
    }

    /// Those that have begun, in order.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Task> {
        self.slots.iter().filter_map(|slot| slot.as_deref())
    }

    /// Those that have begun, in order. Whether one has ended cannot be changed this way.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        self.slots.iter_mut().filter_map(|slot| slot.as_deref_mut())
    }

    /// Those that have ended, in order.
    pub fn ended(&self) -> impl Iterator<Item = &Task> {
        self.ended.iter().filter_map(|place| self.slots[*place].as_deref())
    }

    /// Those that have failed, in order.
    pub fn failed(&self) -> impl Iterator<Item = &Task> {
        let ended = if self.failed == 0 { None } else { Some(self.ended()) };
        ended.into_iter().flatten().filter(|task| task.failure().is_some())
    }

    /// The task of that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Task> {
        self.slots.get(self.place(id)?)?.as_deref()
    }

    /// The task of that id.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Task> {
        let place = self.place(id)?;
        self.slots.get_mut(place)?.as_deref_mut()
    }

    /// Whether an item of that number has not begun.
    pub(super) fn awaits(&self, place: usize) -> bool {
        self.of_items && self.slots.get(place).is_some_and(Option::is_none)
    }

    fn place(&self, id: &str) -> Option<usize> {
        if self.of_items {
            return item_of(id)?.checked_sub(1);
        }
        if !self.places.is_empty() {
            return self.places.get(id).copied();
        }
        // The last ones began last, and are asked for most.
        self.slots.iter().rposition(|slot| slot.as_ref().is_some_and(|task| *task.id == *id))
    }

    /// Adds a task that has just begun.
    pub(super) fn push(&mut self, task: Task) {
        self.nodes.add(task.node);
        if self.of_items {
            if let Some(place) = item_of(&task.id).and_then(|n| n.checked_sub(1))
                && let Some(slot) = self.slots.get_mut(place)
            {
                *slot = Some(Box::new(task));
            }
            return;
        }
        self.len += 1;
        if self.slots.len() >= MANY {
            if self.places.is_empty() {
                let places = self.slots.iter().enumerate();
                let id =
                    |(n, slot): (usize, &Option<Box<Task>>)| Some((slot.as_ref()?.id.clone(), n));
                self.places = places.filter_map(id).collect();
            }
            self.places.insert(task.id.clone(), self.slots.len());
        }
        self.slots.push(Some(Box::new(task)));
    }

    /// Ends a task; `None`: there is none of that id.
    pub(super) fn end(&mut self, id: &str, result: TaskResult) -> Option<()> {
        let place = self.place(id)?;
        let task = self.slots.get_mut(place)?.as_deref_mut()?;
        let failed = |result: &TaskResult| usize::from(result.failure.is_some());
        self.failed += failed(&result);
        if let Some(before) = task.result.replace(result) {
            self.failed -= failed(&before);
        }
        self.ended.insert(place);
        Some(())
    }

    /// Makes a task that had failed live again.
    pub(super) fn reopen(&mut self, id: &str) -> Option<&mut Task> {
        let place = self.place(id)?;
        let task = self.slots.get_mut(place)?.as_deref_mut()?;
        if let Some(before) = task.result.take() {
            self.failed -= usize::from(before.failure.is_some());
        }
        self.ended.remove(&place);
        Some(task)
    }

    /// Takes a task out; its step has ended.
    pub(super) fn remove(&mut self, id: &str) -> Option<Task> {
        let place = self.place(id)?;
        let task = self.slots.get_mut(place)?.take()?;
        self.places.remove(id);
        self.ended.remove(&place);
        self.failed -= usize::from(task.failure().is_some());
        self.nodes.remove(task.node);
        self.len -= 1;
        if self.len == 0 {
            self.clear();
        } else if self.slots.len() > 2 * MANY && self.slots.len() > 2 * self.len {
            self.close_gaps();
        }
        Some(*task)
    }

    /// Takes all out, at the price of those that are there: what was allocated stays for the next.
    pub(super) fn clear(&mut self) {
        for task in self.slots.drain(..).flatten() {
            self.nodes.remove(task.node);
        }
        if !self.places.is_empty() {
            self.places = HashMap::default();
        }
        self.ended.clear();
        (self.len, self.failed, self.of_items) = (0, 0, false);
    }

    /// Gives every task the place of its node in another graph.
    ///
    /// # Errors
    /// A node has no place there.
    pub(super) fn move_nodes(
        &mut self,
        place: impl Fn(NodeIndex) -> Result<NodeIndex, String>,
    ) -> Result<(), String> {
        let mut nodes = LiveNodes::default();
        for task in self.iter_mut() {
            task.node = place(task.node)?;
            nodes.add(task.node);
        }
        self.nodes = nodes;
        Ok(())
    }

    /// Moves tasks together, over the places of those that were taken out. That happens once for
    /// every so many that were, so that it costs each of them the same.
    fn close_gaps(&mut self) {
        let slots = std::mem::take(&mut self.slots);
        self.slots = slots.into_iter().flatten().map(Some).collect();
        (self.places, self.ended) = (HashMap::default(), BTreeSet::new());
        for (place, task) in self.slots.iter().enumerate() {
            let Some(task) = task else { continue };
            self.places.insert(task.id.clone(), place);
            if task.has_ended() {
                self.ended.insert(place);
            }
        }
    }
}

/// What a task is called within its graph. Made on the stack: there is one for every task.
#[must_use]
pub(super) fn task_id(name: &str, visit: impl std::fmt::Display) -> Arc<str> {
    use std::io::Write as _;
    let mut buffer = [0_u8; 64];
    let mut rest = &mut buffer[..];
    let whole = write!(rest, "{name}:{visit}").is_ok();
    let left = rest.len();
    let length = buffer.len() - left;
    match std::str::from_utf8(&buffer[..length]) {
        Ok(id) if whole => id.into(),
        _ => format!("{name}:{visit}").into(),
    }
}

/// The path of a task of the graph at `path`.
#[must_use]
pub(super) fn inside(path: &str, id: &Arc<str>) -> Arc<str> {
    if path.is_empty() { id.clone() } else { format!("{path}/{id}").into() }
}

/// The number of an item, from its id.
#[must_use]
pub(super) fn item_of(id: &str) -> Option<usize> {
    id.rsplit_once(':')?.1.parse().ok()
}

/// A task's path: that of the graph it belongs to, and its id.
#[must_use]
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
