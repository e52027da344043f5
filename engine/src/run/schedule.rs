//! Which nodes begin next: edges, branches and joins.
//!
//! Pure: from a graph, the state after a step's commit, the nodes that ended in it and those that
//! still run, to the nodes that begin. Conditions read the merged state, so that siblings see the
//! same. Both schedules share it: under supersteps nothing else runs when a step ends.
//!
//! Invariants:
//! - A node begins at most once per step, in the order of the YAML.
//! - A join fires once for one set of arrivals, which it empties; of one that counts, a slot that
//!   was live and not filled then owes one arrival, which is absorbed.
//! - A join over all never vanishes: when nothing else is live, one that holds an arrival fires.
//!   One that counts fails the run once it can no longer get what it needs.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use crate::expr::{ExprError, Scope};
use crate::graph::{Branch, Graph, GraphNode, Guard, Line, Needs, NodeIndex, Slot, Target};
use crate::node::NodeError;
use crate::run::joins::JoinState;
use crate::state::{State, short};

/// What begins, and what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Successors {
    /// Nodes that begin, in order, each once.
    pub next: Vec<NodeIndex>,
    /// What joins hold.
    pub joins: JoinState,
    /// The same nodes as `next`, once there are so many that looking through them would cost.
    many: HashSet<NodeIndex>,
}

/// Nodes that run, and how many tasks of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveNodes {
    counts: Vec<u32>,
    total: usize,
}

/// A node that ended.
#[derive(Clone, Debug)]
pub struct EndedNode {
    /// Which.
    pub node: NodeIndex,
    /// Where it leads.
    pub transition: Transition,
}

/// Where a node that ended leads.
#[derive(Clone, Debug)]
pub enum Transition {
    /// Along its lines, or where its `goto` says.
    Lines,
    /// To these nodes, named by the node itself.
    Goto(Vec<Arc<str>>),
    /// To the node that handles its failure.
    OnError(NodeIndex),
}

/// From how many nodes on [`Successors`] keeps a set of them.
const MANY: usize = 16;

impl LiveNodes {
    /// Notes a task of a node.
    pub(super) fn add(&mut self, node: NodeIndex) {
        if self.counts.len() <= node {
            self.counts.resize(node + 1, 0);
        }
        self.counts[node] += 1;
        self.total += 1;
    }

