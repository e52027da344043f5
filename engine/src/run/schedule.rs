//! What fires next: edges, branches and joins of the superstep schedule.
//!
//! Pure: from a graph, the state after a step's commit and the nodes that ended in it, to the
//! nodes of the next step. Conditions read the merged state, so that siblings see the same.
//!
//! Invariants:
//! - A node fires at most once per step, in the order of the YAML.
//! - A join fires when every slot is filled or dead and at least one is filled; firing empties
//!   it. It never fires twice for one set, and never vanishes: when nothing else is live, a join
//!   that holds an arrival fires.

use crate::expr::{ExprError, Scope};
use crate::graph::{Branch, Graph, Guard, Line, NodeIndex, Target};
use crate::node::NodeError;
use crate::state::State;

/// What fires, and what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// Nodes of the next step, in order, each once.
    pub next: Vec<NodeIndex>,
    /// `[join, slot]` pairs that hold an arrival, in order.
    pub filled: Vec<[usize; 2]>,
}

/// What START fires.
pub fn start(graph: &Graph, state: &State, scope: &Scope) -> Result<Fired, NodeError> {
    let mut fired = Fired::default();
    let guard = |error: &ExprError| NodeError::expression("edge from START", error);
    follow(&graph.start, graph.start_branch, state, scope, &mut fired).map_err(|e| guard(&e))?;
    resolve(graph, &mut fired);
    Ok(fired)
}

/// What fires after `ended` (nodes, in order) ended in one step.
pub fn after(
    graph: &Graph,
    state: &State,
    scope: &Scope,
    ended: impl Iterator<Item = NodeIndex>,
    filled: &[[usize; 2]],
) -> Result<Fired, NodeError> {
    let mut fired = Fired { next: Vec::new(), filled: filled.to_vec() };
    for node in ended {
        let node = &graph.nodes[node];
        follow(&node.lines, node.branch, state, scope, &mut fired)
            .map_err(|e| NodeError::expression(&format!("edge from {}", node.name), &e))?;
    }
    resolve(graph, &mut fired);
    Ok(fired)
}

fn follow(
    lines: &[Line],
    branch: Branch,
    state: &State,
    scope: &Scope,
    fired: &mut Fired,
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
            arrive(line.to, fired);
        }
    }
    let otherwise = lines.iter().filter(|l| matches!(l.guard, Guard::Otherwise));
    for line in otherwise.filter(|_| !met) {
        arrive(line.to, fired);
    }
    Ok(())
}

fn arrive(to: Target, fired: &mut Fired) {
    match to {
        Target::Node(node) if !fired.next.contains(&node) => fired.next.push(node),
        Target::Slot { join, slot } if !fired.filled.contains(&[join, slot]) => {
            fired.filled.push([join, slot]);
        }
        Target::Node(_) | Target::Slot { .. } | Target::End => {}
    }
}

/// Fires every join that can be, until none can.
fn resolve(graph: &Graph, fired: &mut Fired) {
    while !fired.filled.is_empty() {
        let mut waiting: Vec<usize> = fired.filled.iter().map(|f| f[0]).collect();
        waiting.sort_unstable();
        waiting.dedup();
        let ready = waiting.iter().copied().find(|&join| complete(graph, join, &waiting, fired));
        // Joins that wait only for each other would wait forever: the first one gives way.
        let stuck = || fired.next.is_empty().then(|| waiting.first().copied()).flatten();
        let Some(join) = ready.or_else(stuck) else { break };
        fired.filled.retain(|f| f[0] != join);
        arrive(Target::Node(graph.joins[join].target), fired);
    }
    fired.next.sort_unstable();
    fired.filled.sort_unstable();
}

/// Whether every slot of `join` is filled or dead. A join that holds an arrival counts as live
/// at its target for the others: it will fire.
fn complete(graph: &Graph, join: usize, waiting: &[usize], fired: &Fired) -> bool {
    let others = waiting.iter().filter(|&&j| j != join).map(|&j| graph.joins[j].target);
    let live: Vec<NodeIndex> = fired.next.iter().copied().chain(others).collect();
    graph.joins[join].slots.iter().enumerate().all(|(slot, source)| {
        fired.filled.contains(&[join, slot]) || !live.iter().any(|&n| source.alive[n])
    })
}
