//! What fires next: edges, branches and joins.
//!
//! Pure: from a graph, the state after a step's commit, the nodes that ended in it and those that
//! still run, to the nodes that begin. Conditions read the merged state, so that siblings see the
//! same. Both schedules share it: under supersteps nothing else runs when a step ends.
//!
//! Invariants:
//! - A node fires at most once per step, in the order of the YAML.
//! - A join fires once for one set of arrivals, which it empties; of one that counts, a slot that
//!   was live and not filled then owes one arrival, which is absorbed.
//! - A join over all never vanishes: when nothing else is live, one that holds an arrival fires.
//!   One that counts fails the run once it can no longer get what it needs.

use std::sync::Arc;

use serde_json::Value;

use crate::expr::{ExprError, Scope};
use crate::graph::{Branch, Graph, GraphNode, Guard, Line, Needs, NodeIndex, Target};
use crate::node::NodeError;
use crate::state::{State, short};

/// What fires, and what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firing {
    /// Nodes that begin, in order, each once.
    pub next: Vec<NodeIndex>,
    /// What joins hold.
    pub held: Held,
}

/// What joins hold: `[join, slot]` pairs, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Slots with an arrival.
    pub filled: Vec<[usize; 2]>,
    /// Slots whose next arrival is absorbed.
    pub owed: Vec<[usize; 2]>,
}

/// A node that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which.
    pub node: NodeIndex,
    /// Where it leads.
    pub way: Way,
}

/// Where a node that ended leads.
#[derive(Clone, Debug)]
pub enum Way {
    /// Along its lines, or where its `goto` says.
    Lines,
    /// To these nodes, named by the node itself.
    Goto(Vec<Arc<str>>),
    /// To the node that handles its failure.
    OnError(NodeIndex),
}

/// What START fires.
pub fn start(graph: &Graph, state: &State, scope: &Scope) -> Result<Firing, NodeError> {
    let mut firing = Firing::default();
    follow(&graph.start, graph.start_branch, state, scope, &mut firing)
        .map_err(|error| NodeError::expression("edge from START", &error))?;
    resolve(graph, &[], &mut firing)?;
    Ok(firing)
}