    /// Takes a task of a node away.
    pub(super) fn remove(&mut self, node: NodeIndex) {
        if let Some(count) = self.counts.get_mut(node).filter(|count| **count > 0) {
            *count -= 1;
            self.total -= 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn has(&self, node: NodeIndex) -> bool {
        self.counts.get(node).is_some_and(|count| *count > 0)
    }

    fn iter(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        let counts = if self.is_empty() { &[][..] } else { &self.counts };
        counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(node, _)| node)
    }
}

impl FromIterator<NodeIndex> for LiveNodes {
    fn from_iter<I: IntoIterator<Item = NodeIndex>>(nodes: I) -> Self {
        let mut live = Self::default();
        nodes.into_iter().for_each(|node| live.add(node));
        live
    }
}

/// What START begins.
pub fn start(graph: &Graph, state: &State, scope: &Scope) -> Result<Successors, NodeError> {
    let mut successors = Successors::default();
    let mut walk = Walk { graph, state, scope, successors: &mut successors };
    walk.follow(&graph.start, graph.start_branch)
        .map_err(|error| NodeError::expression("edge from START", &error))?;
    resolve(graph, &LiveNodes::default(), &mut successors)?;
    Ok(successors)
}

/// What begins after `ended` (nodes, in order) ended in one step, while `running` go on.
pub fn after(
    graph: &Graph,
    state: &State,
    scope: &Scope,
    ended: impl Iterator<Item = EndedNode>,
    joins: &JoinState,
    running: &LiveNodes,
) -> Result<Successors, NodeError> {
    let mut successors = Successors { joins: joins.clone(), ..Successors::default() };
    for EndedNode { node, transition } in ended {
        let node = &graph.nodes[node];
        let jumps = match transition {
            Transition::OnError(handler) => Some(vec![Target::Node(handler)]),
            Transition::Goto(names) => Some(declared(node, &names)?),
            Transition::Lines => chosen(node, state, scope)?,
        };
        if let Some(targets) = jumps {
            for to in targets {
                successors.arrive(graph, to);
            }
        } else {
            let mut walk = Walk { graph, state, scope, successors: &mut successors };
            walk.follow(&node.lines, node.branch)
                .map_err(|e| NodeError::expression(&format!("edge from {}", node.name), &e))?;
        }
    }
    resolve(graph, running, &mut successors)?;
    Ok(successors)
}

/// What the node's `goto` gives; `None` if it has none, or leaves it to the lines.
fn chosen(
    node: &GraphNode,
    state: &State,
    scope: &Scope,
) -> Result<Option<Vec<Target>>, NodeError> {
    let Some(goto) = &node.policy.goto else { return Ok(None) };
    let value = goto.to.eval(state, scope).map_err(|e| NodeError::expression("goto", &e))?;
    let names: Vec<Arc<str>> = match &value {
        Value::Null => return Ok(None),
        Value::String(name) => vec![name.as_str().into()],
        Value::Array(names) if names.iter().all(Value::is_string) => {
            names.iter().filter_map(Value::as_str).map(Into::into).collect()
        }
        other => return Err(refused(node, short(other))),
    };
    declared(node, &names).map(Some)
}

fn declared(node: &GraphNode, names: &[Arc<str>]) -> Result<Vec<Target>, NodeError> {
    let goto = node.policy.goto.as_ref();
    let target = |name: &Arc<str>| {
        let place = goto.and_then(|goto| goto.names.iter().position(|n| n == name));
        place.zip(goto).map(|(place, goto)| goto.among[place])
    };
    names
        .iter()
        .map(|name| target(name).ok_or_else(|| refused(node, format!("`{name}`"))))
        .collect()
}

fn refused(node: &GraphNode, got: String) -> NodeError {
    let names = node.policy.goto.as_ref().map(|goto| goto.names.join(", "));
    let allowed = names.unwrap_or_else(|| "nothing: the node declares no `goto`".to_owned());
    NodeError::Goto { got, allowed }
}

impl Successors {
    fn arrive(&mut self, graph: &Graph, to: Target) {
        match to {
            Target::Node(node) => self.begin(node),
            Target::Slot { join, slot } => self.joins.arrive(graph, join, slot),
            Target::End => {}
        }
    }

    fn begin(&mut self, node: NodeIndex) {
        if self.next.len() < MANY {
            if !self.next.contains(&node) {
                self.next.push(node);
            }
            return;
        }
        if self.many.is_empty() {
            self.many.extend(&self.next);
        }
        if self.many.insert(node) {
            self.next.push(node);
        }
    }
}

/// Follows the lines of a node that ended.
struct Walk<'s> {
    graph: &'s Graph,
    state: &'s State,
    scope: &'s Scope,
    successors: &'s mut Successors,
}

impl Walk<'_> {
    fn follow(&mut self, lines: &[Line], branch: Branch) -> Result<(), ExprError> {
        let mut met = false;
        for line in lines {
            let taken = match &line.guard {
                Guard::Always => true,
                Guard::When(_) if met && branch == Branch::First => false,
                Guard::When(condition) => {
                    let holds = condition.test(self.state, self.scope)?;
                    met |= holds;
                    holds
                }
                Guard::Otherwise => false,
            };
            if taken {
                self.successors.arrive(self.graph, line.to);
            }
        }
        let otherwise = lines.iter().filter(|l| matches!(l.guard, Guard::Otherwise));
        for line in otherwise.filter(|_| !met) {
            self.successors.arrive(self.graph, line.to);
        }
        Ok(())
    }
}