/// What fires after `ended` (nodes, in order) ended in one step, while `running` go on.
pub fn after(
    graph: &Graph,
    state: &State,
    scope: &Scope,
    ended: impl Iterator<Item = Ended>,
    held: &Held,
    running: &[NodeIndex],
) -> Result<Firing, NodeError> {
    let mut firing = Firing { next: Vec::new(), held: held.clone() };
    for Ended { node, way } in ended {
        let node = &graph.nodes[node];
        let jumps = match way {
            Way::OnError(handler) => Some(vec![Target::Node(handler)]),
            Way::Goto(names) => Some(declared(node, &names)?),
            Way::Lines => chosen(node, state, scope)?,
        };
        match jumps {
            Some(targets) => targets.into_iter().for_each(|to| arrive(to, &mut firing)),
            None => follow(&node.lines, node.branch, state, scope, &mut firing)
                .map_err(|e| NodeError::expression(&format!("edge from {}", node.name), &e))?,
        }
    }
    resolve(graph, running, &mut firing)?;
    Ok(firing)
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

fn follow(
    lines: &[Line],
    branch: Branch,
    state: &State,
    scope: &Scope,
    firing: &mut Firing,
) -> Result<(), ExprError> {
    let mut met = false;
    for line in lines {
        let taken = match &line.guard {
            Guard::Always => true,
            Guard::When(_) if met && branch == Branch::First => false,
            Guard::When(condition) => {
                let holds = condition.test(state, scope)?;
                met |= holds;
                holds
            }
            Guard::Otherwise => false,
        };
        if taken {
            arrive(line.to, firing);
        }
    }
    let otherwise = lines.iter().filter(|l| matches!(l.guard, Guard::Otherwise));
    for line in otherwise.filter(|_| !met) {
        arrive(line.to, firing);
    }
    Ok(())
}

fn arrive(to: Target, firing: &mut Firing) {
    match to {
        Target::Node(node) if !firing.next.contains(&node) => firing.next.push(node),
        Target::Slot { join, slot } => {
            let Held { filled, owed } = &mut firing.held;
            if let Some(place) = owed.iter().position(|o| *o == [join, slot]) {
                owed.remove(place);
            } else if !filled.contains(&[join, slot]) {
                filled.push([join, slot]);
            }
        }
        Target::Node(_) | Target::End => {}
    }
}

/// Fires every join that can be, until none can.
fn resolve(graph: &Graph, running: &[NodeIndex], firing: &mut Firing) -> Result<(), NodeError> {
    while !firing.held.filled.is_empty() {
        let waiting = waiting(firing);
        let ready =
            waiting.iter().copied().find(|&j| complete(graph, j, &waiting, running, firing));
        let Some(join) = ready.or_else(|| stuck(graph, &waiting, running, firing)) else {
            break;
        };
        fire(graph, join, &waiting, running, firing);
    }
    let live = live(graph, None, &[], running, firing);
    firing.held.owed.retain(|[join, slot]| {
        let source = &graph.joins[*join].slots[*slot];
        live.iter().any(|&n| source.alive[n])
    });
    starved(graph, running, firing)?;
    firing.next.sort_unstable();
    firing.held.filled.sort_unstable();
    firing.held.owed.sort_unstable();
    Ok(())
}

/// Joins that hold an arrival, in order.
fn waiting(firing: &Firing) -> Vec<usize> {
    let mut joins: Vec<usize> = firing.held.filled.iter().map(|f| f[0]).collect();
    joins.sort_unstable();
    joins.dedup();
    joins
}

/// Empties a join and fires its target. Slots that could still have been filled owe an arrival.
fn fire(graph: &Graph, join: usize, waiting: &[usize], running: &[NodeIndex], firing: &mut Firing) {
    // One over all fires with slots unfilled only if they are dead, or if it gives way.
    if graph.joins[join].needs != Needs::All {
        let live = live(graph, Some(join), waiting, running, firing);
        for (slot, source) in graph.joins[join].slots.iter().enumerate() {
            let Held { filled, owed } = &mut firing.held;
            let here = |places: &[[usize; 2]]| places.contains(&[join, slot]);
            if !here(filled) && !here(owed) && live.iter().any(|&n| source.alive[n]) {
                owed.push([join, slot]);
            }
        }
    }
    firing.held.filled.retain(|f| f[0] != join);
    arrive(Target::Node(graph.joins[join].target), firing);
}

/// Joins over all that wait only for each other would wait forever: the first one gives way.
fn stuck(
    graph: &Graph,
    waiting: &[usize],
    running: &[NodeIndex],
    firing: &Firing,
) -> Option<usize> {
    let nothing = firing.next.is_empty() && running.is_empty();
    let over_all = |join: &usize| graph.joins[*join].needs == Needs::All;
    waiting.iter().copied().find(over_all).filter(|_| nothing)
}

/// Where something goes on: running and firing nodes. A join of `waiting` that holds an arrival
/// counts as live at its target for the others: it will fire.
fn live(
    graph: &Graph,
    join: Option<usize>,
    waiting: &[usize],
    running: &[NodeIndex],
    firing: &Firing,
) -> Vec<NodeIndex> {
    let others = waiting.iter().filter(|&&j| Some(j) != join).map(|&j| graph.joins[j].target);
    firing.next.iter().chain(running).copied().chain(others).collect()
}

/// Whether a join fires now.
fn complete(
    graph: &Graph,
    join: usize,
    waiting: &[usize],
    running: &[NodeIndex],
    firing: &Firing,
) -> bool {
    let filled = |slot: usize| firing.held.filled.contains(&[join, slot]);
    match graph.joins[join].needs {
        Needs::Count(n) => (0..graph.joins[join].slots.len()).filter(|s| filled(*s)).count() >= n,
        Needs::All => {
            let live = live(graph, Some(join), waiting, running, firing);
            let slots = graph.joins[join].slots.iter().enumerate();
            slots
                .into_iter()
                .all(|(slot, source)| filled(slot) || !live.iter().any(|&n| source.alive[n]))
        }
    }
}

/// Fails if a join that counts holds arrivals and can no longer get as many as it needs.
fn starved(graph: &Graph, running: &[NodeIndex], firing: &Firing) -> Result<(), NodeError> {
    let waiting = waiting(firing);
    // When nothing else is live, joins that wait for each other wait in vain.
    let nothing = firing.next.is_empty() && running.is_empty();
    for &join in &waiting {
        let Needs::Count(needs) = graph.joins[join].needs else { continue };
        let live = live(graph, Some(join), &waiting, running, firing);
        let slots = graph.joins[join].slots.iter().enumerate();
        let (mut got, mut can) = (0, 0);
        for (slot, source) in slots {
            let filled = firing.held.filled.contains(&[join, slot]);
            got += usize::from(filled);
            can += usize::from(!filled && live.iter().any(|&n| source.alive[n]));
        }
        if got + can < needs || nothing {
            let target = graph.nodes[graph.joins[join].target].name.to_string();
            return Err(NodeError::JoinStarved { target, needs, got });
        }
    }
    Ok(())
}