/// Fires every join that can be, until none can.
fn resolve(
    graph: &Graph,
    running: &LiveNodes,
    successors: &mut Successors,
) -> Result<(), NodeError> {
    if graph.joins.is_empty() {
        successors.next.sort_unstable();
        return Ok(());
    }
    while !successors.joins.is_idle() {
        let waiting = successors.joins.waiting(graph);
        let live = Live { graph, running, successors, waiting: &waiting };
        let ready = waiting.iter().copied().find(|&join| live.completes(join));
        let Some(join) = ready.or_else(|| live.gives_way()) else { break };
        let owes = live.owed_by(join);
        successors.joins.empty(graph, join, |slot| owes.contains(&slot));
        successors.begin(graph.joins[join].target);
    }
    let waiting = successors.joins.waiting(graph);
    let live = Live { graph, running, successors, waiting: &[] };
    let mut joins = successors.joins.clone();
    joins.keep_owed(graph, |join, slot| live.reaches(&graph.joins[join].slots[slot], None));
    Live { waiting: &waiting, ..live }.check_starved()?;
    successors.joins = joins;
    successors.next.sort_unstable();
    Ok(())
}

/// Where something goes on: nodes that run and that begin. A join that holds an arrival counts as
/// live at its target for the other joins: it will fire.
struct Live<'l> {
    graph: &'l Graph,
    running: &'l LiveNodes,
    successors: &'l Successors,
    /// Joins that hold an arrival, in order.
    waiting: &'l [usize],
}

impl Live<'_> {
    /// Whether something live can still come to a slot; `join`: of which it is one.
    fn reaches(&self, slot: &Slot, join: Option<usize>) -> bool {
        let others = self.waiting.iter().filter(|&&other| Some(other) != join);
        let targets = others.map(|&other| self.graph.joins[other].target);
        self.running.has(slot.from)
            || self.successors.next.iter().copied().chain(targets).any(|node| slot.alive[node])
            || self.running.iter().any(|node| slot.alive[node])
    }

    /// Whether nothing runs and nothing begins.
    fn is_quiet(&self) -> bool {
        self.successors.next.is_empty() && self.running.is_empty()
    }

    /// Slots of a join that wait for an arrival.
    fn unfilled(&self, join: usize) -> impl Iterator<Item = (usize, &Slot)> {
        let slots = self.graph.joins[join].slots.iter().enumerate();
        slots.filter(move |(slot, _)| !self.successors.joins.is_filled(self.graph, join, *slot))
    }

    /// Whether a join fires now.
    fn completes(&self, join: usize) -> bool {
        match self.graph.joins[join].needs {
            Needs::Count(needed) => self.successors.joins.count_filled(self.graph, join) >= needed,
            Needs::All => self.unfilled(join).all(|(_, slot)| !self.reaches(slot, Some(join))),
        }
    }

    /// Joins over all that wait only for each other would wait forever: the first one gives way.
    fn gives_way(&self) -> Option<usize> {
        let over_all = |join: &usize| self.graph.joins[*join].needs == Needs::All;
        self.waiting.iter().copied().find(over_all).filter(|_| self.is_quiet())
    }

    /// Slots of a join that fires whose arrival is still to come.
    fn owed_by(&self, join: usize) -> HashSet<usize> {
        // One over all fires with slots unfilled only if they are dead, or if it gives way.
        if self.graph.joins[join].needs == Needs::All {
            return HashSet::new();
        }
        let to_come = self.unfilled(join).filter(|(_, slot)| self.reaches(slot, Some(join)));
        to_come.map(|(slot, _)| slot).collect()
    }

    /// Fails if a join that counts holds arrivals and can no longer get as many as it needs.
    fn check_starved(&self) -> Result<(), NodeError> {
        for &join in self.waiting {
            let Needs::Count(needs) = self.graph.joins[join].needs else { continue };
            let got = self.successors.joins.count_filled(self.graph, join);
            let to_come =
                self.unfilled(join).filter(|(_, slot)| self.reaches(slot, Some(join))).count();
            // When nothing else is live, joins that wait for each other wait in vain.
            if got + to_come < needs || self.is_quiet() {
                let target = self.graph.nodes[self.graph.joins[join].target].name.to_string();
                return Err(NodeError::JoinStarved { target, needs, got });
            }
        }
        Ok(())
    }
}
